import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { train } from '../src/flow/trainer.ts';
import type { Checkpoint, LogLine, TrainHooks, TrainOptions, TrainTask } from '../src/flow/trainer.ts';
import { autocast } from '../src/nn/autocast.ts';
import { Attention, Linear, Module } from '../src/nn/index.ts';
import { observe } from '../src/nn/observe.ts';
import { LossScale } from '../src/nn/optim/loss-scale.ts';
import { init, mse, mul, noGrad, scope, tensor } from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { normal } from '../src/tensor/random.ts';
import { collectGarbage } from './garbage.ts';
import { tinyUNet } from './tiny-unet.ts';

const test = suite('flow: precision, accumulation, LoRA');
const gpu = await init();
test.after(() => gpu.destroy());

const options: TrainOptions = {
  steps: 12,
  batchSize: 4,
  learningRate: 1e-2,
  scheduler: 'constant',
  warmupSteps: 0,
  maxGradNorm: 1,
  weightDecay: 0.01,
  emaDecay: 0,
  checkpointingSteps: 100,
};

/** Two layers of attention to a text and back to where x was: quick to compile, and a LoRA can go on it. */
class Net extends Module {
  proj_in = new Linear(8, 16);
  attn1 = new Attention(16, { heads: 2 });
  attn2 = new Attention(16, { heads: 2, context: 12 });
  proj_out = new Linear(16, 8);

  forward(x: Tensor, text: Tensor): Tensor {
    return scope(() => {
      const hidden = this.attn1.forward(this.proj_in.forward(x));
      return this.proj_out.forward(this.attn2.forward(hidden, { context: text, residual: hidden }));
    });
  }
}

const draw = (name: string, n: number, shape: number[]) => {
  const size = shape.reduce((a, b) => a * b);
  return tensor(normal(1, name, size, n * size), shape);
};

/** It learns a fixed velocity. `factor` multiplies the loss. */
function flow(batchSize = 4, factor = 1): TrainTask & { unet: Net } {
  const unet = new Net().initialize(3);
  const batch = (n: number) => [draw('x', n, [batchSize, 16, 8]), draw('text', n, [batchSize, 3, 12])];
  const loss = (x: Tensor, text: Tensor) => mul(mse(unet.forward(x, text), mul(x, 0.5)), factor);
  return { name: 'flow', modules: { unet }, batch, loss, unet, samples: 64 };
}

/** Keeps checkpoints in memory. */
function memoryStore(): NonNullable<TrainHooks['store']> & { saved: Checkpoint[] } {
  const saved: Checkpoint[] = [];
  return {
    saved,
    latest: async () => saved.at(-1),
    save: async (checkpoint) => `${saved.push(structuredClone(checkpoint))}`,
  };
}

async function trained(task: TrainTask, given: TrainOptions, hooks: TrainHooks = {}): Promise<LogLine[]> {
  const log: LogLine[] = [];
  await train(task, given, { ...hooks, log: (line) => log.push(line) });
  return log;
}

const distance = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let apart = 0,
    size = 0;
  for (let i = 0; i < a.length; i++) {
    apart += (a[i] - b[i]) ** 2;
    size += b[i] ** 2;
  }
  return Math.sqrt(apart / (size || 1));
};

const gradients = async (module: Module): Promise<Float32Array> => {
  const all: number[] = [];
  for (const p of module.namedParameters().values()) {
    assert.is(p.grad!.dtype, 'f32');
    all.push(...(await p.grad!.read()));
  }
  module.zeroGrad();
  return Float32Array.from(all);
};

test('autocast: activations in f16, gradients into f32 weights, near those of f32, also with checkpointing', async () => {
  const unet = tinyUNet().initialize(3).requiresGrad(true);
  const [x, text] = [draw('x', 0, [2, 8, 8, 4]), draw('text', 0, [2, 3, 12])];
  const loss = () => mse(unet.forward(x, 400, text), mul(x, 0.5));
  scope(() => loss().backward());
  const want = await gradients(unet);
  const wide = new Set<string>();
  const pass = () =>
    scope(() =>
      autocast([unet], () =>
        observe(
          unet,
          (key, y) => y.dtype === 'f32' && wide.add(key),
          () => mul(loss(), 1024).backward(),
        ),
      ),
    );
  pass();
  for (const key of wide) assert.match(key, /time_emb/, 'only the waves of a time given as a number are f32');
  const half = (await gradients(unet)).map((g) => g / 1024);
  assert.ok(distance(half, want) < 1e-2, `gradients differ by ${distance(half, want)}`);
  assert.ok(distance(half, want) > 1e-6, 'rounding is seen');
  unet.gradientCheckpointing = true;
  pass();
  assert.equal(
    (await gradients(unet)).map((g) => g / 1024),
    half,
  );
  for (const p of unet.namedParameters().values()) assert.is(p.dtype, 'f32');
  for (const t of [x, text, unet]) t.dispose();
});

