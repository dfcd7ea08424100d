import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { AdamW, EMA } from '../src/nn/index.ts';
import {
  add,
  compile,
  currentGpu,
  init,
  matmul,
  mean,
  mse,
  mul,
  noGrad,
  relu,
  scope,
  square,
  sum,
  tensor,
} from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { normal } from '../src/tensor/random.ts';
import { collectGarbage } from './garbage.ts';
import { tinyUNet } from './tiny-unet.ts';

const test = suite('compile');
const gpu = await init();
test.after(() => gpu.destroy());

const noise = (shape: number[], stream = 'x', counter = 0) => {
  const n = shape.reduce((a, b) => a * b, 1);
  return tensor(normal(7, stream, n, counter * n), shape);
};
const bits = (numbers: ArrayLike<number>) => [...new Uint32Array(Float32Array.from(numbers).buffer)];
const throws = (fn: () => unknown, pattern: RegExp) => {
  try {
    fn();
  } catch (error) {
    return assert.match((error as Error).message, pattern);
  }
  assert.unreachable(`expected ${pattern}`);
};

test('a replay gives the bits of the eager run, for each new input', async () => {
  const w = noise([24, 17], 'w');
  const fn = (x: Tensor) => ({ y: relu(matmul(x, w)), parts: [sum(square(matmul(x, w)))] });
  const compiled = compile(fn);
  for (let i = 0; i < 3; i++) {
    const x = noise([9, 24], 'x', i);
    const eager = scope(() => fn(x));
    const replayed = compiled(x);
    assert.equal(bits(await replayed.y.read()), bits(await eager.y.read()));
    assert.equal(bits(await replayed.parts[0].read()), bits(await eager.parts[0].read()));
    for (const t of [x, eager.y, eager.parts[0], replayed.y, replayed.parts[0]]) t.dispose();
  }
  compiled.dispose();
  w.dispose();
});

test('a result is the caller’s: the next call does not change it', async () => {
  const twice = compile((x: Tensor) => mul(x, 2));
  const first = twice(tensor([1, 2]));
  const second = twice(tensor([5, 6]));
  assert.equal([...(await first.read())], [2, 4]);
  assert.equal([...(await second.read())], [10, 12]);
  twice.dispose();
});

/** A U-Net in training; `compiled` decides how its steps run. */
function training(compiled: boolean) {
  const unet = tinyUNet().initialize(3).requiresGrad(true);
  const parameters = unet.namedParameters();
  const ema = new EMA(parameters, { decay: 0.9 });
  const optimizer = new AdamW(parameters, { lr: 1e-3, weightDecay: 0.01, maxGradNorm: 0.5, ema });
  const body = (x: Tensor, waves: Tensor, text: Tensor, target: Tensor) => {
    const loss = mse(unet.forward(x, waves, text), target);
    loss.backward();
    optimizer.step();
    return loss;
  };
  const step = compiled ? compile(body) : (...inputs: Parameters<typeof body>) => scope(() => body(...inputs).detach());
  const run = async (i: number) => {
    optimizer.lr = 1e-3 * (1 - i / 40);
    const inputs = scope(() => [
      noise([2, 8, 8, 4], 'sample', i),
      unet.timeWaves([900 - 7 * i, 31 * i]),
      noise([2, 5, 12], 'text', i),
      noise([2, 8, 8, 4], 'target', i),
    ]);
    const loss = step(...(inputs as [Tensor, Tensor, Tensor, Tensor]));
    const value = await loss.item();
    for (const t of [loss, ...inputs]) t.dispose();
    return value;
  };
  return { unet, ema, optimizer, run, step };
}

