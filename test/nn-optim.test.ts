import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { currentGpu, mul, noGrad, sum, tensor, useGpu, type Tensor } from '../src/tensor/index.ts';
import {
  Adam,
  AdamW,
  EMA,
  emaDecay,
  schedule,
  SGD,
  type Optimizer,
  type OptimizerOptions,
} from '../src/nn/optim/index.ts';
import { normal } from '../src/tensor/random.ts';
import { assertClose, testGpu } from './check-op.ts';

const test = suite('nn-optim');
test.before(async () => void useGpu(await testGpu()));

const STEPS = 7;
/** Sizes that do not fill a workgroup, fill one, and need several. */
const sizes = { a: 3, b: 1024, c: 2500 };

type Vectors = Record<string, Float64Array>;
const random = (name: string, scale: number): Vectors =>
  Object.fromEntries(
    Object.entries(sizes).map(([key, n]) => [key, Float64Array.from(normal(1, `${name}.${key}`, n), (x) => x * scale)]),
  );
const zeros = (): Vectors => Object.fromEntries(Object.entries(sizes).map(([key, n]) => [key, new Float64Array(n)]));

/** Let `optimizer` follow given gradients: the gradient of Σ p·g is g. */
async function run(
  make: (p: Map<string, Tensor>) => Optimizer,
  gradients: (step: number) => Vectors,
  lr: (step: number) => number,
) {
  const start = random('start', 1);
  const parameters = new Map(
    Object.entries(start).map(([key, data]) => [key, tensor(data, undefined, { requiresGrad: true })]),
  );
  const optimizer = make(parameters);
  const norms: number[] = [];
  for (let step = 0; step < STEPS; step++) {
    for (const [key, g] of Object.entries(gradients(step))) sum(mul(parameters.get(key)!, tensor(g))).backward();
    optimizer.lr = lr(step);
    optimizer.step();
    norms.push((await optimizer.report()).gradNorm);
  }
  return { optimizer, parameters, norms, start };
}

const gradients = (step: number) => random(`gradient ${step}`, 0.3);
const lr = (step: number) => 0.01 * (step + 1);
const normOf = (g: Vectors) => Math.sqrt(Object.values(g).reduce((n, v) => n + v.reduce((a, x) => a + x * x, 0), 0));

/** The same in obvious float64. */
function reference(
  kind: 'adamw' | 'adam' | 'sgd' | 'nesterov',
  options: { weightDecay: number; maxNorm: number },
): Vectors {
  const p = random('start', 1),
    m = zeros(),
    v = zeros();
  for (let step = 0; step < STEPS; step++) {
    const t = step + 1,
      grads = gradients(step),
      rate = lr(step);
    const factor = Math.min(1, options.maxNorm / (normOf(grads) + 1e-6));
    for (const key of Object.keys(sizes)) {
      for (let i = 0; i < p[key].length; i++) {
        let g = grads[key][i] * factor;
        if (kind === 'adamw') p[key][i] *= 1 - rate * options.weightDecay;
        else g += options.weightDecay * p[key][i];
        if (kind === 'adamw' || kind === 'adam') {
          m[key][i] = 0.9 * m[key][i] + 0.1 * g;
          v[key][i] = 0.999 * v[key][i] + 0.001 * g * g;
          p[key][i] -= (rate * (m[key][i] / (1 - 0.9 ** t))) / (Math.sqrt(v[key][i] / (1 - 0.999 ** t)) + 1e-8);
        } else {
          m[key][i] = 0.9 * m[key][i] + g;
          p[key][i] -= rate * (kind === 'nesterov' ? g + 0.9 * m[key][i] : m[key][i]);
        }
      }
    }
  }
  return p;
}

const makers = {
  adamw: (p: Map<string, Tensor>, o: OptimizerOptions) => new AdamW(p, o),
  adam: (p: Map<string, Tensor>, o: OptimizerOptions) => new Adam(p, o),
  sgd: (p: Map<string, Tensor>, o: OptimizerOptions) => new SGD(p, { ...o, momentum: 0.9 }),
  nesterov: (p: Map<string, Tensor>, o: OptimizerOptions) => new SGD(p, { ...o, momentum: 0.9, nesterov: true }),
};

for (const kind of ['adamw', 'adam', 'sgd', 'nesterov'] as const) {
  for (const maxNorm of [1e9, 2]) {
    test(`${kind} follows its formula, ${maxNorm > 100 ? 'unclipped' : 'clipped'}`, async () => {
      const options = { weightDecay: 0.1, maxGradNorm: maxNorm };
      const { parameters, norms } = await run((p) => makers[kind](p, options), gradients, lr);
      const want = reference(kind, { weightDecay: 0.1, maxNorm });
      for (const [key, p] of parameters) assertClose(await p.read(), want[key], 1e-5, key);
      assertClose(
        norms,
        norms.map((_, step) => normOf(gradients(step))),
        1e-5,
        'norms',
      );
    });
  }
}