test('the loss scale halves on overflow and doubles after enough good steps', () => {
  const scale = new LossScale({ initScale: 8, growthInterval: 3 });
  const seen = [false, true, true, true, true, true, false].map((good) => (scale.update(good), scale.scale));
  assert.equal(seen, [4, 4, 4, 8, 8, 8, 4]);
  assert.is(scale.goodSteps, 0);
  for (let i = 0; i < 100; i++) scale.update(false);
  assert.ok(scale.isLow && scale.scale > 0);
  assert.throws(() => new LossScale({ initScale: 1000 }), /initScale is 1000, must be a power of two/);
  assert.throws(() => new LossScale({ growthInterval: 0 }), /growthInterval is 0/);
});

test('training in fp16 learns as training in f32 does, its weights stay f32, and memory stays flat', async () => {
  const [full, half] = [flow(), flow()];
  const want = await trained(full, options);
  await collectGarbage();
  const used: number[] = [];
  const log = await trained(
    half,
    { ...options, mixedPrecision: 'fp16' },
    { progress: () => used.push(gpu.memory().live) },
  );
  assert.is(used[4], used[11]);
  assert.ok(want.at(-1)!.loss < 0.8 * want[0].loss);
  log.forEach(({ loss, gradNorm }, i) => {
    assert.ok(Math.abs(loss / want[i].loss - 1) < 0.01, `step ${i}: ${loss}, in f32 ${want[i].loss}`);
    assert.ok(
      Math.abs(gradNorm / want[i].gradNorm - 1) < 0.05,
      `step ${i}: |g| ${gradNorm}, in f32 ${want[i].gradNorm}`,
    );
  });
  assert.is(half.unet.proj_in.weight.dtype, 'f32');
  for (const { unet } of [full, half]) unet.dispose();
});

test('a loss scale that is too large comes down by skipped steps, and then training goes on', async () => {
  const task = flow(4, 4096);
  const log = await trained(task, { ...options, steps: 24, mixedPrecision: 'fp16' });
  const skipped = log.filter((line) => line.skipped);
  assert.ok(skipped.length > 0 && skipped.length < 16, `${skipped.length} skipped`);
  assert.equal(
    skipped.map(({ lossScale }) => lossScale),
    skipped.map((_, i) => 65536 / 2 ** (i + 1)),
  );
  assert.ok(log.at(-1)!.loss < log[0].loss);
  task.unet.dispose();
});

test('the gradients of two batches of two are those of one batch of four', async () => {
  const one = flow(4),
    two = flow(2);
  await trained(one, { ...options, steps: 4 });
  await trained(two, { ...options, steps: 4, batchSize: 2, accumulationSteps: 2 });
  const theirs = two.unet.namedParameters();
  for (const [key, p] of one.unet.namedParameters()) {
    const apart = distance(await theirs.get(key)!.read(), await p.read());
    assert.ok(apart < 1e-3, `${key} differs by ${apart}`);
  }
  for (const { unet } of [one, two]) unet.dispose();
});

test('fp16, accumulation, averages: 12 steps are 5 steps, stopped, and 7 more, to the bit', async () => {
  const all = {
    ...options,
    batchSize: 2,
    accumulationSteps: 3,
    mixedPrecision: 'fp16' as const,
    emaDecay: 0.9,
    emaWarmup: { invGamma: 1, power: 0.75 },
    scheduler: 'cosine_with_restarts' as const,
    cycles: 2,
  };
  const whole = flow(2, 64),
    parts = flow(2, 64);
  const wholeStore = memoryStore(),
    store = memoryStore();
  await trained(whole, all, { store: wholeStore });
  const stop = new AbortController();
  await trained(parts, all, { store, signal: stop.signal, progress: ({ step }) => step === 5 && stop.abort() });
  assert.is(store.saved.at(-1)!.step, 5);
  parts.unet.initialize(99); // as if the process had ended
  await trained(parts, all, { store });
  const [{ seconds: _, ...got }, { seconds: __, ...want }] = [store.saved.at(-1)!, wholeStore.saved.at(-1)!];
  assert.equal(got, want);
  assert.ok(got.lossScale!.goodSteps > 0 && Object.keys(got.tensors).some((key) => key.startsWith('ema.')));
  for (const { unet } of [whole, parts]) unet.dispose();
});