test('20 training steps of a U-Net, with clipping, EMA and a changing learning rate: equal bits', async () => {
  const eager = training(false),
    replayed = training(true);
  const losses: number[][] = [[], []];
  for (let i = 0; i < 20; i++) {
    losses[0].push(await eager.run(i));
    losses[1].push(await replayed.run(i));
  }
  assert.equal(bits(losses[1]), bits(losses[0]));
  assert.ok(losses[0][19] < losses[0][0]);
  for (const [key, p] of eager.unet.namedParameters()) {
    assert.equal(bits(await replayed.unet.namedParameters().get(key)!.read()), bits(await p.read()), key);
    assert.equal(
      bits(await replayed.ema.shadow.get(key)!.read()),
      bits(await eager.ema.shadow.get(key)!.read()),
      `EMA of ${key}`,
    );
  }
  assert.equal(await replayed.optimizer.report(), await eager.optimizer.report());
  const { memory, dispatches } = (replayed.step as ReturnType<typeof compile>).plan!;
  assert.ok(dispatches > 500, `${dispatches} dispatches`);
  assert.ok(memory.planned < memory.eager, `planned ${memory.planned}, eager ${memory.eager}`);
  assert.ok(memory.planned >= memory.least && memory.planned < 1.5 * memory.least, JSON.stringify(memory));
  assert.ok(memory.buffers < memory.arrays / 3, JSON.stringify(memory));
});

test('checkpointed blocks can be recorded: equal bits, and a plan with less memory', async () => {
  const gradients = [false, true].map((checkpointed) => {
    const unet = tinyUNet().initialize(3).requiresGrad(true);
    unet.gradientCheckpointing = checkpointed;
    const optimizer = new AdamW(unet.namedParameters());
    const step = compile((x: Tensor, waves: Tensor, text: Tensor) => {
      const loss = mean(square(unet.forward(x, waves, text)));
      loss.backward();
      optimizer.step();
      return loss;
    });
    const [x, text] = [noise([2, 8, 8, 4]), noise([2, 5, 12], 'text')];
    for (let i = 0; i < 2; i++) step(x, unet.timeWaves([500, 20]), text).dispose();
    return { unet, step };
  });
  const [plain, checkpointed] = gradients;
  for (const [key, p] of plain.unet.namedParameters())
    assert.equal(bits(await checkpointed.unet.namedParameters().get(key)!.read()), bits(await p.read()), key);
  const [full, less] = gradients.map(({ step }) => step.plan!.memory.planned);
  assert.ok(less < 0.8 * full, `${less} of ${full} bytes`);
});

test('memory is flat over replays, and freed with the plan', async () => {
  await collectGarbage();
  const before = gpu.memory();
  const w = noise([32, 32], 'w');
  const step = compile((x: Tensor) => mean(square(matmul(relu(matmul(x, w)), w))));
  const live: number[] = [];
  for (let i = 0; i < 5; i++) {
    using x = noise([64, 32], 'x', i);
    using y = step(x);
    await y.read();
    live.push(gpu.memory().live);
  }
  assert.is(new Set(live).size, 1, live.join());
  step.dispose();
  w.dispose();
  assert.is(gpu.memory().live, before.live);
  assert.is(gpu.memory().leaked, before.leaked);
});

test('JavaScript numbers and data are taken as they are at the first call', async () => {
  let factor = 2;
  const scaled = compile((x: Tensor) => add(mul(x, factor), tensor([1, 10])));
  assert.equal([...(await scaled(tensor([1, 2])).read())], [3, 14]);
  factor = 100;
  assert.equal([...(await scaled(tensor([3, 4])).read())], [7, 18]);
  scaled.dispose();
});

test('weights are read as they are at each call', async () => {
  const w = tensor([1, 2]);
  const times = compile((x: Tensor) => mul(x, w));
  assert.equal([...(await times(tensor([3, 3])).read())], [3, 6]);
  w.array.write([10, 20]);
  assert.equal([...(await times(tensor([3, 3])).read())], [30, 60]);
  times.dispose();
});

