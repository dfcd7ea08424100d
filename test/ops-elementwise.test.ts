import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as unary from '../src/kernels/unary.ts';
import * as binary from '../src/kernels/binary.ts';
import type { Op } from '../src/kernels/index.ts';
import { checkOp, testGpu } from './check-op.ts';

const test = suite('element-wise ops');

const attrs: Record<string, object> = {
  leakyRelu: { slope: 0.2 },
  powScalar: { exponent: 3 },
  clamp: { min: -0.7, max: 1 },
  addScalar: { s: 0.3 },
  mulScalar: { s: -1.7 },
};
const positive = new Set(['log', 'sqrt', 'rsqrt', 'reciprocal']);

for (const [name, op] of Object.entries(unary) as [string, Op<any, any>][]) {
  test(`${name} agrees with its reference, forwards and backwards`, () =>
    checkOp(op, [[3, 37]], attrs[name] ?? {}, {
      ranges: { 0: positive.has(name) ? [0.2, 3] : [-4.3, 4.3] },
      tolerance: 3e-6,
    }));
}

const shapes = [
  [
    [3, 37],
    [3, 37],
  ],
  [[3, 4], []],
  [
    [5, 1],
    [1, 6],
  ],
  [
    [2, 3, 4, 8],
    [2, 1, 1, 8],
  ],
  [[3, 5, 4], [4]],
  [
    [2, 3, 4, 6],
    [1, 4, 1],
  ],
  [[4], [2, 3, 4]],
  [
    [2, 1, 5],
    [3, 1],
  ],
  [
    [6, 4, 1],
    [1, 1, 8],
  ],
];
const { add, sub, mul, div, maximum, minimum, pow, addScaled, where } = binary;
const pairs = { add, sub, mul, div, maximum, minimum, pow, addScaled };
for (const [name, op] of Object.entries(pairs) as [string, Op<any, any>][]) {
  test(`${name} broadcasts, forwards and backwards`, async () => {
    const range = name === 'pow' ? ([0.3, 2] as const) : ([0.5, 3] as const);
    const ranges: Record<number, readonly [number, number]> =
      name === 'pow' || name === 'div' ? { 0: range, 1: range } : {};
    for (const pair of name === 'mul' ? shapes : shapes.slice(2, 5)) await checkOp(op, pair, { s: 0.7 }, { ranges });
  });
}

test('where takes the condition as i32 or f32, and broadcasts', async () => {
  const ints = { 0: [0, 2] as const };
  await checkOp(
    where,
    [
      [3, 4],
      [3, 4],
      [1, 4],
    ],
    {},
    { ints },
  );
  await checkOp(where, [[3, 1], [5], [3, 5]], {}, { data: { 0: [0, 1, -2] }, constant: [0] });
});

test('integers are refused, not misread', async () => {
  const gpu = await testGpu();
  const ids = gpu.array([2], [1, 2], 'i32');
  assert.throws(() => unary.silu.forward(gpu, [ids], {}), /silu: x must be f32 or f16, not i32/);
  assert.throws(() => binary.add.forward(gpu, [gpu.zeros([2]), ids], {}), /add: b must be f32/);
});

test('shapes that do not broadcast are refused by name', async () => {
  const gpu = await testGpu();
  assert.throws(
    () => binary.add.forward(gpu, [gpu.zeros([3, 4]), gpu.zeros([3, 5])], {}),
    /add: sizes differ \(4 ≠ 5\) on axis 1/,
  );
});

test.run();
