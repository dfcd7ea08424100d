import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import estimate from '../src/cli/commands/estimate.ts';
import sample from '../src/cli/commands/sample.ts';
import * as show from '../src/cli/units.ts';
import { checkFit } from '../src/flow/estimate/fit.ts';
import { builtIn } from '../src/flow/estimate/outline.ts';
import { measureRates } from '../src/flow/estimate/rates.ts';
import { DoesNotFitError, rehearse } from '../src/flow/estimate/rehearse.ts';
import { flopsOf } from '../src/flow/estimate/work.ts';
import { openModelFolder } from '../src/flow/recipe/model-folder.ts';
import { readOutline } from '../src/flow/recipe/model-outline.ts';
import { attention } from '../src/kernels/attention.ts';
import { conv2d } from '../src/kernels/conv2d.ts';
import { geglu } from '../src/kernels/geglu.ts';
import { Gpu } from '../src/kernels/index.ts';
import { linear } from '../src/kernels/linear.ts';
import { currentGpu, init, useGpu } from '../src/tensor/index.ts';
import { assertClose } from './check-op.ts';
import { filesIn } from './hub-fixture.ts';
import { HubServer } from './hub-server.ts';
import { printed } from './run-command.ts';

const test = suite('estimate');
const gpu = await init();
const folder = mkdtempSync(join(tmpdir(), 'rectiflow-estimate-'));
test.after(() => {
  gpu.destroy();
  rmSync(folder, { recursive: true, force: true });
});

const shipped = 'models/emoji';
const processorTime = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};
const near = (got: number, want: number, tolerance: number, what: string) =>
  assert.ok(Math.abs(got / want - 1) <= tolerance, `${what}: ${got}, not ${want} within ${100 * tolerance} %`);

const run = (command: typeof estimate, ...words: string[]): Promise<string> => printed(command, words, gpu);

test('FLOPs of ops are two for each product in their formulas', () => {
  const f32 = (...shape: number[]) => ({ shape, dtype: 'f32' as const });
  const count = (op: any, inputs: any[], attrs: object, output: any) =>
    flopsOf({ op, inputs, attrs, output, count: 1 });
  assert.is(count(linear, [f32(2, 7, 5), f32(3, 5)], {}, f32(2, 7, 3)), 2 * 2 * 7 * 5 * 3);
  assert.is(count(geglu, [f32(7, 5), f32(6, 5)], {}, f32(7, 3)), 2 * 7 * 5 * 6);
  assert.is(count(conv2d, [f32(1, 8, 8, 4), f32(6, 3, 3, 4)], { stride: 2 }, f32(1, 4, 4, 6)), 2 * 16 * 6 * 9 * 4);
  const [q, k, v] = [f32(2, 10, 12), f32(2, 20, 12), f32(2, 20, 24)];
  assert.is(count(attention, [q, k, v], { heads: 3 }, f32(2, 10, 24)), 2 * 2 * 10 * 20 * (12 + 24));
});

test('full-size networks are counted as the tables have them, and take no memory', async () => {
  const before = gpu.memory().live;
  const { parts, flops, evaluations, peak } = await rehearse(builtIn['instaflow-0.9b']);
  assert.equal(
    [parts.textEncoder, parts.network, parts.vae].map((part) => part.parameters),
    [123_060_480, 859_520_964, 83_653_863],
  );
  // Multiply-adds of convolutions, linear layers and attention: 401.64, 1257.26 and 6.65 thousand millions.
  assertClose([flops.network / 2e9, flops.decoder / 2e9, flops.text / 2e9], [401.64, 1257.26, 6.65], 1e-4, 'FLOPs');
  const guided = await rehearse(builtIn.sd15, { steps: 3, dtype: 'f16' });
  near(guided.flops.network, 3 * 2 * flops.network, 1e-6, 'three steps with guidance');
  near(guided.flops.text, 2 * flops.text, 1e-9, 'two texts');
  near(guided.parts.network.bytes, parts.network.bytes / 2, 0.01, 'weights in halves');
  assert.ok(guided.peak < 0.6 * peak, `${guided.peak} bytes in halves, ${peak} in f32`);
  const large = await rehearse(builtIn['instaflow-1.7b']);
  assert.is(large.parts.network.parameters, 1_719_017_924);
  near(large.flops.network, 2 * flops.network, 1e-3, 'two U-Nets');
  const controlled = await rehearse(builtIn['instaflow-0.9b'], { controls: [{}], dtype: 'f16' });
  assert.is(controlled.parts.controls.parameters, 361_279_120);
  near(controlled.flops.network, 1.4 * flops.network, 0.1, 'a ControlNet is the first half of a U-Net');
  const refiner = await rehearse(builtIn['sdxl-refiner'], { steps: 4, strength: 0.5, height: 256, width: 256 });
  assert.equal([refiner.parts.network.parameters, refiner.evaluations], [2_259_526_660, 2]);
  assert.ok(refiner.flops.encoder > 0);
  assert.is(evaluations, 1);
  assert.is(gpu.memory().live, before);
  assert.is(currentGpu(), gpu);
});

