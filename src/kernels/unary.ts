import type { GpuArray } from './array.ts';
import { map } from './elementwise.ts';
import { shapeError } from './errors.ts';
import { wantFloats } from './floats.ts';
import { hostArray } from './op.ts';
import type { Op } from './op.ts';

/**
 * One row for each function of one number.
 *
 * `y` is WGSL in a (the input), s and t (from the attributes). `dx` is WGSL in a (the cotangent dy) and b, which is the
 * input, or the output where `keeps` says so. Helpers are at the end of elementwise.wgsl. `js` is the reference.
 *
 * NaN gives NaN and infinities give what they give in JavaScript, where the adapter's own arithmetic does: WGSL promises
 * neither, so nothing here decides by comparing with NaN.
 *
 * @see Hendrycks & Gimpel 2016, Gaussian Error Linear Units, for gelu and silu. https://arxiv.org/abs/1606.08415
 * @see Misra 2019, Mish. https://arxiv.org/abs/1908.08681
 * @see Radford et al. 2021, `QuickGELU` in the code. https://github.com/openai/CLIP
 */
interface Row {
  y: string;
  dx: string;
  keeps?: 'x' | 'y' | 'nothing';
  js: (x: number, s: number, t: number) => number;
}

const SQRT_2_OVER_PI = 0.7978845608;
const INV_SQRT_2PI = 0.3989422804;

const rows = {
  neg: { y: '-a', dx: '-a', keeps: 'nothing', js: (x) => -x },
  abs: { y: 'abs(a)', dx: 'a * sign(b)', js: Math.abs },
  square: { y: 'a * a', dx: '2.0 * a * b', js: (x) => x * x },
  sqrt: { y: 'sqrt(a)', dx: '0.5 * a / b', keeps: 'y', js: Math.sqrt },
  rsqrt: { y: 'inverseSqrt(a)', dx: '-0.5 * a * b * b * b', keeps: 'y', js: (x) => 1 / Math.sqrt(x) },
  reciprocal: { y: '1.0 / a', dx: '-a * b * b', keeps: 'y', js: (x) => 1 / x },
  exp: { y: 'exp(a)', dx: 'a * b', keeps: 'y', js: Math.exp },
  log: { y: 'log(a)', dx: 'a / b', js: Math.log },
  sin: { y: 'sine(a, 0u)', dx: 'a * sine(b, 1u)', js: Math.sin },
  cos: { y: 'sine(a, 1u)', dx: '-a * sine(b, 0u)', js: Math.cos },
  erf: { y: 'erf(a)', dx: 'a * 1.1283791671 * exp(-b * b)', js: erf },
  sigmoid: { y: 'sigmoid(a)', dx: 'a * sigmoid(b) * sigmoid(-b)', js: sigmoid },
  tanh: { y: 'tanh_of(a)', dx: 'a * (1.0 - b) * (1.0 + b)', keeps: 'y', js: Math.tanh },
  relu: { y: 'larger(a, 0.0)', dx: 'select(0.0, a, b > 0.0)', keeps: 'y', js: (x) => Math.max(x, 0) },
  leakyRelu: { y: 'select(s * a, a, a > 0.0)', dx: 'select(s * a, a, b > 0.0)', js: (x, s) => (x > 0 ? x : s * x) },
  silu: { y: 'a * sigmoid(a)', dx: 'a * sigmoid(b) * (1.0 + b * sigmoid(-b))', js: (x) => x * sigmoid(x) },
  quickGelu: {
    y: 'a * sigmoid(1.702 * a)',
    dx: 'a * sigmoid(1.702 * b) * (1.0 + 1.702 * b * sigmoid(-1.702 * b))',
    js: (x) => x * sigmoid(1.702 * x),
  },
  gelu: {
    y: '0.5 * a * erfc(-0.7071067812 * a)',
    dx: `a * (0.5 * erfc(-0.7071067812 * b) + b * ${INV_SQRT_2PI} * exp(-0.5 * b * b))`,
    js: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  },
  geluTanh: {
    y: `a * sigmoid(${2 * SQRT_2_OVER_PI} * a * (1.0 + 0.044715 * a * a))`,
    dx: `a * sigmoid(${2 * SQRT_2_OVER_PI} * b * (1.0 + 0.044715 * b * b)) * (1.0 + ${2 * SQRT_2_OVER_PI} * b *
         (1.0 + 0.134145 * b * b) * sigmoid(-${2 * SQRT_2_OVER_PI} * b * (1.0 + 0.044715 * b * b)))`,
    js: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  },
  softplus: { y: 'softplus(a)', dx: 'a * sigmoid(b)', js: (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))) },
  mish: {
    y: 'a * tanh_of(softplus(a))',
    dx: 'a * (tanh_of(softplus(b)) + b * sigmoid(b) * (1.0 - tanh_of(softplus(b)) * tanh_of(softplus(b))))',
    js: (x) => x * Math.tanh(Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)))),
  },
  powScalar: { y: 'power(a, s)', dx: 'a * s * power(b, s - 1.0)', js: (x, p) => x ** p },
  clamp: {
    y: 'select(clamp(a, s, t), a, is_nan(a))',
    dx: 'select(0.0, a, b >= s && b <= t)',
    js: (x, lo, hi) => Math.min(Math.max(x, lo), hi),
  },
  addScalar: { y: 'a + s', dx: 'a', keeps: 'nothing', js: (x, s) => x + s },
  mulScalar: { y: 'a * s', dx: 'a * s', keeps: 'nothing', js: (x, s) => x * s },
} satisfies Record<string, Row>;