test('a step with a gradient that is not finite changes nothing and is counted', async () => {
  for (const bad of [NaN, Infinity, -Infinity]) {
    const p = tensor([1, 2, 3], [3], { requiresGrad: true });
    const optimizer = new AdamW(new Map([['p', p]]), { lr: 0.1 });
    sum(mul(p, tensor([1, bad, 1]))).backward();
    optimizer.step();
    assert.equal([...(await p.read())], [1, 2, 3]);
    assert.equal({ ...(await optimizer.report()), gradNorm: 0 }, { gradNorm: 0, finite: false, skipped: 1, steps: 0 });
    sum(mul(p, tensor([1, 1, 1]))).backward();
    optimizer.step();
    assert.ok((await optimizer.report()).finite);
    assertClose(
      await p.read(),
      [1, 2, 3].map((x) => x * (1 - 0.1 * 0.01) - 0.1),
      1e-6,
      'the step after',
    );
  }
});

test('a saved state goes on exactly as if nothing had happened', async () => {
  const straight = await run((p) => new AdamW(p), gradients, lr);
  const half = await run(
    (p) => new AdamW(p),
    (s) => gradients(s),
    lr,
  );
  const state = await half.optimizer.stateDict();
  const again = new AdamW(half.parameters);
  again.loadStateDict(state);
  for (const { parameters, optimizer } of [straight, { parameters: half.parameters, optimizer: again }]) {
    for (const [key, g] of Object.entries(gradients(99))) sum(mul(parameters.get(key)!, tensor(g))).backward();
    optimizer.lr = lr(STEPS);
    optimizer.step();
  }
  for (const [key, p] of straight.parameters) assert.equal(await p.read(), await half.parameters.get(key)!.read());
  assert.is((await again.report()).steps, STEPS + 1);
});

test('state of other parameters is refused by name', async () => {
  const one = new AdamW(new Map([['x', tensor([1, 2])]])),
    other = new AdamW(new Map([['y', tensor([1, 2])]]));
  const state = await one.stateDict();
  assert.throws(() => other.loadStateDict(state), /y\.exp_avg/);
});

test('a step without any gradient says what to do', () => {
  assert.throws(() => new SGD(new Map([['x', tensor([1])]])).step(), /requiresGrad\(true\)/);
});

test('the average of the weights is the same inside the step and after it', async () => {
  const start = random('start', 1);
  const parameters = new Map(
    Object.entries(start).map(([key, data]) => [key, tensor(data, undefined, { requiresGrad: true })]),
  );
  const ema = new EMA(parameters, { decay: 0.9 });
  const after = new EMA(parameters, { decay: 0.9 });
  const optimizer = new AdamW(parameters, { ema });
  const want = Object.fromEntries(Object.entries(start).map(([key, data]) => [key, Float64Array.from(data)]));
  for (let step = 0; step < STEPS; step++) {
    for (const [key, g] of Object.entries(gradients(step))) sum(mul(parameters.get(key)!, tensor(g))).backward();
    optimizer.lr = lr(step);
    optimizer.step();
    after.step();
    for (const [key, p] of parameters) {
      const now = await p.read(),
        decay = emaDecay(step + 1, { decay: 0.9 });
      want[key] = want[key].map((x, i) => x - (1 - decay) * (x - now[i]));
    }
  }
  for (const key of Object.keys(sizes)) {
    assertClose(await ema.shadow.get(key)!.read(), want[key], 1e-6, `${key} inside`);
    assertClose(await after.shadow.get(key)!.read(), want[key], 1e-6, `${key} after`);
  }
  const before = await parameters.get('c')!.read();
  noGrad(() => ema.swap(parameters));
  assertClose(await parameters.get('c')!.read(), want.c, 1e-6, 'swapped in');
  ema.swap(parameters);
  assert.equal(await parameters.get('c')!.read(), before);
});

test('decay rules are those of diffusers', () => {
  assertClose(
    [1, 2, 3, 50].map((n) => emaDecay(n, { decay: 0.9 })),
    [0, 2 / 11, 3 / 12, 50 / 59],
    1e-12,
    'plain',
  );
  assertClose(
    [1, 2, 3].map((n) => emaDecay(n, { useEmaWarmup: true })),
    [0, 1 - 2 ** (-2 / 3), 1 - 3 ** (-2 / 3)],
    1e-12,
    'warm-up',
  );
  assert.is(emaDecay(1000, { decay: 0.5 }), 0.5);
  assert.is(emaDecay(5, { updateAfterStep: 10 }), 0);
});

test('learning rates warm up, fall and end as their names say', () => {
  const options = { lr: 1, warmupSteps: 10, trainingSteps: 110 };
  for (const name of ['constant_with_warmup', 'linear', 'cosine', 'cosine_with_restarts', 'polynomial'] as const) {
    const rate = schedule(name, options);
    assert.is(rate(0), 0);
    assert.ok(Math.abs(rate(5) - 0.5) < 1e-12 && Math.abs(rate(10) - 1) < 1e-6, name);
    assert.ok(name === 'constant_with_warmup' ? rate(110) === 1 : rate(110) < 1e-6, name);
  }
  assert.ok(Math.abs(schedule('cosine', options)(60) - 0.5) < 1e-12);
  assert.is(schedule('piecewise_constant', { lr: 2, stepRules: '1:5,0.1:15,0.01' })(7), 0.2);
  assert.throws(() => schedule('sawtooth' as any, options), /known: constant/);
  assert.throws(() => schedule('linear', { lr: 1 })(3), /trainingSteps/);
});

test.after(() => currentGpu().idle());
test.run();
