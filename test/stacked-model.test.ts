import { cp, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { runCommand } from '../src/cli/command.ts';
import sampleCommand from '../src/cli/commands/sample.ts';
import { rehearse } from '../src/flow/estimate/rehearse.ts';
import { convertModel } from '../src/flow/recipe/convert-model.ts';
import { readJson, saveModelIndex, saveModule } from '../src/flow/recipe/model-folder.ts';
import { readOutline } from '../src/flow/recipe/model-outline.ts';
import { openModel } from '../src/flow/recipe/open-model.ts';
import { StackedUNet } from '../src/nn/models/stacked-unet.ts';
import type { StackedUNetPart } from '../src/nn/models/stacked-unet.ts';
import { init, useGpu } from '../src/tensor/index.ts';
import { openWeights } from '../src/tensor/io/weights-node.ts';
import { assertClose } from './check-op.ts';
import { randoms } from './randoms.ts';
import { refuses } from './refuses.ts';
import { makeModel, unet } from './tiny-model.ts';

const test = suite('InstaFlow-1.7B as a folder');
const folder = await mkdtemp(join(tmpdir(), 'rectiflow-stacked-'));
const at = (...names: string[]) => join(folder, ...names);
const gpu = await init();
test.after(async () => {
  gpu.destroy();
  await rm(folder, { recursive: true });
});

const asked = { prompts: ['a cat on a boat'], seeds: 5 };
const weights = ['unet', 'diffusion_pytorch_model.safetensors'];

/** A folder with two U-Nets in a row, and the picture that its own network draws. */
async function make(name: string, drop?: StackedUNetPart[]): Promise<{ model: string; images: Float32Array }> {
  const model = await makeModel(at(name), 'StableDiffusionPipeline');
  const stacked = new StackedUNet({ ...unet, drop }).initialize(6);
  for (const [key, p] of stacked.namedParameters())
    if (/conv_out/.test(key)) p.array.write(randoms(p.size, 4, [-0.1, 0.1]));
  await saveModule(model, 'unet', stacked, 'StackedUNet', { dtype: 'F32' });
  await saveModelIndex(model, { unet: { steps: 1, guidanceScale: 1 } });
  const pipeline = await openModel(model, { rectifiedFlow: true });
  const { parts } = pipeline;
  parts.networks.unet!.dispose();
  parts.networks.unet = stacked;
  const { images } = await pipeline.sample(asked);
  pipeline.dispose();
  return { model, images };
}

async function draw(model: string, options: object = {}) {
  const pipeline = await openModel(model, options);
  const { network, result } = { network: pipeline.network('unet'), result: await pipeline.sample(asked) };
  pipeline.dispose();
  return { network, result };
}

/** Every tensor of a file or an index, bit for bit. */
async function tensorsOf(file: string): Promise<Map<string, unknown>> {
  const source = await openWeights(file);
  const tensors = new Map<string, unknown>();
  for (const [key, { dtype, shape }] of source.entries) tensors.set(key, [dtype, shape, await source.read(key)]);
  await source.close();
  return new Map([...tensors].sort());
}

const { model, images } = await make('large');

test('what saveModule wrote, openModel draws with, in one step of a flow', async () => {
  const { network, result } = await draw(model);
  assert.instance(network, StackedUNet);
  assert.equal([result.sampler, result.steps, result.guidanceScale], ['RectifiedFlow euler', 1, 1]);
  assert.equal(result.images, images);
  const { _class_name: kind, drop, block_out_channels } = await readJson(join(model, 'unet', 'config.json'));
  assert.equal([kind, drop, block_out_channels], ['StackedUNet', ['between'], [32, 64]]);
  assert.equal((await readJson(join(model, 'model_index.json'))).unet, ['rectiflow', 'StackedUNet']);
});

test('what was left out of it is left out again', async () => {
  const drop: StackedUNetPart[] = ['firstUp', 'between', 'secondDown'];
  const ablated = await make('ablated', drop);
  const { network, result } = await draw(ablated.model);
  assert.equal((network as StackedUNet).config.drop, drop);
  assert.equal(result.images, ablated.images);
  assert.not.equal(result.images, images);
});

test('convert copies it bit for bit, shards it, and halves it; a single file has no place for it', async () => {
  await convertModel(model, at('copy'));
  const want = await tensorsOf(join(model, ...weights));
  assert.equal(await tensorsOf(at('copy', ...weights)), want);
  assert.equal((await draw(at('copy'))).result.images, images);
  await convertModel(model, at('shards'), { maxShardSize: 200_000 });
  assert.equal(await tensorsOf(at('shards', 'unet', 'diffusion_pytorch_model.safetensors.index.json')), want);
  assert.equal((await draw(at('shards'))).result.images, images);
  await convertModel(model, at('half'), { dtype: 'F16' });
  const half = await draw(at('half'), { dtype: 'f16' });
  assertClose(half.result.images, images, 2e-2, 'images in halves');
  const file = await readFile(at('half', ...weights));
  assert.ok(file.length < 0.6 * (await readFile(join(model, ...weights))).length);
  await refuses(
    convertModel(model, at('never.safetensors')),
    /no key of its unet has a place in a single file\n {2}its keys: unets\.0\.[\s\S]*write a folder/,
  );
});

test('an estimate counts both networks, and sample draws', async () => {
  const outline = await readOutline(model);
  const { parts, dispatches } = await rehearse(outline);
  const pipeline = await openModel(model);
  assert.is(parts.network.parameters, pipeline.network('unet').parameterCount);
  const before = gpu.dispatches;
  await pipeline.sample(asked);
  assert.is(gpu.dispatches - before, dispatches);
  pipeline.dispose();
  const { log } = console;
  const lines: string[] = [];
  console.log = (line: string) => void lines.push(line);
  try {
    await runCommand(sampleCommand, ['a cat on a boat', '--model', model, '--out', at('out')]);
  } finally {
    console.log = log;
    useGpu(gpu);
  }
  assert.match(lines.join('\n'), /a-cat-on-a-boat-0\.png\n1 image, 1 step, guidance 1, 1 network evaluation:/);
});

test('weights of one U-Net under its name are refused with the keys that are missing', async () => {
  const mixed = at('mixed');
  await cp(model, mixed, { recursive: true });
  const single = await makeModel(at('single'), 'StableDiffusionPipeline');
  await cp(join(single, ...weights), join(mixed, ...weights));
  await refuses(
    openModel(mixed),
    /StackedUNet: these weights belong to another configuration\n {2}missing: unets\.0\./,
  );
});

test.run();
