import type { Tensor } from '../../tensor/index.ts';
import { clipFields, oneOf, trainingFields } from './config.ts';
import type { Config } from './config.ts';
import { DiffusionScheduler } from './diffusion.ts';
import { combine } from './mix.ts';
import type { StepOptions } from './scheduler.ts';

/** Fields of DDPMScheduler. */
export const ddpmFields = {
  ...trainingFields,
  ...clipFields,
  variance_type: oneOf('fixed_small', ['fixed_small', 'fixed_small_log', 'fixed_large']),
};

/**
 * Ancestral sampling: the mean of the posterior, and fresh noise.
 *
 *     x_s = √ᾱ_s β / (1 − ᾱ_t) · x0 + √(1 − β) (1 − ᾱ_s) / (1 − ᾱ_t) · x_t + std · noise
 *     β = 1 − ᾱ_t / ᾱ_s        std² = (1 − ᾱ_s) / (1 − ᾱ_t) · β, or β when variance_type is fixed_large
 *
 * @see Ho et al. 2020, Denoising Diffusion Probabilistic Models, eq. 7. https://arxiv.org/abs/2006.11239
 */
export class DDPMScheduler extends DiffusionScheduler<Config<typeof ddpmFields>> {
  readonly name = 'DDPMScheduler';

  protected advance(modelOutput: Tensor, index: number, sample: Tensor, options: StepOptions): Tensor {
    const t = this.timesteps[index];
    const abar = this.abar(t),
      before = this.abar(t - this.stride);
    const beta = 1 - abar / before;
    const small = Math.max(((1 - before) / (1 - abar)) * beta, 1e-20);
    const deviation = Math.sqrt(this.config.variance_type === 'fixed_large' ? beta : small);
    const original = this.predictOriginal(modelOutput, t, sample);
    return combine(
      [(Math.sqrt(before) * beta) / (1 - abar), original],
      [(Math.sqrt(1 - beta) * (1 - before)) / (1 - abar), sample],
      ...(t > 0 ? [[deviation, this.draw(options, sample)] as const] : []),
    );
  }
}