for (const mixedPrecision of ['no', 'fp16'] as const) {
  test(`a LoRA learns, alone is kept, and is merged at the end (mixed precision: ${mixedPrecision})`, async () => {
    const task = flow();
    task.unet.to('f16').to('f32'); // as weights are that came from a file in halves
    const before = new Map<string, Float32Array>();
    for (const [key, p] of task.unet.namedParameters()) before.set(key, (await p.read()) as Float32Array);
    const store = memoryStore();
    const steps = { ...options, rank: 2, learningRate: 2e-2, weightDecay: 0, emaDecay: 0.5, mixedPrecision };
    const log: number[] = [];
    const result = await train(task, steps, { store, log: ({ loss }) => log.push(loss) });
    assert.ok(Math.min(...log.slice(-3)) < log[0]);
    const { tensors, metadata } = result.lora!;
    assert.match(metadata.lora_adapter_metadata, /"unet\.r":2/);
    const kept = Object.keys(store.saved.at(-1)!.tensors).filter((key) => key.startsWith('model.'));
    assert.equal(kept.map((key) => key.slice('model.'.length)).sort(), Object.keys(tensors).sort());
    let changed = 0;
    for (const [key, p] of task.unet.namedParameters()) {
      assert.is(p.dtype, 'f32');
      const layer = `unet.${key.replace(/\.weight$/, '')}`;
      const [A, B] = [tensors[`${layer}.lora_A.weight`], tensors[`${layer}.lora_B.weight`]];
      const want = before.get(key)!.slice();
      if (A && B) {
        const inputs = A.shape[1];
        for (let i = 0; i < want.length; i++)
          for (let r = 0; r < 2; r++)
            want[i] += B.data[Math.floor(i / inputs) * 2 + r] * A.data[r * inputs + (i % inputs)];
        changed++;
      }
      assert.ok(distance(await p.read(), want) < 1e-6, key);
    }
    assert.is(changed, Object.keys(tensors).length / 2);
    assert.is(changed, 8);
    task.unet.dispose();
  });
}

class Chain extends Module {
  first = new Linear(4, 4, { bias: false });
  second = new Linear(4, 4, { bias: false });
  last = new Linear(4, 4, { bias: false });
  unused = new Linear(4, 4, { bias: false });

  forward(x: Tensor): Tensor {
    return scope(() => this.last.forward(this.second.forward(this.first.forward(x))));
  }
}

function chain(gain: number, x: number, factor = 1): TrainTask & { net: Chain } {
  const net = new Chain().initialize(5);
  net.second.weight.array.write(new Float32Array(16).fill(gain));
  const batch = () => [tensor(new Float32Array(8).fill(x), [2, 4]), tensor(new Float32Array(8).fill(1), [2, 4])];
  const loss = (x: Tensor, y: Tensor) => mul(mse(net.forward(x), y), factor);
  return { name: 'chain', modules: { net }, batch, loss, net };
}

const failure = async (task: TrainTask, given: TrainOptions): Promise<string> => {
  try {
    await train(task, { ...given, steps: 100 });
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error('training went on');
};

test('training that stays not finite names the first layer: in f32, and in fp16 where only halves overflow', async () => {
  const forward = chain(3e38, 1e3);
  assert.match(
    await failure(forward, options),
    /after 8 skipped steps, at step 7\n {2}not finite: the output of net\.second\n/,
  );
  const half = chain(1e5, 1);
  const message = await failure(half, { ...options, mixedPrecision: 'fp16' });
  assert.match(message, /the loss scale is down to 1\n {2}not finite: the output of net\.second\n/);
  const backward = chain(0, 1e5, 1e36);
  assert.match(
    await failure(backward, { ...options, accumulationSteps: 2 }),
    /not finite: the gradient of net\.second\.weight\n {2}not finite|not finite: the gradient of net\.(first|second)\.weight\n/,
  );
  for (const { net } of [forward, half, backward]) net.dispose();
});

test('a parameter that the loss does not use is left alone, with one batch in a step or several', async () => {
  for (const accumulationSteps of [1, 2]) {
    const task = chain(0.1, 1);
    const before = await task.net.unused.weight.read();
    await train(task, { ...options, accumulationSteps, weightDecay: 0.5 });
    assert.equal(await task.net.unused.weight.read(), before);
    task.net.dispose();
  }
});

test('epochs become steps, and --scale_lr multiplies by the samples of a step', async () => {
  const task = flow(2);
  const log = await trained(task, {
    ...options,
    batchSize: 2,
    accumulationSteps: 4,
    epochs: 1,
    scaleLearningRate: true,
  });
  assert.is(log.length, 8);
  assert.is(log[0].lr, options.learningRate * 8);
  task.unet.dispose();
});

test('a LoRA of a task without a U-Net or text encoder is refused', async () => {
  const task = chain(1, 1);
  assert.match(await failure(task, { ...options, rank: 4 }), /no network here takes a LoRA\n {2}there is: net/);
  noGrad(() => task.net.dispose());
});

test.run();
