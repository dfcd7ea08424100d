/** A diffusion whose best network is a formula. */
import { mul, sub } from '../src/tensor/index.ts';
import { createScheduler, NoiseSchedule } from '../src/flow/schedulers/index.ts';
import type { Denoiser, Scheduler } from '../src/flow/schedulers/index.ts';
import { interpolate } from '../src/flow/schedulers/spacing.ts';

/** What Stable Diffusion was trained with. */
export const trained = { num_train_timesteps: 1000, beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'scaled_linear' } as const; // prettier-ignore
/** A scheduler of such a diffusion. */
export const make = (_class_name: string, config: object = {}): Scheduler =>
  createScheduler({ ...trained, clip_sample: false, set_alpha_to_one: false, _class_name, ...config });
export const schedule = new NoiseSchedule(trained);

/** ε of x = α image + σ noise when the image is N(mean, deviation²) in every coordinate. */
export const gaussianNoise =
  (mean: number, deviation: number): Denoiser =>
  (x, t) => {
    const ratio = Math.exp(interpolate(schedule.sigmas.map(Math.log), t));
    const alpha = 1 / Math.hypot(1, ratio);
    const noise = ratio * alpha;
    return mul(sub(x, alpha * mean), noise / (alpha ** 2 * deviation ** 2 + noise ** 2));
  };
