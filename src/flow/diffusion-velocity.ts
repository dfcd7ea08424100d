/**
 * A network of a diffusion as the velocity of a rectified flow: exact, without training. The teacher of reflow from Stable
 * Diffusion, and an oracle for solvers.
 *
 *     x_k = α image + σ noise,  α = √ᾱ_k, σ = √(1 − ᾱ_k)          x_k / (α + σ) = t image + (1 − t) noise,  t = α / (α + σ)
 *     v(z, t) = image − noise = (z − ε((α + σ) z, k)) / t
 *
 * So a diffusion knows the flow from its noisiest timestep (t = 0.064 in Stable Diffusion) to its cleanest (t = 0.972). Between
 * timesteps, k is what has the noise per image σ/α = (1 − t)/t, by ln σ; beyond the two ends, the end's own k and t.
 *
 * @see Karras et al. 2022, eq. 4, for the scaling of paths that this is one of. https://arxiv.org/abs/2206.00364
 */
import { mul, scope } from '../tensor/index.ts';
import type { Tensor } from '../tensor/index.ts';
import type { PredictionType } from './schedulers/config.ts';
import { combine, noiseMix } from './schedulers/mix.ts';
import type { NoiseSchedule } from './schedulers/noise-schedule.ts';
import { timestepOfSigma } from './schedulers/spacing.ts';

/** Times of the flow at which a timestep of the diffusion stands: t = √ᾱ / (√ᾱ + √(1 − ᾱ)). */
export function flowTimeOf(timestep: number, schedule: NoiseSchedule): number {
  const { alpha, sigma } = schedule.scales(timestep);
  return alpha / (alpha + sigma);
}

/** The timestep, not rounded, that stands at time t of the flow; the first or last one beyond the ends. */
export function diffusionTimestepOf(t: number, schedule: NoiseSchedule): number {
  return timestepOfSigma(Math.max((1 - t) / t, schedule.sigmas[0]), schedule.sigmas);
}

/**
 * The velocity that a network of a diffusion implies. What else the network is given (text) is passed on.
 * network: (x: [B, …], timestep, …) → [B, …];  result: (z: [B, …], t, …) → [B, …]
 */
export function velocityOfDiffusion<Rest extends readonly unknown[]>(
  network: (x: Tensor, timestep: number, ...rest: Rest) => Tensor,
  schedule: NoiseSchedule,
  predictionType: PredictionType = 'epsilon',
): (z: Tensor, t: number, ...rest: Rest) => Tensor {
  const earliest = flowTimeOf(schedule.length - 1, schedule),
    latest = flowTimeOf(0, schedule);
  return (z, t, ...rest) => {
    if (!(t >= 0 && t <= 1)) throw new RangeError(`velocityOfDiffusion: t is ${t}, must be from 0 to 1`);
    const held = Math.min(Math.max(t, earliest), latest);
    const size = Math.hypot(held, 1 - held);
    const scales = { alpha: held / size, sigma: (1 - held) / size };
    const [sample, share] = noiseMix(predictionType, scales);
    return scope(() => {
      const output = network(mul(z, 1 / size), diffusionTimestepOf(held, schedule), ...rest);
      return combine([(1 - sample / size) / held, z], [-share / held, output]);
    });
  };
}
