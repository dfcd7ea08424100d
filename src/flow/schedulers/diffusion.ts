/** What the schedulers of variance-preserving diffusions share: x_t = √ᾱ_t · image + √(1 − ᾱ_t) · noise. */
import { clamp } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { trainingFields } from './config.ts';
import type { Config } from './config.ts';
import { combineSamples, imageMix, mixed } from './mix.ts';
import { NoiseSchedule } from './noise-schedule.ts';
import type { NoiseScheduleConfig } from './noise-schedule.ts';
import { Scheduler } from './scheduler.ts';
import { roundHalfEven, spaced } from './spacing.ts';

/** What every configuration of a diffusion says. */
export type DiffusionConfig = Omit<Config<typeof trainingFields>, 'trained_betas'> &
  NoiseScheduleConfig & { clip_sample?: boolean; clip_sample_range?: number; set_alpha_to_one?: boolean };

/** A scheduler with a table of ᾱ. */
export abstract class DiffusionScheduler<C extends DiffusionConfig = DiffusionConfig> extends Scheduler {
  /** How much noise each training timestep holds. */
  readonly schedule: NoiseSchedule;

  constructor(readonly config: C) {
    super();
    this.schedule = new NoiseSchedule(config);
  }

  /** The timesteps by `timestep_spacing`, rounded. */
  protected spaced(steps: number): readonly number[] {
    const { timestep_spacing, num_train_timesteps, steps_offset } = this.config;
    this.wantSteps(steps);
    return this.wantTimesteps(spaced(timestep_spacing, steps, num_train_timesteps, steps_offset).map(roundHalfEven));
  }

  /** @throws RangeError unless there are as many training timesteps */
  protected wantSteps(steps: number, least = 1, most = this.config.num_train_timesteps): void {
    if (!(Number.isInteger(steps) && steps >= least && steps <= most))
      throw new RangeError(`${this.name}: steps is ${steps}, must be a whole number from ${least} to ${most}`);
  }

  /** @throws RangeError when one was never trained */
  protected wantTimesteps(timesteps: readonly number[]): readonly number[] {
    const { num_train_timesteps: total, steps_offset } = this.config;
    const most = Math.max(...timesteps);
    if (most < total) return timesteps;
    throw new RangeError(
      `${this.name}: a timestep is ${most}, and ${total - 1} is the last\n  steps_offset  ${steps_offset}\n  take fewer steps`,
    );
  }

  /** Training timesteps from one step to the next. */
  protected get stride(): number {
    return Math.floor(this.config.num_train_timesteps / this.timesteps.length);
  }

  /** ᾱ at a timestep, also before the first: 1, or what it is at timestep 0 when `set_alpha_to_one` is false. */
  protected abar(t: number): number {
    return t >= 0
      ? this.schedule.alphasCumprod[t]
      : this.config.set_alpha_to_one === false
        ? this.schedule.alphasCumprod[0]
        : 1;
  }

  predictOriginal(modelOutput: Tensor, t: number, sample: Tensor): Tensor {
    const { prediction_type, clip_sample, clip_sample_range: range = 1 } = this.config;
    this.wantAlike('predictOriginal', sample, modelOutput);
    this.wantTimestep(t);
    const image = mixed(imageMix(prediction_type, this.schedule.scales(t)), sample, modelOutput);
    if (!clip_sample) return image;
    using unclipped = image;
    return clamp(unclipped, { min: -range, max: range });
  }

  addNoise(original: Tensor, noise: Tensor, t: number | readonly number[]): Tensor {
    this.wantAlike('noise', original, noise);
    const scales = [t].flat().map((at) => (this.wantTimestep(at), this.schedule.scales(at)));
    return combineSamples([scales.map(({ alpha }) => alpha), original], [scales.map(({ sigma }) => sigma), noise]);
  }

  /**
   * What a network with `v_prediction` learns:  v = √ᾱ · noise − √(1 − ᾱ) · image.   original, noise: [B, …] → [B, …]
   * @see Salimans & Ho 2022, Progressive Distillation, §4. https://arxiv.org/abs/2202.00512
   */
  getVelocity(original: Tensor, noise: Tensor, t: number | readonly number[]): Tensor {
    this.wantAlike('noise', original, noise);
    const scales = [t].flat().map((at) => (this.wantTimestep(at), this.schedule.scales(at)));
    return combineSamples([scales.map(({ alpha }) => alpha), noise], [scales.map(({ sigma }) => -sigma), original]);
  }

  private wantTimestep(t: number): void {
    const last = this.schedule.length - 1;
    if (!(Number.isInteger(t) && t >= 0 && t <= last))
      throw new RangeError(`${this.name}: timestep is ${t}, must be a whole number from 0 to ${last}`);
  }
}
