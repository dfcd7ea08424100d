/**
 * What a flow is trained to make small. Sizes of latents: v, target [B, h, w, C]; left [B], the way 1 − t that is left.
 *
 *     l2           mean |v − (x1 − x0)|²
 *     huber        mean √((v − (x1 − x0))² + c²) − c, element by element
 *     lpips        LPIPS(decode(x̂1), decode(x1))         x̂1 = xt + (1 − t) v
 *     lpips_l2     w · lpips + l2
 *     lpips_huber  w · lpips / (1 − t) + t · (√(|v − (x1 − x0)|² + c²) − c) / d, c = 0.00054 d with d numbers in a sample
 *     lpl          mean |φ(x̂1) − φ(x1)|² / |φ(x1)|², φ: features of the decoder
 *     lpl_l2       w · lpl + l2
 *
 * LPIPS looks at images: student and target go through the frozen decoder, and the gradient comes back through it. LPL looks
 * at what the decoder's blocks make on the way, and so needs no other network.
 * Near the image x̂1 is right whatever v is; the division by 1 − t makes up for that.
 *
 * @see Liu et al. 2023, InstaFlow, §3.2: l2, then lpips. https://arxiv.org/abs/2309.06380
 * @see Luo et al. 2023, Latent Consistency Models, `huber_c` of the training script. https://arxiv.org/abs/2310.04378
 * @see Berrada et al. 2024, Boosting Latent Diffusion with Perceptual Objectives: lpl. https://arxiv.org/abs/2411.04873
 * @see Lee et al. 2024, Improving the Training of Rectified Flows, §4.3: LPIPS-Huber-1/t. https://arxiv.org/abs/2405.20320
 */
import { add, div, mean, mse, mul, pseudoHuber, reshape, sqrt, sub, sum } from '../tensor/index.ts';
import type { Tensor } from '../tensor/index.ts';
import { flowLoss } from './rectified-flow.ts';

/** Losses by the names of `--loss_type`. */
export const lossTypes = ['l2', 'huber', 'lpips', 'lpips_l2', 'lpips_huber', 'lpl', 'lpl_l2'] as const;
/** One of `lossTypes`. */
export type LossType = (typeof lossTypes)[number];

/** A loss with its numbers. */
export interface LossOptions {
  type: LossType;
  /** c of huber (0.001), in the unit of the velocity; and of lpips_huber (0.00054 d), in that of a sample's norm. */
  huberC?: number;
  /** w of lpips or lpl where it is one of two (1). */
  lpipsWeight?: number;
}

/** How different two latents look: [B, h, w, C] each → [B]. */
export type LatentDistance = (z: Tensor, target: Tensor) => Tensor;

/** What a loss is told of a batch. */
export interface FlowPoints {
  xt: Tensor; // [B, h, w, C]
  target: Tensor; // [B, h, w, C], x1 − x0
  left: Tensor; // [B], 1 − t
}

/** v: [B, h, w, C] → one number */
export type FlowLoss = (v: Tensor, points: FlowPoints) => Tensor;

/** Does it look through the decoder? */
export const isPerceptual = (type: LossType): boolean => type.startsWith('lp');

/** Does it need the weights of LPIPS too? */
export const wantsLpips = (type: LossType): boolean => type.startsWith('lpips');

/** Of a division by 1 − t. */
const LEAST_LEFT = 1e-5;

/**
 * The loss by its name. `distance` is for those that look through the decoder: `decodedDistance` for LPIPS, `decoderDistance` for LPL.
 * @throws RangeError for numbers that make no sense, and when a perceptual loss has no distance
 */
export function makeLoss({ type, huberC, lpipsWeight = 1 }: LossOptions, distance?: LatentDistance): FlowLoss {
  if (!lossTypes.includes(type))
    throw new RangeError(`makeLoss: there is no loss ${type}\n  known: ${lossTypes.join(' ')}`);
  if (huberC !== undefined && !(huberC > 0 && huberC < Infinity))
    throw new RangeError(`makeLoss: huberC is ${huberC}, must be above 0`);
  if (!(lpipsWeight >= 0 && lpipsWeight < Infinity))
    throw new RangeError(`makeLoss: lpipsWeight is ${lpipsWeight}, must be 0 or more`);
  if (type === 'l2') return (v, { target }) => flowLoss(v, target);
  if (type === 'huber') return (v, { target }) => pseudoHuber(v, target, { c: huberC ?? 0.001 });
  if (!distance) throw new RangeError(`makeLoss: ${type} compares images\n  give it a distance of decoded latents`);
  const perceptual = (v: Tensor, { xt, target, left }: FlowPoints) => {
    const way = reshape(left, [-1, 1, 1, 1]);
    return distance(add(xt, mul(way, v)), add(xt, mul(way, target)));
  };
  if (type === 'lpips' || type === 'lpl') return (v, points) => mean(perceptual(v, points));
  if (type === 'lpips_l2' || type === 'lpl_l2')
    return (v, points) => add(mul(mean(perceptual(v, points)), lpipsWeight), mse(v, points.target));
  return (v, points) => {
    const { target, left } = points;
    const near = mul(sampleHuber(v, target, huberC), sub(1, left));
    const seen = div(perceptual(v, points), add(left, LEAST_LEFT));
    return mean(add(mul(seen, lpipsWeight), near));
  };
}

/** (√(|v − target|² + c²) − c) / d for each sample.   [B, …] → [B] */
function sampleHuber(v: Tensor, target: Tensor, huberC?: number): Tensor {
  const [B, ...shape] = v.shape;
  const d = shape.reduce((n, side) => n * side, 1);
  const c = huberC ?? 0.00054 * d;
  const squares = sum(reshape(mse(v, target, { reduction: 'none' }), [B, d]), { axes: [1] });
  return mul(sub(sqrt(add(squares, c * c)), c), 1 / d);
}
