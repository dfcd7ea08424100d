/**
 * The gradient of every function of tensors is its slope: random shapes and attributes, central differences of the ops'
 * float64 references. `RECTIFLOW_SEED=7` draws other calls, `RECTIFLOW_SEED=random` new ones each time.
 */
import { readdirSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as functions from '../src/tensor/functions/index.ts';
import { hostArray, type GpuArray, type HostArray, type Op } from '../src/kernels/index.ts';
import { add, mul, scope, sum, tensor, useGpu, type Tensor } from '../src/tensor/index.ts';
import { assertClose, testGpu } from './check-op.ts';
import { randoms } from './randoms.ts';
import { Draw, generators, withoutGradient, type Call } from './gradient-generators.ts';

const test = suite('gradient property');
useGpu(await testGpu());

const asked = process.env.RECTIFLOW_SEED;
const seed = asked === 'random' ? Math.floor(Math.random() * 1e6) : Number(asked ?? 1);
assert.ok(Number.isSafeInteger(seed), `RECTIFLOW_SEED is ${asked}, not a whole number`);
const CALLS = 3;
/** Elements of each operand whose slope is measured. */
const SAMPLES = 16;

/** Every op of the kernels, found in their files. */
const ops = new Map<string, Op<any, any>>();
for (const file of readdirSync('src/kernels').filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'))) {
  const module = await import(`../src/kernels/${file.slice(0, -3)}.ts`);
  for (const op of Object.values(module) as Partial<Op<any, any>>[])
    if (op?.name && op.reference && op.forward) ops.set(op.name, op as Op<any, any>);
}
const used = new Set<string>();

/** One op that ran inside a function. */
interface Step {
  op: Op<any, any>;
  inputs: readonly (GpuArray | undefined)[];
  attrs: object;
  output: GpuArray;
}

/** The ops that `run` runs, in order. */
function stepsOf<T>(run: () => T): { result: T; steps: Step[] } {
  const steps: Step[] = [];
  const originals = [...ops.values()].map((op) => [op, op.forward] as const);
  for (const [op, forward] of originals) {
    op.forward = (gpu, inputs, attrs) => {
      const made = forward.call(op, gpu, inputs, attrs);
      steps.push({ op, inputs, attrs, output: made.output });
      return made;
    };
  }
  try {
    return { result: run(), steps };
  } finally {
    for (const [op, forward] of originals) op.forward = forward;
  }
}

async function check({ operands, run, tolerance = 5e-5 }: Call, salt: number): Promise<void> {
  const inputs = operands.map(({ shape, data, integers }) =>
    tensor(data, shape, integers ? { dtype: 'i32' } : { requiresGrad: true }),
  );
  const { result, steps } = stepsOf(() => run(...inputs));
  for (const { op } of steps) used.add(op.name);
  const outputs = Array.isArray(result) ? result : [result];
  const cotangents = outputs.map((y, i) => randoms(y.size, salt + i, [-1, 1]));

  const hosts = operands.map(({ shape, data }) => hostArray(shape, Float32Array.from(data)));
  /** The function in float64, by the references of its ops. */
  const values = (): HostArray[] => {
    const known = new Map<GpuArray | undefined, HostArray>(inputs.map((t, i) => [t.array, hosts[i]]));
    for (const { op, inputs: from, attrs, output } of steps) {
      const args = from.map((array) => (array === undefined ? undefined : known.get(array)!));
      known.set(output, op.reference(args as HostArray[], attrs));
    }
    return outputs.map((y) => known.get(y.array)!);
  };
  const total = (): number =>
    values().reduce((s, y, i) => s + y.data.reduce((p, v, k) => p + v * cotangents[i][k], 0), 0);

  for (const [i, want] of values().entries()) {
    assert.equal([...outputs[i].shape], [...want.shape], 'shape of the result');
    assertClose(await outputs[i].read(), want.data, 2e-5, 'result');
  }
  outputs
    .map((y, i) => sum(mul(y, tensor(cotangents[i], y.shape))))
    .reduce((a: Tensor, b: Tensor) => add(a, b))
    .backward();
  const middle = total();
  for (const [i, { data }] of hosts.entries()) {
    if (operands[i].integers) continue;
    assert.ok(inputs[i].grad, `no gradient reached operand ${i}`);
    const gradient = await inputs[i].grad!.read();
    const [got, want]: [number[], number[]] = [[], []];
    for (const p of places(data.length)) {
      const x = data[p];
      const h = 1e-5 * Math.max(1, Math.abs(x));
      data[p] = x + h;
      const up = total();
      data[p] = x - h;
      const down = total();
      data[p] = x;
      const slope = (up - down) / (2 * h);
      // On a kink the slopes of both sides differ, and the function has none.
      if (Math.abs(up - 2 * middle + down) / h > 0.01 * (Math.abs(slope) + 0.01)) continue;
      got.push(gradient[p]);
      want.push(slope);
    }
    assert.ok(want.length >= 0.7 * places(data.length).length, `operand ${i} has kinks almost everywhere`);
    const largest = Math.max(...want.map(Math.abs), 0.05); // below that, rounding of the terms is what is left
    const worst = got.reduce((k, v, j) => (Math.abs(v - want[j]) > Math.abs(got[k] - want[k]) ? j : k), 0);
    const error = Math.abs(got[worst] - want[worst]) / largest;
    assert.ok(
      error <= tolerance,
      `gradient ${i}: relative error ${error.toExponential(1)}, got ${got[worst]}, slope ${want[worst]}`,
    );
  }
}

/** All places when few, else some spread over them. */
const places = (n: number): number[] =>
  Array.from({ length: Math.min(n, SAMPLES) }, (_, i) => (n <= SAMPLES ? i : Math.floor(((i + 0.5) * n) / SAMPLES)));

test('every function has a generator, or a reason for having no gradient', () => {
  const names = Object.entries(functions).flatMap(([name, value]) => (typeof value === 'function' ? [name] : []));
  const covered = [...Object.keys(generators), ...Object.keys(withoutGradient)];
  const missing = names.filter((name) => !covered.includes(name));
  assert.equal(missing, [], 'add generators to test/gradient-generators.ts');
  assert.equal(
    covered.filter((name) => !names.includes(name)),
    [],
    'generators of functions that are not there',
  );
});

for (const [index, [name, generate]] of Object.entries(generators).entries()) {
  test(`the gradient of ${name} is its slope`, async () => {
    for (let n = 0; n < CALLS; n++) {
      const salt = seed * 1_000_003 + index * 10_007 + n * 101;
      const call = generate(new Draw(salt), n);
      await scope(() => check(call, salt)).catch((error: Error) => {
        const shapes = call.operands.map(({ shape }) => `[${shape.join(', ')}]`).join(' ');
        const label = call.label === undefined ? '' : ` ${JSON.stringify(call.label)}`;
        throw new Error(`${name} ${shapes}${label}: ${error.message}\n  RECTIFLOW_SEED=${seed} draws this call again`);
      });
    }
  });
}

test('every op that has a gradient took part', () => {
  const rounds = 'cast'; // a staircase: its gradient is that of the line through it, in test/half-ops.test.ts
  const differentiable = [...ops.values()].filter((op) => op.backward && op.name !== rounds).map((op) => op.name);
  assert.ok(differentiable.length > 60, `only ${differentiable.length} ops were found`);
  assert.equal(
    differentiable.filter((name) => !used.has(name)),
    [],
  );
});

test.run();
