import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Tensor } from '../src/tensor/index.ts';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CheckpointFolder } from '../src/flow/recipe/checkpoints.ts';
import { train } from '../src/flow/trainer.ts';
import type { TrainOptions, TrainTask } from '../src/flow/trainer.ts';
import { DeviceLostError, GpuError } from '../src/kernels/index.ts';
import { FeedForward } from '../src/nn/index.ts';
import { init, mse, mul, scope, square, tensor } from '../src/tensor/index.ts';

const test = suite('device-loss');

/** What a promise came to, or 'nothing' when it hangs. */
const outcome = (promise: Promise<unknown>): Promise<unknown> =>
  Promise.race([
    promise.then(
      () => 'done',
      (error: unknown) => error,
    ),
    new Promise((resolve) => setTimeout(resolve, 20_000, 'nothing')),
  ]);

const assertLost = (error: unknown, reason = 'destroyed') => {
  assert.instance(error, DeviceLostError);
  assert.instance(error, GpuError);
  assert.is((error as DeviceLostError).reason, reason);
  assert.match((error as Error).message, /the GPU device was lost \(destroyed\)[\s\S]*init\(\) opens another/);
};

test('what waits when the device is lost is told so, at once', async () => {
  const gpu = await init();
  const x = tensor(new Float32Array(1e6), [1000, 1000]);
  await gpu.idle();
  const pending = [x.read(), mul(x, x).read(), gpu.idle(), gpu.trim(), square(x).read()].map(outcome);
  gpu.device.destroy();
  for (const error of await Promise.all(pending)) assertLost(error);
});

test('a loss while kernels compile is told too', async () => {
  const gpu = await init();
  const x = tensor([1, 2, 3]);
  const pending = outcome(square(x).read());
  gpu.device.destroy();
  assertLost(await pending);
  assertLost(await outcome(gpu.idle()));
});

test('arrays of a lost device say so when they are used, and can be freed', async () => {
  const gpu = await init();
  const { live } = (void gpu.none, gpu.memory());
  const x = tensor([1, 2, 3]);
  const y = square(x);
  await gpu.idle();
  gpu.device.destroy();
  await gpu.device.lost;
  assert.instance(gpu.lost, DeviceLostError);
  assert.throws(() => square(x), /square: the GPU device was lost/);
  assert.throws(() => x.array.view(), /view: the GPU device was lost/);
  assert.throws(() => gpu.write(x.array, [4, 5, 6]), /write: the GPU device was lost/);
  assert.throws(() => gpu.zeros([3]), /the GPU device was lost/);
  assertLost(await outcome(x.read()));
  for (const t of [x, y]) t.dispose();
  assert.is(gpu.memory().live, live);
  scope(() => assert.throws(() => tensor([1]), /the GPU device was lost/));
});

test('after init() tensors are made on the new device', async () => {
  const lost = await init();
  using old = tensor([1, 2]);
  lost.device.destroy();
  await lost.device.lost;
  const gpu = await init();
  using x = tensor([3, 4]);
  assert.equal([...(await square(x).read())], [9, 16]);
  assert.throws(() => mul(x, old), /mul: the GPU device was lost/);
  gpu.destroy();
  assert.throws(() => square(x), /destroy\(\) was called/);
});

const options: TrainOptions = {
  steps: 12,
  batchSize: 4,
  learningRate: 1e-2,
  scheduler: 'cosine',
  warmupSteps: 2,
  maxGradNorm: 1,
  weightDecay: 0.01,
  emaDecay: 0.9,
  checkpointingSteps: 3,
};

/** Learns y = 2x. `hook` sees each step. */
function task(hook: (step: number) => void = () => {}): TrainTask & { layer: FeedForward } {
  const layer = new FeedForward(8).initialize(1);
  const batch = (step: number) => {
    hook(step);
    const x = Array.from({ length: 32 }, (_, i) => Math.sin(1 + i + 12 * step));
    return [
      tensor(x, [1, 4, 8]),
      tensor(
        x.map((v) => 2 * v),
        [1, 4, 8],
      ),
    ];
  };
  const loss = (x: Tensor, target: Tensor) => mse(layer.forward(x), target);
  return { name: 'line', modules: { layer }, batch, loss, layer };
}

test('training goes on from its last checkpoint on a new device, to the same bits', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'rectiflow-'));
  try {
    const first = await init();
    const whole = task();
    await train(whole, options);
    const want = await whole.layer.stateDict();
    first.destroy();

    const store = new CheckpointFolder(join(folder, 'run'));
    const opened: number[] = [];
    const steps: number[] = [];
    let finished: ReturnType<typeof task> | undefined;
    while (!finished) {
      const gpu = await init();
      opened.push(steps.length);
      const current = task((step) => {
        steps.push(step);
        if (step === 7 && opened.length === 1) gpu.device.destroy();
      });
      try {
        await train(current, options, { store });
        finished = current;
      } catch (error) {
        if (!(error instanceof DeviceLostError)) throw error;
      }
    }
    assert.equal(steps, [0, 1, 2, 3, 4, 5, 6, 7, 6, 7, 8, 9, 10, 11]);
    assert.equal(opened, [0, 8]);
    const got = await finished.layer.stateDict();
    assert.equal(Object.keys(got), Object.keys(want));
    for (const key of Object.keys(want)) assert.equal([...got[key].data], [...want[key].data], key);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test.run();
