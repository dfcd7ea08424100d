import * as binary from '../../kernels/binary.ts';
import * as unary from '../../kernels/unary.ts';
import { apply, Tensor } from '../tensor.ts';

/** −x */
export const neg = (x: Tensor): Tensor => apply(unary.neg, [x], {});
/** |x| */
export const abs = (x: Tensor): Tensor => apply(unary.abs, [x], {});
/** x² */
export const square = (x: Tensor): Tensor => apply(unary.square, [x], {});
/** √x */
export const sqrt = (x: Tensor): Tensor => apply(unary.sqrt, [x], {});
/** 1 / √x */
export const rsqrt = (x: Tensor): Tensor => apply(unary.rsqrt, [x], {});
/** 1 / x */
export const reciprocal = (x: Tensor): Tensor => apply(unary.reciprocal, [x], {});
/** eˣ */
export const exp = (x: Tensor): Tensor => apply(unary.exp, [x], {});
/** ln x */
export const log = (x: Tensor): Tensor => apply(unary.log, [x], {});
/** sin x; NaN for |x| > 2¹⁷, where x − k·π/2 is lost in rounding */
export const sin = (x: Tensor): Tensor => apply(unary.sin, [x], {});
/** cos x; NaN for |x| > 2¹⁷ */
export const cos = (x: Tensor): Tensor => apply(unary.cos, [x], {});
/** The error function 2/√π ∫₀ˣ e^(−t²) dt */
export const erf = (x: Tensor): Tensor => apply(unary.erf, [x], {});
/** 1 / (1 + e⁻ˣ) */
export const sigmoid = (x: Tensor): Tensor => apply(unary.sigmoid, [x], {});
/** tanh x */
export const tanh = (x: Tensor): Tensor => apply(unary.tanh, [x], {});
/** max(x, 0) */
export const relu = (x: Tensor): Tensor => apply(unary.relu, [x], {});
/** x where x > 0, else slope · x */
export const leakyRelu = (x: Tensor, { slope = 0.01 } = {}): Tensor => apply(unary.leakyRelu, [x], { slope });
/** x · sigmoid(x), also called swish */
export const silu = (x: Tensor): Tensor => apply(unary.silu, [x], {});
/** x · sigmoid(1.702 x): the GELU of OpenAI's CLIP */
export const quickGelu = (x: Tensor): Tensor => apply(unary.quickGelu, [x], {});
/** x · Φ(x), with Φ by the error function, or `approximate: 'tanh'` */
export function gelu(x: Tensor, { approximate = 'none' as 'none' | 'tanh' } = {}): Tensor {
  if (approximate !== 'none' && approximate !== 'tanh')
    throw new TypeError(`gelu: there is no approximation '${approximate as string}'\n  known: none tanh`);
  return apply(approximate === 'tanh' ? unary.geluTanh : unary.gelu, [x], {});
}
/** ln(1 + eˣ) */
export const softplus = (x: Tensor): Tensor => apply(unary.softplus, [x], {});
/** x · tanh(softplus(x)) */
export const mish = (x: Tensor): Tensor => apply(unary.mish, [x], {});
/** x between `min` and `max`; no gradient outside */
export const clamp = (x: Tensor, { min = -Infinity, max = Infinity }: { min?: number; max?: number } = {}): Tensor =>
  apply(unary.clamp, [x], { min, max });

type Operand = Tensor | number;

/** a + b; shapes broadcast as in NumPy, and either may be a number */
export function add(a: Operand, b: Operand): Tensor {
  if (typeof b === 'number') return apply(unary.addScalar, [tensorOf('add', a)], { s: b });
  return typeof a === 'number' ? add(b, a) : apply(binary.add, [a, b], {});
}
/** a − b */
export function sub(a: Operand, b: Operand): Tensor {
  if (typeof b === 'number') return add(a, -b);
  return typeof a === 'number' ? add(neg(b), a) : apply(binary.sub, [a, b], {});
}
/** a · b, element by element */
export function mul(a: Operand, b: Operand): Tensor {
  if (typeof b === 'number') return apply(unary.mulScalar, [tensorOf('mul', a)], { s: b });
  return typeof a === 'number' ? mul(b, a) : apply(binary.mul, [a, b], {});
}
/** a / b */
export function div(a: Operand, b: Operand): Tensor {
  if (typeof b === 'number') return mul(a, 1 / b);
  return typeof a === 'number' ? mul(reciprocal(b), a) : apply(binary.div, [a, b], {});
}
/** aᵇ; NaN for a negative a unless b is a whole number */
export const pow = (a: Tensor, b: Operand): Tensor =>
  typeof b !== 'number'
    ? apply(binary.pow, [a, b], {})
    : b === 2
      ? square(a)
      : apply(unary.powScalar, [a], { exponent: b });
/** The larger of a and b */
export const maximum = (a: Tensor, b: Tensor): Tensor => apply(binary.maximum, [a, b], {});
/** The smaller of a and b */
export const minimum = (a: Tensor, b: Tensor): Tensor => apply(binary.minimum, [a, b], {});
/** x + s · y in one pass: Euler steps, residuals, mixing */
export const addScaled = (x: Tensor, y: Tensor, { s }: { s: number }): Tensor => apply(binary.addScaled, [x, y], { s });
/** a where the condition (i32 or f32) is not 0, else b */
export const where = (condition: Tensor, a: Tensor, b: Tensor): Tensor => apply(binary.where, [condition, a, b], {});

function tensorOf(op: string, x: Operand): Tensor {
  if (typeof x === 'number')
    throw new TypeError(`${op}: one operand must be a tensor\n  use plain arithmetic for two numbers`);
  return x;
}
