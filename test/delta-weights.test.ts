import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openModelParts } from '../src/flow/recipe/model-parts.ts';
import { writeJson } from '../src/flow/recipe/model-folder.ts';
import { deltaParts, deltaWeights } from '../src/nn/delta-weights.ts';
import { AutoencoderKL, CLIPTextModel, type Module, type StateDict } from '../src/nn/index.ts';
import { loadWeights } from '../src/nn/load.ts';
import { currentGpu, useGpu } from '../src/tensor/index.ts';
import { writeTensors } from '../src/tensor/io/files-node.ts';
import { openWeights, saveWeights } from '../src/tensor/io/weights-node.ts';
import { readFloat32, type Rows, type WeightSource } from '../src/tensor/io/weights.ts';
import { testGpu } from './check-op.ts';
import { tinyUNet } from './tiny-unet.ts';

const test = suite('delta-weights');
const folder = await mkdtemp(join(tmpdir(), 'rectiflow-test-'));
test.before(async () => void useGpu(await testGpu()));
test.after(() => rm(folder, { recursive: true }));

const textModel = () =>
  new CLIPTextModel({
    vocab_size: 11,
    hidden_size: 12,
    intermediate_size: 20,
    num_hidden_layers: 1,
    num_attention_heads: 3,
    max_position_embeddings: 6,
  });
const autoencoder = () => new AutoencoderKL({ block_out_channels: [4, 8], layers_per_block: 1, norm_num_groups: 2 });

/** A model in diffusers' layout, with weights by its seed. */
async function model(name: string, seed: number, dtype: 'F32' | 'F16' = 'F32'): Promise<Record<string, StateDict>> {
  const states: Record<string, StateDict> = {};
  const parts: [string, Module, string][] = [
    ['unet', tinyUNet(), 'diffusion_pytorch_model'],
    ['text_encoder', textModel(), 'model'],
    ['vae', autoencoder(), 'diffusion_pytorch_model'],
  ];
  for (const [part, module, file] of parts) {
    await mkdir(join(folder, name, part), { recursive: true });
    states[part] = await module.initialize(seed).stateDict();
    for (const tensor of Object.values(states[part])) tensor.dtype = dtype;
    await writeTensors(join(folder, name, part, `${file}.safetensors`), states[part]);
    await writeJson(join(folder, name, part, 'config.json'), {});
    module.dispose();
  }
  return states;
}

const [flow, finetuned, base] = ['flow', 'finetuned', 'base'];

test.before(async () => {
  await model(flow, 1);
  await model(finetuned, 2, 'F16');
  await model(base, 3);
});

const open = async () => {
  const opened = await Promise.all([flow, finetuned, base].map((name) => openModelParts(join(folder, name))));
  const [a, b, c] = opened.map(({ sources }) => sources);
  const close = async () => {
    for (const { close } of opened) await close();
  };
  return { models: { flow: a, finetuned: b, base: c }, close };
};

test('W_flow + α (W_finetuned − W_base) in every tensor of the U-Net, the other parts of the fine-tuned model', async () => {
  const { models, close } = await open();
  const parts = deltaParts(models, { alpha: 0.75 });
  using unet = tinyUNet();
  using text = textModel();
  using vae = autoencoder();
  await loadWeights(unet, parts.unet!);
  await loadWeights(text, parts.text_encoder!);
  await loadWeights(vae, parts.vae!);
  const state = await unet.stateDict();
  for (const key of models.flow.unet!.entries.keys()) {
    const [w, tuned, before] = await Promise.all(
      [models.flow, models.finetuned, models.base].map(async ({ unet }) => (await readFloat32(unet!, key)).data),
    );
    assert.equal(
      state[key].data,
      Float32Array.from(w, (v, i) => v + 0.75 * (tuned[i] - before[i])),
      key,
    );
  }
  for (const [part, module] of [
    ['text_encoder', text],
    ['vae', vae],
  ] as const) {
    const loaded = await module.stateDict();
    for (const key of Object.keys(loaded))
      assert.equal(loaded[key].data, (await readFloat32(models.finetuned[part]!, key)).data, key);
  }
  await close();
});

