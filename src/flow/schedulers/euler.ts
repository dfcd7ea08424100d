import { mul } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { flag, oneOf, trainingFields } from './config.ts';
import type { Config } from './config.ts';
import { DiffusionScheduler } from './diffusion.ts';
import type { DiffusionConfig } from './diffusion.ts';
import { combine, combineSamples, mixed } from './mix.ts';
import type { Mix } from './mix.ts';
import type { StepOptions } from './scheduler.ts';
import { interpolate, karrasSigmas, linspace, roundHalfEven, spaced, spacings, timestepOfSigma } from './spacing.ts';

/** Fields of EulerDiscreteScheduler. */
export const eulerFields = {
  ...trainingFields,
  interpolation_type: oneOf('linear', ['linear', 'log_linear']),
  use_karras_sigmas: flag(false),
  timestep_spacing: oneOf('linspace', spacings),
};

/** Fields of EulerAncestralDiscreteScheduler. */
export const eulerAncestralFields = {
  ...trainingFields,
  prediction_type: oneOf('epsilon', ['epsilon', 'v_prediction']),
  timestep_spacing: oneOf('linspace', spacings),
};

type SigmaConfig = DiffusionConfig & { interpolation_type?: 'linear' | 'log_linear'; use_karras_sigmas?: boolean };

/**
 * Samples that keep the image at its own scale: x = image + σ · noise, σ = √((1 − ᾱ) / ᾱ). The network wants variance 1:
 * `scaleModelInput` divides by √(σ² + 1).
 */
abstract class SigmaScheduler<C extends SigmaConfig> extends DiffusionScheduler<C> {
  /** σ at each of `timesteps`, and at last 0. */
  sigmas: readonly number[] = [];

  override get initNoiseSigma(): number {
    const most = Math.max(...(this.sigmas.length ? this.sigmas : this.schedule.sigmas));
    return this.config.timestep_spacing === 'leading' ? Math.sqrt(most ** 2 + 1) : most;
  }

  protected override spaced(steps: number): readonly number[] {
    const { timestep_spacing, num_train_timesteps, steps_offset, interpolation_type, use_karras_sigmas } = this.config;
    const { sigmas } = this.schedule;
    this.wantSteps(steps);
    const even = spaced(timestep_spacing, steps, num_train_timesteps, steps_offset);
    const timesteps = this.wantTimesteps(timestep_spacing === 'linspace' ? even : even.map(roundHalfEven));
    let chosen = timesteps.map((t) => interpolate(sigmas, t));
    if (interpolation_type === 'log_linear')
      chosen = linspace(Math.log(sigmas.at(-1)!), Math.log(sigmas[0]), steps + 1).map(Math.exp);
    if (use_karras_sigmas) chosen = karrasSigmas(chosen[0], chosen.at(-1)!, steps);
    this.sigmas = [...chosen, 0];
    return use_karras_sigmas ? chosen.map((sigma) => timestepOfSigma(sigma, sigmas)) : timesteps;
  }

  override scaleModelInput(sample: Tensor, t: number): Tensor {
    return mul(sample, 1 / Math.sqrt(this.sigmas[this.indexOf(t)] ** 2 + 1));
  }

  /** x0 of the sample and the output. */
  protected originalMix(index: number): Mix {
    const sigma = this.sigmas[index];
    const { prediction_type: type } = this.config;
    if (type === 'epsilon') return [1, -sigma];
    return type === 'sample' ? [0, 1] : [1 / (sigma ** 2 + 1), -sigma / Math.sqrt(sigma ** 2 + 1)];
  }

  /** Along (x − x0) / σ from one σ to another. */
  protected slide(index: number, to: number): Mix {
    const share = to / this.sigmas[index] - 1;
    const [sample, output] = this.originalMix(index);
    return [1 + share * (1 - sample), -share * output];
  }

  override predictOriginal(modelOutput: Tensor, t: number, sample: Tensor): Tensor {
    this.wantAlike('predictOriginal', sample, modelOutput);
    return mixed(this.originalMix(this.indexOf(t)), sample, modelOutput);
  }

  override addNoise(original: Tensor, noise: Tensor, t: number | readonly number[]): Tensor {
    this.wantAlike('noise', original, noise);
    const sigmas = [t].flat().map((at) => this.sigmas[this.indexOf(at)]);
    return combineSamples([sigmas.map(() => 1), original], [sigmas, noise]);
  }
}

/**
 * Euler steps along dx/dσ = (x − x0) / σ.
 *
 *     x' = x + (σ' − σ) · (x − x0) / σ
 *
 * @see Karras et al. 2022, Elucidating the Design Space of Diffusion-Based Generative Models, alg. 2 without churn. https://arxiv.org/abs/2206.00364
 */
export class EulerDiscreteScheduler extends SigmaScheduler<Config<typeof eulerFields>> {
  readonly name = 'EulerDiscreteScheduler';

  protected advance(modelOutput: Tensor, index: number, sample: Tensor): Tensor {
    return mixed(this.slide(index, this.sigmas[index + 1]), sample, modelOutput);
  }
}

/**
 * Euler steps that go further down than they should, and add noise to come back up.
 *
 *     up² = σ'² (σ² − σ'²) / σ²       down² = σ'² − up²       x' = x + (down − σ) · (x − x0) / σ + up · noise
 *
 * @see k-diffusion, sample_euler_ancestral. https://github.com/crowsonkb/k-diffusion
 */
export class EulerAncestralDiscreteScheduler extends SigmaScheduler<Config<typeof eulerAncestralFields>> {
  readonly name = 'EulerAncestralDiscreteScheduler';

  protected advance(modelOutput: Tensor, index: number, sample: Tensor, options: StepOptions): Tensor {
    const sigma = this.sigmas[index],
      next = this.sigmas[index + 1];
    const up = Math.sqrt((next ** 2 * (sigma ** 2 - next ** 2)) / sigma ** 2);
    const [x, m] = this.slide(index, Math.sqrt(next ** 2 - up ** 2));
    return combine([x, sample], [m, modelOutput], [up, this.draw(options, sample)]);
  }
}
