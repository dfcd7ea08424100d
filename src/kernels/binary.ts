import type { DType, GpuArray, Shape } from './array.ts';
import { sizeOf } from './array.ts';
import { broadcastShape, map } from './elementwise.ts';
import { shapeError } from './errors.ts';
import { wantFloats, widest } from './floats.ts';
import type { Gpu } from './gpu.ts';
import { hostArray } from './op.ts';
import type { HostArray, Op } from './op.ts';
import { outline } from './outline.ts';
import { sumTo } from './reduce.ts';

/**
 * One row for each function of two numbers; operands broadcast as in NumPy.
 *
 * `y` is WGSL in a, b (the operands) and s. `da` and `db` are WGSL in the same a and b and in c, the cotangent dy; a row
 * that needs dy alone says so by writing only c. Gradients are added up over the axes that were broadcast.
 * @throws (all of them) when shapes do not broadcast, naming the sizes
 */
interface Row {
  y: string;
  da: string;
  db: string;
  js: (a: number, b: number, s: number) => number;
}

const rows = {
  add: { y: 'a + b', da: 'c', db: 'c', js: (a, b) => a + b },
  sub: { y: 'a - b', da: 'c', db: '-c', js: (a, b) => a - b },
  mul: { y: 'a * b', da: 'c * b', db: 'c * a', js: (a, b) => a * b },
  div: { y: 'a / b', da: 'c / b', db: '-c * a / (b * b)', js: (a, b) => a / b },
  maximum: {
    y: 'larger(a, b)',
    da: 'c * select(select(0.0, 0.5, a == b), 1.0, a > b)',
    db: 'c * select(select(0.0, 0.5, a == b), 1.0, b > a)',
    js: (a, b) => Math.max(a, b),
  },
  minimum: {
    y: '-larger(-a, -b)',
    da: 'c * select(select(0.0, 0.5, a == b), 1.0, a < b)',
    db: 'c * select(select(0.0, 0.5, a == b), 1.0, b < a)',
    js: (a, b) => Math.min(a, b),
  },
  pow: {
    y: 'power(a, b)',
    da: 'c * b * power(a, b - 1.0)',
    db: 'select(c * power(a, b) * log(a), 0.0, a == 0.0 && b >= 0.0)', // 0 · ln 0 tends to 0
    js: (a, b) => a ** b,
  },
  addScaled: { y: 'a + s * b', da: 'c', db: 's * c', js: (a, b, s) => a + s * b },
} satisfies Record<string, Row>;

type Binary<A = object> = Op<[a: GpuArray, b: GpuArray], A>;

function binary<A = object>(name: keyof typeof rows, scalar: (attrs: A) => number = () => 0): Binary<A> {
  const row: Row = rows[name];
  const linear = !/[ab]/.test(row.da + row.db);
  return {
    name,
    forward(gpu, [a, b], attrs) {
      wantFloats(name, { a, b });
      const shape = broadcastShape(name, [a.shape, b.shape]);
      const s = scalar(attrs);
      if (typeof s !== 'number') throw shapeError(name, `s is ${s}, not a number`, { a, b });
      return {
        output: map(gpu, row.y, [a, b], { s, shape }),
        saved: linear ? [outline(a), outline(b)] : [a, b],
      };
    },
    backward(gpu, dy, [a, b], attrs, needs) {
      const s = scalar(attrs);
      return [
        needs[0] ? gradient(gpu, row.da, a, b, dy, a, s) : undefined,
        needs[1] ? gradient(gpu, row.db, a, b, dy, b, s) : undefined,
      ];
    },
    reference: ([a, b], attrs) => {
      const s = scalar(attrs);
      const shape = broadcastShape(name, [a.shape, b.shape]);
      const [p, q] = [repeated(a, shape), repeated(b, shape)];
      return hostArray(
        shape,
        p.map((v, i) => row.js(v, q[i], s)),
      );
    },
  };
}

/** The gradient that an expression of a, b and dy gives, in the shape and dtype of the operand. */
function gradient(
  gpu: Gpu,
  expression: string,
  a: GpuArray,
  b: GpuArray,
  dy: GpuArray,
  { shape, dtype }: GpuArray,
  s: number,
): GpuArray {
  if (expression === 'c') return sumTo(gpu, dy, shape, dtype);
  if (!/[ab]/.test(expression)) {
    const sum = sumTo(gpu, dy, shape, 'f32'); // linear in dy: add up first
    const scaled = map(gpu, expression.replace('c', 'a'), [sum], { s, dtype });
    sum.dispose();
    return scaled;
  }
  return summed(gpu, expression, [a, b, dy], dy.shape, shape, dtype, s);
}

/** An expression of operands that broadcast to `full`, added up to `shape`: in f32 on the way. */
function summed(
  gpu: Gpu,
  expression: string,
  operands: readonly GpuArray[],
  full: Shape,
  shape: Shape,
  dtype: DType,
  s = 0,
): GpuArray {
  const terms = map(gpu, expression, operands, {
    s,
    shape: full,
    dtype: sizeOf(full) === sizeOf(shape) ? dtype : 'f32',
  });
  const sum = sumTo(gpu, terms, shape, dtype);
  terms.dispose();
  return sum;
}

/** Numbers of `x` repeated to `shape`. */
export function repeated(x: HostArray, shape: readonly number[]): Float64Array {
  const n = shape.reduce((p, d) => p * d, 1);
  return Float64Array.from({ length: n }, (_, i) => {
    let at = 0;
    let step = 1;
    for (let axis = shape.length - 1, own = x.shape.length - 1; own >= 0; axis--, own--) {
      if (x.shape[own] > 1) at += (i % shape[axis]) * step;
      step *= x.shape[own];
      i = Math.floor(i / shape[axis]);
    }
    return x.data[at];
  });
}

export const add = binary('add');
export const sub = binary('sub');
export const mul = binary('mul');
export const div = binary('div');
export const maximum = binary('maximum');
export const minimum = binary('minimum');
export const pow = binary('pow');
export const addScaled = binary<{ s: number }>('addScaled', ({ s }) => s);

/** y = a where the condition is not 0, else b. The condition is f32, f16 or i32; all three broadcast. */
export const where: Op<[condition: GpuArray, a: GpuArray, b: GpuArray]> = {
  name: 'where',
  forward(gpu, [condition, a, b]) {
    wantFloats('where', { a, b });
    const shape = broadcastShape('where', [condition.shape, a.shape, b.shape]);
    // Bits, not numbers: a 1 of i32 read as f32 is a denormal, which hardware may take for 0.
    const dtype = widest(a, b);
    const output = map(gpu, 'select(c, b, (bitcast<u32>(a) << 1u) != 0u)', [condition, a, b], { shape, dtype });
    return { output, saved: [condition, outline(a), outline(b)] };
  },
  backward(gpu, dy, [condition, a, b], _, needs) {
    const part = (expression: string, { shape, dtype }: GpuArray) =>
      summed(gpu, expression, [condition, dy], dy.shape, shape, dtype);
    return [
      undefined,
      needs[1] ? part('select(0.0, b, (bitcast<u32>(a) << 1u) != 0u)', a) : undefined,
      needs[2] ? part('select(b, 0.0, (bitcast<u32>(a) << 1u) != 0u)', b) : undefined,
    ];
  },
  reference([condition, a, b]) {
    const shape = broadcastShape('where', [condition.shape, a.shape, b.shape]);
    const [p, q, r] = [condition, a, b].map((x) => repeated(x, shape));
    return hostArray(
      shape,
      p.map((c, i) => (c !== 0 ? q[i] : r[i])),
    );
  },
};
