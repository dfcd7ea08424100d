import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Pipeline } from '../src/flow/pipeline.ts';
import { convertModel } from '../src/flow/recipe/convert-model.ts';
import { saveModule, writeJson } from '../src/flow/recipe/model-folder.ts';
import { openModel, openRefiner } from '../src/flow/recipe/open-model.ts';
import { CLIPTextModel, UNet2DConditionModel } from '../src/nn/index.ts';
import { init } from '../src/tensor/index.ts';
import { openWeights } from '../src/tensor/io/weights-node.ts';
import { assertClose } from './check-op.ts';
import { collectGarbage } from './garbage.ts';
import { randoms } from './randoms.ts';
import { addTokenizer, clip, makeModel, makeRefiner, unet } from './tiny-model.ts';
import { torchFile } from './torch-writer.ts';
import type { SavedTensor } from './torch-writer.ts';

const test = suite('open model');
const folder = await mkdtemp(join(tmpdir(), 'rectiflow-open-'));
const gpu = await init();
test.after(async () => {
  gpu.destroy();
  await rm(folder, { recursive: true });
});
const at = (...names: string[]) => join(folder, ...names);

const sd = await makeModel(at('sd'), 'StableDiffusionPipeline');
const size = { height: 16, width: 16 }; // a single file does not say either
const draw = async (pipeline: Pipeline, options: object = {}) => {
  const result = await pipeline.sample({ prompts: ['a cat on a boat'], seeds: 5, steps: 3, ...size, ...options });
  pipeline.dispose();
  return result;
};
const refuses = async (open: () => Promise<unknown>, message: RegExp) => {
  await collectGarbage();
  const before = gpu.memory().arrays;
  const error = await open().then(
    () => undefined,
    (e: Error) => e,
  );
  assert.match(error?.message ?? 'no error', message);
  assert.is(gpu.memory().arrays, before, 'arrays left behind');
};

test('a folder, a single file and a .ckpt of the same weights draw the same picture', async () => {
  const want = await draw(await openModel(sd));
  assert.equal([want.sampler, want.guidanceScale, want.evaluations], ['PNDM', 7.5, 4]);
  await convertModel(sd, at('sd.safetensors'));
  await addTokenizer(folder);
  const single = await draw(await openModel(at('sd.safetensors')));
  assert.is(single.sampler, 'PNDM');
  assert.equal(single.images, want.images);

  const source = await openWeights(at('sd.safetensors'));
  const tensors: Record<string, SavedTensor> = {};
  for (const [key, { dtype, shape }] of source.entries) tensors[key] = { dtype, shape, bytes: await source.read(key) };
  await source.close();
  await writeFile(at('sd.ckpt'), torchFile(tensors, { under: 'state_dict' }));
  assert.equal((await draw(await openModel(at('sd.ckpt')))).images, want.images);
});

test('a pipeline of rectified flow is one, whatever its scheduler folder says', async () => {
  await cp(sd, at('instaflow'), { recursive: true });
  await writeJson(at('instaflow', 'model_index.json'), { _class_name: 'RectifiedFlowPipeline' });
  const pipeline = await openModel(at('instaflow'));
  const result = await pipeline.sample({ prompts: ['a cat'], seeds: 5, ...size });
  assert.equal([result.sampler, result.steps, result.guidanceScale], ['RectifiedFlow euler', 1, 1]);
  pipeline.dispose();
  const told = await openModel(at('sd.safetensors'), { rectifiedFlow: true });
  const same = await told.sample({ prompts: ['a cat'], seeds: 5, ...size });
  assert.equal(same.images, result.images);
  told.dispose();
});