function sigmoid(x: number): number {
  return x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x));
}

/** erf(x) = 2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (2n+1)!!, all terms of one sign. */
function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x;
  let sum = 0;
  for (let n = 0; Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
    sum += term;
    term *= (2 * x * x) / (2 * n + 3);
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

/** What the attributes of an op are called; they become s and t of its row. */
type Unary<A> = Op<[x: GpuArray], A>;

function unary<A>(name: keyof typeof rows, scalars: (attrs: A) => [s: number, t?: number] = () => [0]): Unary<A> {
  const row: Row = rows[name];
  const keeps = row.keeps ?? 'x';
  return {
    name,
    forward(gpu, [x], attrs) {
      wantFloats(name, { x });
      const [s, t = 0] = scalars(attrs);
      if (typeof s !== 'number' || typeof t !== 'number') throw shapeError(name, `${s} is no number`, { x });
      if (name === 'clamp' && !(s <= t)) throw shapeError(name, `min is ${s}, max is ${t}`, { x });
      const y = map(gpu, row.y, [x], { s, t });
      return { output: y, saved: keeps === 'x' ? [x] : keeps === 'y' ? [y] : [] };
    },
    backward(gpu, dy, saved, attrs) {
      const [s, t = 0] = scalars(attrs);
      return [row.dx === 'a' ? dy.view() : map(gpu, row.dx, [dy, ...saved], { s, t })];
    },
    reference([x], attrs) {
      const [s, t = 0] = scalars(attrs);
      return hostArray(
        x.shape,
        x.data.map((v) => row.js(v, s, t)),
      );
    },
  };
}

export const neg = unary('neg');
export const abs = unary('abs');
export const square = unary('square');
export const sqrt = unary('sqrt');
export const rsqrt = unary('rsqrt');
export const reciprocal = unary('reciprocal');
export const exp = unary('exp');
export const log = unary('log');
export const sin = unary('sin');
export const cos = unary('cos');
const erfOp = unary('erf');
export { erfOp as erf };
const sigmoidOp = unary('sigmoid');
export { sigmoidOp as sigmoid };
export const tanh = unary('tanh');
export const relu = unary('relu');
export const leakyRelu = unary<{ slope: number }>('leakyRelu', ({ slope }) => [slope]);
export const silu = unary('silu');
export const quickGelu = unary('quickGelu');
export const gelu = unary('gelu');
export const geluTanh = unary('geluTanh');
export const softplus = unary('softplus');
export const mish = unary('mish');
export const powScalar = unary<{ exponent: number }>('powScalar', ({ exponent }) => [exponent]);
export const clamp = unary<{ min: number; max: number }>('clamp', ({ min, max }) => [min, max]);
export const addScalar = unary<{ s: number }>('addScalar', ({ s }) => [s]);
export const mulScalar = unary<{ s: number }>('mulScalar', ({ s }) => [s]);
