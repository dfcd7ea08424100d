import { suite } from 'uvu';
import * as binary from '../src/kernels/binary.ts';
import type { Op } from '../src/kernels/index.ts';
import * as unary from '../src/kernels/unary.ts';
import { checkOp } from './check-op.ts';

const test = suite('element-wise ops on halves');

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
      dtype: 'f16',
      ranges: { 0: positive.has(name) ? [0.2, 3] : [-2, 2] },
    }));
}

const { add, sub, mul, div, maximum, minimum, pow, addScaled, where } = binary;
for (const [name, op] of Object.entries({ add, sub, mul, div, maximum, minimum, pow, addScaled }) as [
  string,
  Op<any, any>,
][]) {
  test(`${name} broadcasts, and is f32 where one operand is`, async () => {
    const ranges: Record<number, readonly [number, number]> =
      name === 'pow' || name === 'div' ? { 0: [0.5, 2], 1: [0.5, 2] } : {};
    await checkOp(
      op,
      [
        [5, 1],
        [1, 7],
      ],
      { s: 0.7 },
      { dtype: 'f16', ranges },
    );
    await checkOp(op, [[3, 5, 4], [4]], { s: 0.7 }, { dtype: 'f16', dtypes: { 1: 'f32' }, makes: 'f32', ranges });
  });
}

test('where takes its condition as halves, f32 or i32', async () => {
  const shapes = [
    [3, 5],
    [3, 5],
    [1, 5],
  ];
  const options = {
    dtype: 'f16',
    data: { 0: [0, 1, -2, 0, 0.5, 1, 1, 1, 0, 0, 0, 2, 3, 0, 1] },
    constant: [0],
  } as const;
  await checkOp(where, shapes, {}, options);
  await checkOp(where, shapes, {}, { ...options, dtypes: { 0: 'f32' } });
  await checkOp(where, shapes, {}, { dtype: 'f16', ints: { 0: [0, 2] } });
});

test.run();
