import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { runCommand } from '../src/cli/command.ts';
import sampleCommand from '../src/cli/commands/sample.ts';
import { readPng } from '../src/cli/pictures/png.ts';
import { saveModule } from '../src/flow/recipe/model-folder.ts';
import { openControlNet, readControlConfig } from '../src/flow/recipe/open-controlnet.ts';
import { outlineOf, UNet2DConditionModel } from '../src/nn/index.ts';
import type { StateDict } from '../src/nn/index.ts';
import { ControlNetModel } from '../src/nn/models/controlnet.ts';
import type { ControlNetConfig } from '../src/nn/models/controlnet-config.ts';
import { controlNetConfig } from '../src/nn/single-file/configs.ts';
import { controlKeys } from '../src/nn/single-file/controlnet.ts';
import { init, noGrad, scope, tensor, useGpu } from '../src/tensor/index.ts';
import { writeTensors } from '../src/tensor/io/files-node.ts';
import type { WeightSource } from '../src/tensor/io/weights.ts';
import { randoms } from './randoms.ts';
import { refuses } from './refuses.ts';
import { makeModel, unet } from './tiny-model.ts';
import { torchFile } from './torch-writer.ts';
import type { SavedTensor } from './torch-writer.ts';

const test = suite('files of ControlNets');
const folder = await mkdtemp(join(tmpdir(), 'rectiflow-controlnet-'));
const at = (...names: string[]) => join(folder, ...names);
const gpu = await init();
test.after(async () => {
  gpu.destroy();
  await rm(folder, { recursive: true });
});

const hint = { conditioning_embedding_out_channels: [4, 8] }; // for images of twice the size of latents

/** One whose zero convolutions have learnt something, as diffusers has it, and its numbers. */
async function make(): Promise<{ state: StateDict; config: ControlNetConfig }> {
  using network = new UNet2DConditionModel(unet).initialize(3);
  using control = ControlNetModel.fromUNet(network, { seed: 4, ...hint });
  for (const [key, p] of control.namedParameters())
    if (/^controlnet/.test(key)) p.array.write(randoms(p.size, p.size, [-0.2, 0.2]));
  await saveModule(folder, 'edges', control, 'ControlNetModel', { dtype: 'F32' });
  return { state: await control.stateDict(), config: control.config };
}

/** What it adds to the network, as numbers. */
async function residuals(path: string, options: object = {}): Promise<Float32Array[]> {
  using control = await openControlNet(path, options);
  const { dtype } = control.conv_in.weight;
  const made = scope(() =>
    noGrad(() => {
      const numbers = (shape: number[], seed: number) =>
        tensor(
          randoms(
            shape.reduce((n, d) => n * d),
            seed,
          ),
          shape,
          { dtype },
        );
      const [z, text, image] = [numbers([2, 8, 8, 4], 1), numbers([2, 3, 128], 2), numbers([2, 16, 16, 3], 3)];
      const { downBlockAdditionalResiduals: down, midBlockAdditionalResidual: mid } = control.forward(
        z,
        300,
        text,
        image,
      );
      return [...down, mid];
    }),
  );
  const read = await Promise.all(made.map((x) => x.read() as Promise<Float32Array>));
  for (const x of made) x.dispose();
  return read;
}

const { state, config } = await make();
/** By the names of the original code. */
const renamed: StateDict = Object.fromEntries(
  controlKeys.fromDiffusers(Object.keys(state)).map(({ single, diffusers }) => [single, state[diffusers]]),
);
const under = (prefix: string, tensors: StateDict): StateDict =>
  Object.fromEntries(Object.entries(tensors).map(([key, value]) => [prefix + key, value]));
const saved = (tensors: StateDict): Record<string, SavedTensor> =>
  Object.fromEntries(
    Object.entries(tensors).map(([key, { shape, data }]) => [
      key,
      { dtype: 'F32', shape, bytes: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) },
    ]),
  );

test('a ControlNet of Stable Diffusion 1.5 has the keys of the original code, both ways', () => {
  const control = outlineOf(() => new ControlNetModel());
  const shapes = new Map([...control.namedParameters()].map(([key, p]) => [key, p.checkpointShape]));
  const rows = controlKeys.fromDiffusers([...shapes.keys()]);
  assert.is(rows.length, 340);
  const single = new Map(rows.map((row) => [row.single, shapes.get(row.diffusers)]));
  for (const [key, shape] of [
    ['input_hint_block.0.weight', [16, 3, 3, 3]],
    ['input_hint_block.12.weight', [256, 96, 3, 3]],
    ['input_hint_block.14.bias', [320]],
    ['zero_convs.0.0.weight', [320, 320, 1, 1]],
    ['zero_convs.11.0.weight', [1280, 1280, 1, 1]],
    ['middle_block_out.0.weight', [1280, 1280, 1, 1]],
    ['middle_block.1.transformer_blocks.0.attn2.to_k.weight', [1280, 768]],
    ['input_blocks.0.0.weight', [320, 4, 3, 3]],
    ['input_blocks.3.0.op.weight', [320, 320, 3, 3]],
    ['input_blocks.4.0.skip_connection.weight', [640, 320, 1, 1]],
    ['input_blocks.11.0.out_layers.3.weight', [1280, 1280, 3, 3]],
    ['time_embed.2.weight', [1280, 1280]],
  ] as [string, number[]][])
    assert.equal([...(single.get(key) ?? [])], shape, key);
  const back = controlKeys.fromSingle([...single.keys()]);
  const line = ({ single, diffusers }: { single: string; diffusers: string }) => `${single} ${diffusers}`;
  assert.equal(back.map(line).sort(), rows.map(line).sort());

  const entries = new Map([...shapes].map(([key, shape]) => [key, { dtype: 'F32' as const, shape }]));
  const inferred = controlNetConfig({ name: 'x', metadata: {}, entries } as unknown as WeightSource);
  for (const [field, value] of Object.entries(inferred))
    if (field in control.config && field !== 'transformer_layers_per_block')
      assert.equal(value, control.config[field as keyof ControlNetConfig], field);
});

