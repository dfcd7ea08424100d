import * as ops from '../../kernels/reduce.ts';
import type { Axes } from '../../kernels/reduce.ts';
import * as softmaxOps from '../../kernels/softmax.ts';
import { shapeError } from '../../kernels/index.ts';
import { apply, Tensor } from '../tensor.ts';
import { abs, div, mul, sqrt, square, sub, add, pow } from './elementwise.ts';

/** Sum over `axes` (all when absent). `keepdim` leaves the axes in place with size 1. */
export const sum = (x: Tensor, attrs: Axes = {}): Tensor => apply(ops.sum, [x], attrs);
/** Mean over `axes`. */
export const mean = (x: Tensor, attrs: Axes = {}): Tensor => apply(ops.mean, [x], attrs);
/** Largest over `axes`; equals share the gradient. */
export const max = (x: Tensor, attrs: Axes = {}): Tensor => apply(ops.max, [x], attrs);
/** Smallest over `axes`; equals share the gradient. */
export const min = (x: Tensor, attrs: Axes = {}): Tensor => apply(ops.min, [x], attrs);
/** The place of the first largest number along `axis`, i32; of the first NaN where there is one. No gradient. */
export const argmax = (x: Tensor, { axis = -1 } = {}): Tensor => apply(ops.argmax, [x], { axis });

/** Mean squared distance from the mean; `unbiased` divides by count − 1. */
export function variance(
  x: Tensor,
  { axes, keepdim = false, unbiased = true }: Axes & { unbiased?: boolean } = {},
): Tensor {
  const { count } = ops.resolveAxes('var', x.shape, { axes });
  const centred = square(sub(x, mean(x, { axes, keepdim: true })));
  return unbiased ? mul(sum(centred, { axes, keepdim }), 1 / Math.max(0, count - 1)) : mean(centred, { axes, keepdim });
}
/** √variance */
export const std = (x: Tensor, attrs: Axes & { unbiased?: boolean } = {}): Tensor => sqrt(variance(x, attrs));

/** (Σ |x|^ord)^(1/ord) over `axes`; max |x| for ord = ∞. */
export function norm(x: Tensor, { ord = 2, ...axes }: Axes & { ord?: number } = {}): Tensor {
  if (!(ord > 0)) throw shapeError('norm', `ord is ${ord}, must be above 0`, { x });
  if (ord === Infinity) return max(abs(x), axes);
  if (ord === 1) return sum(abs(x), axes);
  if (ord === 2) return sqrt(sum(square(x), axes));
  return pow(sum(pow(abs(x), ord), axes), 1 / ord);
}
/** x / √(Σ x² + eps²) along `axis`. */
export const l2Normalize = (x: Tensor, { axis = -1, eps = 1e-12 } = {}): Tensor =>
  div(x, sqrt(add(sum(square(x), { axes: [axis], keepdim: true }), eps * eps)));

/** eˣ / Σ eˣ along `axis`. */
export const softmax = (x: Tensor, { axis = -1 } = {}): Tensor => apply(softmaxOps.softmax, [x], { axis });
/** x − ln Σ eˣ along `axis`. */
export const logSoftmax = (x: Tensor, { axis = -1 } = {}): Tensor => apply(softmaxOps.logSoftmax, [x], { axis });
/** ln Σ eˣ along `axis`. */
export const logsumexp = (x: Tensor, { axis = -1, keepdim = false } = {}): Tensor =>
  apply(softmaxOps.logsumexp, [x], { axis, keepdim });
