import type { Tensor } from '../../tensor/index.ts';
import { clipFields, flag, fraction, oneOf, positive, trainingFields, whole } from './config.ts';
import type { Config } from './config.ts';
import { betaSchedules } from './noise-schedule.ts';
import { DiffusionScheduler } from './diffusion.ts';
import { combine } from './mix.ts';
import { scalesOf } from './noise-schedule.ts';
import type { StepOptions } from './scheduler.ts';

/** Fields of LCMScheduler. */
export const lcmFields = {
  ...trainingFields,
  ...clipFields,
  beta_start: fraction(0.00085),
  beta_end: fraction(0.012),
  beta_schedule: oneOf('scaled_linear', betaSchedules),
  clip_sample: flag(false),
  set_alpha_to_one: flag(true),
  rescale_betas_zero_snr: flag(false),
  original_inference_steps: whole(50, 1),
  timestep_scaling: positive(10),
};

/** Deviation of the data that the boundary condition is stated for. */
const DATA_DEVIATION = 0.5;

/**
 * Latent consistency: every step goes all the way to the image, and back up to the next timestep with fresh noise.
 *
 *     x0' = c_out · x0 + c_skip · x_t        c_skip = d² / (τ² + d²),  c_out = τ / √(τ² + d²),  τ = scaling · t,  d = 0.5
 *     x_s = √ᾱ_s · x0' + √(1 − ᾱ_s) · noise;  after the last timestep x0' itself
 *
 * The timesteps are some of those that the network was distilled on. The conventions are diffusers 0.24's: 0.21.4 has none.
 *
 * @see Luo et al. 2023, Latent Consistency Models, §3. https://arxiv.org/abs/2310.04378
 */
export class LCMScheduler extends DiffusionScheduler<Config<typeof lcmFields>> {
  readonly name = 'LCMScheduler';

  protected override spaced(steps: number): readonly number[] {
    const { num_train_timesteps: total, original_inference_steps: distilled } = this.config;
    if (distilled > total)
      throw new RangeError(
        `${this.name}: original_inference_steps is ${distilled}, must be at most num_train_timesteps ${total}`,
      );
    this.wantSteps(steps, 1, distilled);
    const stride = Math.floor(total / distilled);
    return Array.from({ length: steps }, (_, i) => (distilled - Math.floor((i * distilled) / steps)) * stride - 1);
  }

  protected advance(modelOutput: Tensor, index: number, sample: Tensor, options: StepOptions): Tensor {
    const t = this.timesteps[index];
    const scaled = t * this.config.timestep_scaling;
    const size = scaled ** 2 + DATA_DEVIATION ** 2;
    const original = this.predictOriginal(modelOutput, t, sample);
    const last = index === this.timesteps.length - 1;
    const { alpha, sigma } = last ? { alpha: 1, sigma: 0 } : scalesOf(this.abar(this.timesteps[index + 1]));
    return combine(
      [(alpha * scaled) / Math.sqrt(size), original],
      [(alpha * DATA_DEVIATION ** 2) / size, sample],
      ...(last ? [] : [[sigma, this.draw(options, sample)] as const]),
    );
  }
}