test('the original .pth, its safetensors, a file of diffusers and a whole model say what the folder says', async () => {
  const want = await residuals(at('edges'));
  assert.ok(want.every((numbers) => numbers.some((v) => Math.abs(v) > 1e-3)));
  const others: StateDict = { 'model.diffusion_model.out.2.bias': { shape: [4], data: new Float32Array(4) } };
  const original = under('control_model.', renamed);
  await writeFile(at('control_v11p_sd15_canny.pth'), torchFile(saved(original)));
  await writeFile(at('control_sd15_canny.pth'), torchFile(saved({ ...others, ...original }), { under: 'state_dict' }));
  await writeTensors(at('canny.safetensors'), original);
  await writeTensors(at('bare.safetensors'), renamed);
  await writeTensors(at('diffusers.safetensors'), state);
  for (const name of [
    'control_v11p_sd15_canny.pth',
    'control_sd15_canny.pth',
    'canny.safetensors',
    'bare.safetensors',
    'diffusers.safetensors',
  ]) {
    assert.equal(await residuals(at(name)), want, name);
    const inferred = await readControlConfig(at(name));
    assert.equal(inferred.conditioning_embedding_out_channels, config.conditioning_embedding_out_channels, name);
    assert.is(inferred.global_pool_conditions, false);
  }
  const half = await residuals(at('control_v11p_sd15_canny.pth'), { dtype: 'f16' });
  assert.ok(half.every((numbers, i) => numbers.every((v, k) => Math.abs(v - want[i][k]) < 0.02)));
});

test('that of shuffled pictures counts by its mean, as its name alone tells', async () => {
  await writeTensors(at('control_v11e_sd15_shuffle.safetensors'), renamed);
  const [first] = await residuals(at('control_v11e_sd15_shuffle.safetensors'));
  const channels = unet.block_out_channels[0];
  assert.equal(first.slice(0, channels), first.slice(channels, 2 * channels));
});

test('sample takes them, and draws what it draws with the folder', async () => {
  const model = await makeModel(at('sd'), 'StableDiffusionPipeline');
  const grey = { width: 16, height: 16, channels: 3 as const, background: '#406080' };
  await sharp({ create: grey }).png().toFile(at('seen.png'));
  const pixels: number[][] = [];
  for (const name of ['edges', 'control_v11p_sd15_canny.pth']) {
    const { log, error } = console;
    console.log = console.error = () => undefined;
    try {
      const how = ['--steps', '1', '--guidance_scale', '1', '--height', '16', '--width', '16', '--out', at('out')];
      const control = ['--controlnet', at(name), '--control_image', at('seen.png')];
      await runCommand(sampleCommand, ['a cat', '--model', model, ...how, ...control]);
    } finally {
      Object.assign(console, { log, error });
      useGpu(gpu);
    }
    pixels.push([...(await readPng(at('out', 'a-cat-0.png'))).image.data]);
  }
  assert.equal(pixels[1], pixels[0]);
});

test('what is no ControlNet is refused with its keys; one with parts missing names them', async () => {
  await writeTensors(at('lora.safetensors'), { 'lora_unet_x.alpha': { shape: [1], data: new Float32Array(1) } });
  await refuses(
    openControlNet(at('lora.safetensors')),
    /lora\.safetensors: not a ControlNet\n {2}its keys: lora_unet_x\.alpha, …\n {2}wanted: control_model\.input_hint_block/,
  );
  const { 'zero_convs.1.0.weight': _, ...lame } = renamed;
  await writeTensors(at('lame.safetensors'), lame);
  await refuses(
    openControlNet(at('lame.safetensors')),
    /ControlNetModel[\s\S]*missing: controlnet_down_blocks\.1\.weight/,
  );
  await refuses(openControlNet(at('none.pth')), /none\.pth: no such file or folder/);
  await mkdir(at('empty'));
  await refuses(openControlNet(at('empty')), /empty/);
});

test.run();