const runs = [
  { which: 'unet', plan: {} },
  { which: 'unet_teacher', plan: { count: 3, batchSize: 2, guidanceScale: 1.5, steps: 4, scheduler: 'heun' } },
  { which: 'unet', plan: { dtype: 'f16', height: 64, width: 48, strength: 0.5, steps: 2 } },
] as const;

for (const { which, plan } of runs) {
  test(`what a run takes and does is known before it: ${which} ${JSON.stringify(plan)}`, async () => {
    const options: { dtype?: 'f16'; count?: number; height?: number; width?: number; strength?: number } = plan;
    const { count = 1, dtype, height = 32, width = 32 } = options;
    const expected = await rehearse(await readOutline(shipped, which), plan);
    await gpu.trim();
    const start = gpu.memory().live;
    const pipeline = await openModelFolder(shipped, { networks: [which], dtype });
    const asked = {
      ...{ prompts: Array<string>(count).fill('red apple'), seeds: 0, which, ...plan },
      image: options.strength === undefined ? undefined : new Float32Array(height * width * 3),
    };
    gpu.resetPeak();
    const dispatches = gpu.dispatches;
    const result = await pipeline.sample(asked);
    near(gpu.memory().peak - start, expected.peak, 0.02, 'bytes at the peak');
    assert.is(gpu.dispatches - dispatches, expected.dispatches);
    assert.equal(
      [result.steps, result.guidanceScale, result.evaluations, result.height, result.width],
      [expected.steps, expected.guidanceScale, expected.evaluations, expected.height, expected.width],
    );
    if (which === 'unet_teacher' && gpu.capabilities.family === 'cpu') {
      const { total, measured } = await measureRates(expected, { clock: processorTime, budget: 1 });
      const from = processorTime();
      await pipeline.sample(asked);
      const took = processorTime() - from;
      assert.ok(total > took / 2 && total < took * 2, `${total} s of processor time expected, took ${took}`);
      assert.ok(measured > 0.5, `${measured} of it was measured`);
      const hasty = await measureRates(expected, { budget: 0 });
      assert.ok(hasty.total > 0 && hasty.measured > 0, `${hasty.total} s expected by one op alone`);
    }
    pipeline.dispose();
  });
}

test('half precision draws the same picture', async () => {
  const draw = async (dtype: 'f32' | 'f16') => {
    const pipeline = await openModelFolder(shipped, { dtype });
    const { images } = await pipeline.sample({ prompts: ['red apple'], seeds: 7 });
    pipeline.dispose();
    return images;
  };
  const [whole, half] = [await draw('f32'), await draw('f16')];
  const difference = Math.sqrt(whole.reduce((sum, v, i) => sum + (v - half[i]) ** 2, 0) / whole.length);
  assert.ok(difference > 0 && difference < 0.02, `${difference} between them, of −1 … 1`);
});

test('what does not fit is refused with the figures, and with what would fit', async () => {
  const outline = await readOutline(shipped);
  const failure = async (plan: object, available?: number) => {
    const error = await checkFit(outline, plan, available).catch((e: Error) => e);
    assert.instance(error, DoesNotFitError);
    return (error as Error).message;
  };
  await checkFit(outline, { count: 4, batchSize: 1 }, 22 * 2 ** 20);
  const message = await failure({ count: 4 }, 22 * 2 ** 20);
  assert.match(
    message,
    /^does not fit: [\d.]+ MiB of GPU memory needed, 22\.0 MiB available\n {2}emoji\/unet, 4 images/,
  );
  assert.match(message, /weights 15\.\d MiB, the rest up to [\d.]+ MiB in the decoder/);
  assert.match(message, /try --batch_size 1: [\d.]+ MiB/);
  assert.match(await failure({ height: 256, width: 256 }, 100 * 2 ** 20), /try --height 128 --width 128: [\d.]+ MiB/);
  assert.match(await failure({}, 2 ** 20), /neither smaller sizes nor --dtype f16 make it fit/);
  const small = await Gpu.create({ limits: { maxStorageBufferBindingSize: 2 ** 12 } });
  useGpu(small);
  try {
    const refused = await failure({});
    assert.match(refused, /^does not fit: an array is larger than this adapter can have\n/);
    assert.match(refused, /adapter binds at once/);
  } finally {
    useGpu(gpu);
    small.destroy();
  }
});