test('nothing fine-tuned changes nothing, and a flow that is the base becomes the fine-tuned model', async () => {
  const { models, close } = await open();
  const { flow, finetuned, base } = models;
  for (const [source, want] of [
    [deltaWeights(flow.unet!, base.unet!, base.unet!), flow],
    [deltaWeights(base.unet!, finetuned.unet!, base.unet!), finetuned],
    [deltaWeights(flow.unet!, finetuned.unet!, base.unet!, { alpha: 0 }), flow],
  ] as const) {
    for (const key of source.entries.keys())
      assert.equal((await readFloat32(source, key)).data, (await readFloat32(want.unet!, key)).data, key);
  }
  await close();
});

test('it is read by pieces, one tensor at a time, and can be saved as a file', async () => {
  const { models, close } = await open();
  let running = 0;
  const reads: [key: string, running: number][] = [];
  const watched = (source: WeightSource): WeightSource => ({
    ...source,
    async read(key: string, rows?: Rows) {
      reads.push([key, ++running]);
      try {
        return await source.read(key, rows);
      } finally {
        running--;
      }
    },
  });
  const source = deltaWeights(watched(models.flow.unet!), watched(models.finetuned.unet!), watched(models.base.unet!));
  assert.is(reads.length, 0);
  const [whole, some] = [await source.read('conv_in.weight'), await source.read('conv_in.weight', [3, 5])];
  const row = whole.length / 16;
  assert.equal(some, whole.slice(3 * row, 5 * row));
  reads.length = 0;
  const file = join(folder, 'changed.safetensors');
  await saveWeights(file, source);
  assert.ok(reads.every(([, running]) => running === 1));
  assert.is(reads.length, 3 * source.entries.size);
  for (let i = 0; i < reads.length; i += 3) assert.is(new Set(reads.slice(i, i + 3).map(([key]) => key)).size, 1);
  const saved = await openWeights(file);
  for (const key of source.entries.keys())
    assert.equal((await readFloat32(saved, key)).data, (await readFloat32(source, key)).data, key);
  await saved.close();
  await close();
});

test('U-Nets that are not of one origin are refused, with all keys and shapes that differ', async () => {
  const { models, close } = await open();
  const { unet } = models.flow;
  const entries = new Map(unet!.entries);
  entries.set('conv_in.weight', { dtype: 'F32', shape: [16, 9, 3, 3] });
  entries.delete('conv_in.bias');
  entries.set('extra.weight', { dtype: 'F32', shape: [1] });
  const other = { ...unet!, name: 'inpainting', entries };
  assert.throws(
    () => deltaWeights(unet!, other, models.base.unet!),
    (error: Error) =>
      /not of one origin/.test(error.message) &&
      /the fine-tuned model: inpainting/.test(error.message) &&
      /conv_in\.weight {2}\[16, 4, 3, 3\] {2}\[16, 9, 3, 3\] {2}\[16, 4, 3, 3\]/.test(error.message) &&
      /conv_in\.bias {2}\[16\] {2}missing {2}\[16\]/.test(error.message) &&
      /extra\.weight {2}missing {2}\[1\] {2}missing/.test(error.message),
  );
  assert.throws(() => deltaWeights(unet!, unet!, unet!, { alpha: NaN }), /alpha is NaN/);
  assert.throws(() => deltaParts({ ...models, base: {} }), /the model that both began as: there is no unet/);
  assert.throws(
    () => deltaParts({ ...models, finetuned: { unet: unet! } }),
    /the fine-tuned model has no text_encoder, no vae\n {2}its own go with its U-Net/,
  );
  await close();
});

test.after(() => currentGpu().idle());
test.run();
