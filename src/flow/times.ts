/** At which times t ∈ [0, 1) a flow is trained. All are floats: the network's timestep is 1000·(1 − t), not rounded. */
import { wantWhole } from '../kernels/index.ts';
import { normal, uniform } from '../tensor/random.ts';

/** How times are distributed, by the names of `--t_dist`. */
export const timeDistributions = ['uniform', 'u-shaped', 'logit-normal', 'k-grid', 'zero'] as const;
/** One of `timeDistributions`. */
export type TimeDistribution = (typeof timeDistributions)[number];

/** A distribution of times with its numbers. */
export interface TimeOptions {
  distribution: TimeDistribution;
  /** u-shaped: how steep the two ends are (4). */
  steepness?: number;
  /** logit-normal: mean and deviation of ln(t / (1 − t)) (0, 1). */
  mean?: number;
  std?: number;
  /** k-grid: how many pieces (1: t = 0 alone). */
  steps?: number;
}

/**
 * From u, uniform on [0, 1), to times; the other way round for logit-normal, whose quantiles have no closed form.
 *
 *     uniform    t = u
 *     u-shaped   p(t) ∝ e^{at} + e^{a(1−t)}        t = ½ + asinh(2 sinh(a/2) (u − ½)) / a
 *     k-grid     t = ⌊k u⌋ / k ∈ {0, 1/k, …, (k−1)/k}
 *     zero       t = 0
 *
 * @see Lee et al. 2024, Improving the Training of Rectified Flows, §4.2: u-shaped, a = 4. https://arxiv.org/abs/2405.20320
 * @see Liu et al. 2022, Flow Straight and Fast, §2.2: the grid, for distillation to k steps. https://arxiv.org/abs/2209.03003
 */
export function quantile({ distribution, steepness: a = 4, steps = 1 }: TimeOptions, u: number): number {
  switch (distribution) {
    case 'uniform':
      return Math.min(u, LATEST);
    case 'u-shaped':
      if (!(a > 0 && a < 700)) throw new RangeError(`times: steepness is ${a}, must be above 0 and below 700`);
      return Math.min(Math.max(0.5 + Math.asinh(2 * Math.sinh(a / 2) * (u - 0.5)) / a, 0), LATEST);
    case 'k-grid':
      wantWhole('times', 'steps', steps, 1);
      return Math.floor(u * steps) / steps;
    case 'zero':
      return 0;
    default:
      throw new RangeError(`times: ${distribution} has no quantiles\n  known: ${timeDistributions.join(' ')}`);
  }
}

/** The last f32 below 1: at t = 1 the path has no way left. */
const LATEST = 1 - 2 ** -24;

/**
 * Times for the B samples of a step: a function of seed, stream and step alone.   → [B]
 *
 * Those with quantiles are spread: uᵢ = frac(u + i / B), each by itself as distributed, and together they cover the path.
 * logit-normal draws each: t = 1 / (1 + e^{−(mean + std·n)}), n ~ N(0, 1).
 *
 * @see Esser et al. 2024, Scaling Rectified Flow Transformers, §3.1: logit-normal. https://arxiv.org/abs/2403.03206
 */
export function drawTimes(
  options: TimeOptions,
  seed: number,
  stream: string,
  step: number,
  batch: number,
): Float32Array {
  if (options.distribution === 'logit-normal') {
    const { mean = 0, std = 1 } = options;
    if (!(Number.isFinite(mean) && std > 0 && std < Infinity))
      throw new RangeError(`times: mean must be a number and std above 0\n  mean  ${mean}\n  std   ${std}`);
    const drawn = normal(seed, stream, batch, step * batch);
    return drawn.map((n) => Math.min(1 / (1 + Math.exp(-(mean + std * n))), LATEST));
  }
  const [u] = uniform(seed, stream, 1, step);
  return Float32Array.from({ length: batch }, (_, i) => quantile(options, (u + i / batch) % 1));
}