test('halves take half the memory and draw nearly the same', async () => {
  const bytes = () => gpu.memory().live;
  const before = bytes();
  const whole = await openModel(sd);
  const full = bytes() - before;
  const want = await whole.sample({ prompts: ['a cat'], seeds: 5, steps: 3, guidanceScale: 1 });
  whole.dispose();
  const pipeline = await openModel(sd, { dtype: 'f16' });
  const half = bytes() - before;
  assert.ok(half < 0.6 * full, `${half} bytes, and ${full} in f32`);
  const got = await pipeline.sample({ prompts: ['a cat'], seeds: 5, steps: 3, guidanceScale: 1 });
  assertClose(got.images, want.images, 2e-2, 'images');
  assert.not.equal(got.images, want.images);
  pipeline.dispose();
});

test('a fine-tuned model on a rectified flow: its change, its text encoder and its autoencoder', async () => {
  await cp(sd, at('tuned'), { recursive: true });
  const network = new UNet2DConditionModel(unet).initialize(3);
  network.conv_out.weight.array.write(randoms(network.conv_out.weight.size, 4, [-0.2, 0.2]));
  await saveModule(at('tuned'), 'unet', network, 'UNet2DConditionModel', { dtype: 'F32' });
  await saveModule(at('tuned'), 'text_encoder', new CLIPTextModel(clip).initialize(9), 'CLIPTextModel', {
    dtype: 'F32',
  });
  const picture = async (path: string, options: object) => {
    const pipeline = await openModel(path, { rectifiedFlow: true, ...options });
    const { images } = await pipeline.sample({ prompts: ['a cat'], seeds: 5, ...size });
    pipeline.dispose();
    return images;
  };
  const delta = { finetuned: at('tuned'), base: sd };
  // The flow has the weights of the base, so all of the change makes it the fine-tuned model.
  assertClose(await picture(at('instaflow'), { delta }), await picture(at('tuned'), {}), 1e-5, 'images');
  const half = await picture(at('instaflow'), { delta: { ...delta, scale: 0.5 } });
  assert.not.equal(half, await picture(at('tuned'), {}));
});

test('loading is told tensor by tensor', async () => {
  const last = new Map<string, [number, number]>();
  const pipeline = await openModel(sd, { progress: (part, loaded, total) => void last.set(part, [loaded, total]) });
  pipeline.dispose();
  assert.equal([...last.keys()], ['text_encoder', 'vae', 'unet']);
  for (const [loaded, total] of last.values()) assert.is(loaded, total);
});

test("the refiner from its folder goes over another model's picture", async () => {
  const model = await makeRefiner(at('refiner'));
  const pipeline = await openRefiner(model);
  const images = randoms(16 * 16 * 3, 8, [-1, 1]);
  const refined = await pipeline.refine({ prompts: ['a cat'], seeds: 1, images, height: 16, width: 16, steps: 10 });
  assert.equal([refined.sampler, refined.evaluations], ['Euler', 3]);
  assert.ok(refined.images.every(Number.isFinite));
  pipeline.dispose();
  await refuses(() => openModel(model), /Stable Diffusion XL's refiner\n.*--refiner/);
  await refuses(() => openRefiner(sd), /not Stable Diffusion XL's refiner, but a model of the family sd1/);
});

test('what is missing or broken is named, and nothing stays on the GPU', async () => {
  await refuses(() => openModel(at('none')), /none: no such file or folder/);
  await cp(sd, at('lame'), { recursive: true });
  await rm(at('lame', 'tokenizer'), { recursive: true });
  await rm(at('tokenizer'), { recursive: true, force: true });
  await refuses(
    () => openModel(at('lame')),
    /no tokenizer with it\n {2}looked for .*lame.tokenizer.merges\.txt[\s\S]*--tokenizer/,
  );
  const pipeline = await openModel(at('lame'), { tokenizer: 'test/data/golden/tok/synthetic' });
  pipeline.dispose();
  await writeJson(at('lame', 'unet', 'config.json'), { ...unet, block_out_channels: [32, 32] });
  const options = { tokenizer: 'test/data/golden/tok/synthetic' };
  await refuses(() => openModel(at('lame'), options), /diffusion_pytorch_model\.safetensors: /);
  await rm(at('lame', 'vae'), { recursive: true });
  await refuses(() => openModel(at('lame'), options), /is not a whole model\n {2}missing: vae/);
});

test.run();