test('arrays that are written in parts, in place and more than once come out right', async () => {
  const fn = (x: Tensor) => {
    const parameter = tensor(new Float32Array(6).fill(1), [2, 3], { requiresGrad: true });
    const y = add(mul(parameter, x), add(parameter, mul(parameter, parameter)));
    sum(y).backward();
    return { gradient: parameter.grad!.detach() };
  };
  const inner = compile((x: Tensor) => {
    const { gradient } = fn(x);
    return gradient;
  });
  const x = tensor([1, 2, 3, 4, 5, 6], [2, 3]);
  const gradient = inner(x);
  assert.equal([...(await gradient.read())], [4, 5, 6, 7, 8, 9]);
  const again = inner(x);
  assert.equal([...(await again.read())], [4, 5, 6, 7, 8, 9]);
  inner.dispose();
});

test('a compiled function inside another is part of it', async () => {
  const inner = compile((x: Tensor) => mul(x, 3));
  const outer = compile((x: Tensor) => add(inner(x), 1));
  assert.equal([...(await outer(tensor([1, 2])).read())], [4, 7]);
  assert.is(inner.plan, undefined);
  outer.dispose();
});

test('what cannot be recorded is refused with the reason', async () => {
  const doubled = compile((x: Tensor) => mul(x, 2));
  doubled(tensor([1, 2]));
  throws(
    () => doubled(tensor([1, 2, 3])),
    /input 0 is not what was recorded \(3 numbers, not 2\)\n {2}recorded {2}f32 \[2\]/,
  );
  throws(() => doubled(tensor([1, 2], [2], { dtype: 'i32' })), /recorded {2}f32 \[2\]\n {2}given {5}i32 \[2\]/);
  throws(
    () => (doubled as (...all: unknown[]) => unknown)(tensor([1, 2]), tensor([1])),
    /recorded with 1 inputs, called with 2/,
  );
  throws(() => doubled(3 as unknown as Tensor), /input 0 is not a Tensor/);
  throws(() => doubled(tensor([1, 2], [2], { requiresGrad: true })), /no gradient flows out through an input/);

  const async_ = compile((async (x: Tensor) => mul(x, 2)) as unknown as (x: Tensor) => Tensor);
  throws(() => async_(tensor([1])), /an async function cannot be recorded/);

  let reading: Promise<unknown> | undefined;
  const reader = compile((x: Tensor) => {
    reading = x.read();
    return x;
  });
  reader(tensor([1]));
  assert.match(await reading!.then(() => 'read', String), /read: a function that is being compiled has no numbers yet/);

  let kept: Tensor | undefined;
  const keeper = compile((x: Tensor) => {
    kept = scope(() => mul(x, 2));
    kept.array.view();
    return add(kept, 1);
  });
  throws(() => keeper(tensor([1, 2])), /1 array made by the function outlives it\n {2}\[2\] {2}made by same/);

  const w = tensor([1, 2], [2], { requiresGrad: true });
  const backward = compile((x: Tensor) => {
    const loss = sum(mul(x, w));
    loss.backward();
    return loss;
  });
  throws(() => backward(tensor([1, 2])), /made by the function outlive[\s\S]*let the optimiser step consume gradients/);
  throws(() => compile((() => 3) as unknown as () => Tensor)(), /returned number/);
  assert.is(currentGpu().recording, false);
  assert.equal([...(await doubled(tensor([4, 5])).read())], [8, 10], 'and the device still works');
});

test('the steps of a sampler replay one plan', async () => {
  const unet = tinyUNet().initialize(5);
  const step = compile((z: Tensor, waves: Tensor, text: Tensor) => noGrad(() => unet.forward(z, waves, text)));
  const text = noise([1, 5, 12], 'text');
  const sample = async (forward: (z: Tensor, t: number) => Tensor) => {
    let z = noise([1, 8, 8, 4]);
    for (let i = 0; i < 4; i++) z = scope(() => add(z, mul(forward(z, 1000 - 250 * i), 0.25)));
    return z.read();
  };
  const replayed = await sample((z, t) => step(z, unet.timeWaves([t]), text));
  const eager = await sample((z, t) => noGrad(() => unet.forward(z, t, text)));
  assert.equal(bits(replayed), bits(eager));
  step.dispose();
});

test.run();