test('sample says so before it loads', async () => {
  const without = join(folder, 'without-weights');
  cpSync(shipped, without, { recursive: true, filter: (file) => !file.endsWith('.safetensors') });
  const how = ['x', '--model', without, '--out', join(folder, 'out')];
  assert.match(await run(sample, ...how), /without-weights is incomplete or damaged/);
  assert.match(
    await run(sample, ...how, '--height', '131072', '--width', '256'),
    /^does not fit: an image of 256 × 131072/,
  );
  const file = join(without, 'unet', 'config.json');
  const config = { ...JSON.parse(readFileSync(file, 'utf8')), block_out_channels: [2 ** 15, 2 ** 15] };
  writeFileSync(file, JSON.stringify(config));
  const [first] = (await run(sample, ...how)).split('\n');
  if (gpu.capabilities.family === 'cpu') assert.match(first, /^does not fit: [\d.]+ GiB of GPU memory needed/);
});

test('the command, with files and without', async () => {
  const text = await run(estimate, '--budget', '0.5');
  assert.match(text, /^emoji\/unet: 1 image of 32 × 32, 1 step, guidance 1, 1 evaluation of the U-Net, f32$/m);
  assert.match(text, /^ {2}U-Net +2\.50 M +9\.52 MiB +113 M +[\d.]+ m?s$/m);
  assert.match(text, /^fits$/m);
  const json = JSON.parse(
    await run(estimate, '--model', 'sd15', '--no-time', '--json', '--memory', '2', '--guidance_scale', '7.5'),
  );
  assert.equal([json.fits, json.guidanceScale, json.parts.network.parameters], [false, 7.5, 859_520_964]);
  assert.is(json.expected, undefined);
  const other = await run(estimate, '--model', 'sd16', '--no-time');
  assert.match(other, /sd16: no such folder or file\n {2}known without files: sd15, /);
  writeFileSync(join(folder, 'model_index.json'), '{}');
  assert.match(await run(estimate, '--model', folder, '--no-time'), /text_encoder/);
  assert.match(await run(estimate, '--height', '33', '--no-time'), /height is 33, must be a multiple of 4/);
});

test('of a model on the hub only the configurations are fetched', async () => {
  const weights = readFileSync(join(shipped, 'unet_teacher/diffusion_pytorch_model.safetensors'));
  const halves = (weights.length - 8 - Number(weights.readBigUInt64LE(0))) / 2;
  const server = await HubServer.start();
  process.env.HF_ENDPOINT = server.endpoint;
  try {
    for (const file of filesIn(shipped)) server.put(file, readFileSync(join(shipped, file)));
    const json = JSON.parse(
      await run(estimate, '--model', 'owner/name', '--which', 'unet_teacher', '--no-time', '--json'),
    );
    assert.equal([json.parts.network.parameters, json.steps, json.guidanceScale], [halves, 25, 1.5]);
    const fetched = server.seen.flatMap(({ url }) => /\/(?:resolve|bytes)\/(.*)/.exec(url)?.[1] ?? []);
    assert.ok(fetched.length >= 5 && fetched.every((name) => name.endsWith('.json')), fetched.join('\n'));
    server.stop();
    process.env.HF_HUB_OFFLINE = '1';
    assert.match(await run(estimate, '--model', 'owner/name', '--no-time'), /^fits$/m);
    assert.match(await run(sample, 'x', '--model', 'owner/name'), /not in the cache whole/);
    assert.match(
      await run(estimate, '--model', 'no/name/x', '--no-time'),
      /no such folder or file, nor a model of the hub/,
    );
  } finally {
    server.stop();
    delete process.env.HF_ENDPOINT;
    delete process.env.HF_HUB_OFFLINE;
  }
});

test('figures are written as people read them', () => {
  assert.equal([0, 999, 1234, 401.6e12, 2e18].map(show.flop), ['0 ', '999 ', '1.23 k', '402 T', '2000 P']);
  assert.equal([512, 3.5 * 2 ** 30].map(show.bytes), ['512 B', '3.50 GiB']);
  assert.equal([0.0123, 1.5, 119, 760, 7320].map(show.seconds), [
    '12.3 ms',
    '1.50 s',
    '119 s',
    '12 min 40 s',
    '2 h 2 min',
  ]);
});

test.run();
