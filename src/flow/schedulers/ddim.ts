import type { Tensor } from '../../tensor/index.ts';
import { clipFields, flag, trainingFields } from './config.ts';
import type { Config } from './config.ts';
import { DiffusionScheduler } from './diffusion.ts';
import { combine, noiseMix } from './mix.ts';
import type { StepOptions } from './scheduler.ts';

/** Fields of DDIMScheduler. */
export const ddimFields = {
  ...trainingFields,
  ...clipFields,
  set_alpha_to_one: flag(true),
  rescale_betas_zero_snr: flag(false),
};

/**
 * The same marginals as DDPM, with as much fresh noise as `eta` says: none makes it a deterministic first-order solver.
 *
 *     x_s = √ᾱ_s · x0 + √(1 − ᾱ_s − std²) · ε + std · noise
 *     std² = η² (1 − ᾱ_s) / (1 − ᾱ_t) · (1 − ᾱ_t / ᾱ_s)
 *
 * @see Song et al. 2020, Denoising Diffusion Implicit Models, eq. 12 and 16. https://arxiv.org/abs/2010.02502
 */
export class DDIMScheduler extends DiffusionScheduler<Config<typeof ddimFields>> {
  readonly name = 'DDIMScheduler';

  protected advance(modelOutput: Tensor, index: number, sample: Tensor, options: StepOptions): Tensor {
    const { eta = 0 } = options;
    const t = this.timesteps[index];
    const abar = this.abar(t),
      before = this.abar(t - this.stride);
    const deviation = eta * Math.sqrt(((1 - before) / (1 - abar)) * (1 - abar / before));
    const direction = Math.sqrt(1 - before - deviation ** 2);
    const epsilon = noiseMix(this.config.prediction_type, this.schedule.scales(t));
    return combine(
      [Math.sqrt(before), this.predictOriginal(modelOutput, t, sample)],
      [direction * epsilon[0], sample],
      [direction * epsilon[1], modelOutput],
      ...(eta > 0 ? [[deviation, this.draw(options, sample)] as const] : []),
    );
  }
}
