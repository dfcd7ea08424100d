import { sizeOf } from './array.ts';
import type { GpuArray } from './array.ts';
import { map } from './elementwise.ts';
import { shapeError } from './errors.ts';
import { wantFloats } from './floats.ts';
import { hostArray } from './op.ts';
import type { Op } from './op.ts';
import { reduce3 } from './reduce.ts';

/** What becomes of the single losses: each by itself, their mean, or their sum. */
export type Reduction = 'none' | 'mean' | 'sum';

/**
 * One row for each loss of a prediction a against a target b.
 *
 * `y` is WGSL in a, b and s (the attribute), for V = f32 or vec4f. `da` is its derivative by a, `db` by b where that is
 * not −da. The sum or mean happens in the kernel that computes y.
 */
interface Row {
  y: string;
  da: string;
  db?: string;
  js: (a: number, b: number, s: number) => number;
  /** What the attribute is called, where it must be above 0. */
  positive?: string;
}

const rows = {
  mse: { y: '(a - b) * (a - b)', da: '2.0 * (a - b)', js: (a, b) => (a - b) ** 2 },
  l1: { y: 'abs(a - b)', da: 'sign(a - b)', js: (a, b) => Math.abs(a - b) },
  huber: {
    y: 'select(s * (abs(a - b) - V(0.5 * s)), 0.5 * (a - b) * (a - b), abs(a - b) <= V(s))',
    da: 'clamp(a - b, -s, s)',
    positive: 'delta',
    js: (a, b, s) => (Math.abs(a - b) <= s ? (a - b) ** 2 / 2 : s * (Math.abs(a - b) - s / 2)),
  },
  smoothL1: {
    y: 'select(abs(a - b) - V(0.5 * s), 0.5 * (a - b) * (a - b) / s, abs(a - b) < V(s))',
    da: 'clamp((a - b) / s, -1.0, 1.0)',
    positive: 'beta',
    js: (a, b, s) => (Math.abs(a - b) < s ? (a - b) ** 2 / (2 * s) : Math.abs(a - b) - s / 2),
  },
  // √(d² + s²) − s without the difference of two near numbers; far out, where d² would overflow, the line
  pseudoHuber: {
    y: 'select((a - b) * (a - b) / (sqrt((a - b) * (a - b) + V(s * s)) + V(s)), abs(a - b) - V(s), abs(a - b) > V(1e15))',
    da: 'select((a - b) * inverseSqrt((a - b) * (a - b) + s * s), sign(a - b), abs(a - b) > 1e15)',
    positive: 'c',
    js: (a, b, s) => Math.sqrt((a - b) ** 2 + s * s) - s,
  },
  bceWithLogits: {
    y: 'max(a, V(0.0)) - a * b + log(V(1.0) + exp(-abs(a)))',
    da: 'sigmoid(a) - b',
    db: '-a',
    js: (a, b) => Math.max(a, 0) - a * b + Math.log1p(Math.exp(-Math.abs(a))),
  },
} satisfies Record<string, Row>;

/** @throws when there is no such reduction */
export function wantReduction(op: string, reduction: Reduction): void {
  if (!['none', 'mean', 'sum'].includes(reduction))
    throw new TypeError(`${op}: there is no reduction '${reduction}'\n  known: none mean sum`);
}

type Loss<A> = Op<[x: GpuArray, target: GpuArray], A & { reduction: Reduction }>;

/**
 * y = Σ loss(x, target) · w with w = 1, or 1 / n for the mean; or each loss by itself; f32.    x, target: one shape
 *
 *     dx = dy · w · loss′(x, target)      y: [], or that shape
 *
 * @throws when the shapes differ: a target that broadcasts is a mistake more often than a wish
 */
function loss<A = object>(name: keyof typeof rows, scalar: (attrs: A) => number = () => 0): Loss<A> {
  const row: Row = rows[name];
  return {
    name,
    forward(gpu, [x, target], attrs) {
      wantFloats(name, { x, target });
      if (x.shape.join() !== target.shape.join()) throw shapeError(name, 'shapes differ', { x, target });
      const saved = [x, target];
      const s = scalar(attrs);
      wantReduction(name, attrs.reduction);
      if (row.positive && !(s > 0)) throw shapeError(name, `${row.positive} is ${s}, must be above 0`, { x, target });
      if (attrs.reduction === 'none') return { output: map(gpu, row.y, [x, target], { s, dtype: 'f32' }), saved };
      const scale = attrs.reduction === 'mean' ? 1 / x.size : 1;
      const total = reduce3(gpu, [x, target], [1, x.size, 1], { f: row.y, s, scale });
      const output = total.view([]);
      total.dispose();
      return { output, saved };
    },
    backward(gpu, dy, [x, target], attrs, needs) {
      const s = scalar(attrs);
      const t = attrs.reduction === 'mean' ? 1 / x.size : 1;
      const gradient = (d: string, { dtype, shape }: GpuArray) =>
        map(gpu, `c * t * (${d})`, [x, target, dy], { s, t, shape, dtype });
      return [
        needs[0] ? gradient(row.da, x) : undefined,
        needs[1] ? gradient(row.db ?? `-(${row.da})`, target) : undefined,
      ];
    },
    reference([x, target], attrs) {
      const values = x.data.map((v, i) => row.js(v, target.data[i], scalar(attrs)));
      if (attrs.reduction === 'none') return hostArray(x.shape, values);
      const sum = values.reduce((p, v) => p + v, 0);
      return hostArray([], [attrs.reduction === 'mean' ? sum / sizeOf(x.shape) : sum]);
    },
  };
}

/** (x − target)² */
export const mse = loss('mse');
/** |x − target| */
export const l1 = loss('l1');
/**
 * d² / 2 up to |d| = delta, then a line of slope delta. @throws unless delta is above 0
 * @see Huber 1964, Robust Estimation of a Location Parameter. https://doi.org/10.1214/aoms/1177703732
 */
export const huber = loss<{ delta: number }>('huber', ({ delta }) => delta);
/**
 * d² / 2 beta up to |d| = beta, then a line of slope 1. @throws unless beta is above 0
 * @see Girshick 2015, Fast R-CNN, eq. 3. https://arxiv.org/abs/1504.08083
 */
export const smoothL1 = loss<{ beta: number }>('smoothL1', ({ beta }) => beta);
/**
 * √(d² + c²) − c. @throws unless c is above 0
 * @see Song & Dhariwal 2023, Improved Techniques for Training Consistency Models, §3.3. https://arxiv.org/abs/2310.14189
 */
export const pseudoHuber = loss<{ c: number }>('pseudoHuber', ({ c }) => c);
/** −target · ln σ(x) − (1 − target) · ln(1 − σ(x)) */
export const bceWithLogits = loss('bceWithLogits');
