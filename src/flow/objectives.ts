/** What a student learns from pairs (x0, x1): where on their paths it is asked, and how wrong its answers are. */
import { mul, reshape, tensor } from '../tensor/index.ts';
import type { Tensor } from '../tensor/index.ts';
import type { LatentShape } from './latents.ts';
import type { FlowLoss } from './losses.ts';
import { pathPoints } from './rectified-flow.ts';
import type { PredictionType } from './schedulers/config.ts';
import type { NoiseSchedule } from './schedulers/noise-schedule.ts';
import { drawTimes } from './times.ts';
import type { TimeOptions } from './times.ts';

/** Batches for a recorded step, and its loss. */
export interface Objective {
  /** x0, x1: [B, h, w, C] on the host. A function of them and of the step alone, in the same shapes each time. */
  points(x0: Float32Array, x1: Float32Array, step: number): Points;
  /** Of what the network makes of `sample` at the times of `waves`: [B, h, w, C] → one number. */
  loss(output: Tensor, points: Points): Tensor;
}

/** sample [B, h, w, C], waves [B, W]; then what the loss compares with: xt, target [B, h, w, C], left [B], share [B]. */
export type Points = readonly [sample: Tensor, waves: Tensor, xt: Tensor, target: Tensor, left: Tensor, share: Tensor];

/** What all objectives are told. */
export interface ObjectiveOptions {
  shape: LatentShape;
  times: TimeOptions;
  loss: FlowLoss;
  /** Of the times that are drawn. */
  seed: number;
  stream: string;
  /** The network's own: [B] timesteps → [B, W]. */
  timeWaves(timesteps: readonly number[]): Tensor;
}

/**
 * Reflow, and with the times of a grid distillation to k steps: the network is asked for the velocity x1 − x0.
 *
 *     min E loss(v(xt, t), x1 − x0)        xt = t·x1 + (1 − t)·x0
 *
 * On a straight path the target is the same for every piece of it, so a grid {0, 1/k, …} makes steps of 1/k.
 * @see Liu et al. 2022, Flow Straight and Fast, eq. 1 and §2.2. https://arxiv.org/abs/2209.03003
 */
export function velocityObjective({ shape, times, loss, seed, stream, timeWaves }: ObjectiveOptions): Objective {
  return {
    points(x0, x1, step) {
      const B = x0.length / (shape[0] * shape[1] * shape[2]);
      const t = drawTimes(times, seed, stream, step, B);
      const { xt, target, timesteps } = pathPoints(x0, x1, t);
      const all = [B, ...shape];
      const [sample, ones] = [tensor(xt, all), new Float32Array(B).fill(1)];
      return [
        sample,
        timeWaves([...timesteps]),
        sample,
        tensor(target, all),
        tensor(t.map((x) => 1 - x)),
        tensor(ones),
      ];
    },
    loss: (output, [, , xt, target, left]) => loss(output, { xt, target, left }),
  };
}

/**
 * Rectified diffusion: the network stays one of a diffusion, and learns the image of each pair from any point of its
 * curved path. What it is held to is x̂1, so it needs no straight path and no new meaning of its output.
 *
 *     min E loss(x̂1, x1)        x_k = α_k x1 + σ_k x0        x̂1 = x_k / α_k − (σ_k / α_k) ε(x_k, k)
 *
 * Times are turned into timesteps by k = K − 1 − ⌊K t⌋, so that t = 0 is the noisiest.
 * @see Wang et al. 2024, Rectified Diffusion, §3.2. https://arxiv.org/abs/2410.07303
 */
export function imageObjective(
  schedule: NoiseSchedule,
  predictionType: Exclude<PredictionType, 'sample'>,
  { shape, times, loss, seed, stream, timeWaves }: ObjectiveOptions,
): Objective {
  const K = schedule.length;
  return {
    points(x0, x1, step) {
      const size = shape[0] * shape[1] * shape[2];
      const B = x0.length / size;
      const steps = [...drawTimes(times, seed, stream, step, B)].map((t) => K - 1 - Math.floor(K * t));
      // x̂1 = base + share · output, which stands for xt + (1 − t) v with nothing else left to go.
      const [sample, base, rest] = [0, 1, 2].map(() => new Float32Array(x0.length));
      const share = new Float32Array(B);
      steps.forEach((k, b) => {
        const { alpha, sigma } = schedule.scales(k);
        const isEpsilon = predictionType === 'epsilon';
        share[b] = isEpsilon ? -sigma / alpha : -sigma;
        for (let i = b * size; i < (b + 1) * size; i++) {
          sample[i] = alpha * x1[i] + sigma * x0[i];
          base[i] = isEpsilon ? sample[i] / alpha : alpha * sample[i];
          rest[i] = x1[i] - base[i];
        }
      });
      const all = [B, ...shape];
      const left = tensor(new Float32Array(B).fill(1));
      return [tensor(sample, all), timeWaves(steps), tensor(base, all), tensor(rest, all), left, tensor(share)];
    },
    loss: (output, [, , xt, target, left, share]) =>
      loss(mul(output, reshape(share, [-1, 1, 1, 1])), { xt, target, left }),
  };
}
