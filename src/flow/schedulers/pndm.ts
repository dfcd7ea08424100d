import type { Tensor } from '../../tensor/index.ts';
import { flag, oneOf, trainingFields } from './config.ts';
import type { Config } from './config.ts';
import { DiffusionScheduler } from './diffusion.ts';
import { combine } from './mix.ts';
import { roundHalfEven, spaced } from './spacing.ts';

/** Fields of PNDMScheduler. */
export const pndmFields = {
  ...trainingFields,
  prediction_type: oneOf('epsilon', ['epsilon', 'v_prediction']),
  skip_prk_steps: flag(false),
  set_alpha_to_one: flag(false),
};

/** Adams–Bashforth: weights of the newest output and of those before it. */
const MULTISTEP = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]];
/** Runge–Kutta: weights of the four outputs of a step. */
const RUNGE_KUTTA = [1 / 6, 1 / 3, 1 / 3, 1 / 6];
/** Timesteps that begin with Runge–Kutta, but for the last of them. */
const WARM_UP = 4;

/**
 * Pseudo numerical methods: the transfer of DDIM with outputs averaged as by Adams–Bashforth of fourth order.
 *
 *     x_s = √(ᾱ_s / ᾱ_t) · x_t − (ᾱ_s − ᾱ_t) / (ᾱ_t √(1 − ᾱ_s) + √(ᾱ_t (1 − ᾱ_t) ᾱ_s)) · ε
 *
 * It begins with three Runge–Kutta steps of four outputs each, or, with `skip_prk_steps` (Stable Diffusion), with one step
 * made twice. Either way `timesteps` has more entries than `setTimesteps` was asked for. It counts its steps: begun in the
 * middle (image → image), the first two timesteps count as the step made twice, as in diffusers.
 *
 * @see Liu et al. 2022, Pseudo Numerical Methods for Diffusion Models on Manifolds, eq. 9, 12, 13. https://arxiv.org/abs/2202.09778
 */
export class PNDMScheduler extends DiffusionScheduler<Config<typeof pndmFields>> {
  readonly name = 'PNDMScheduler';
  #stride = 0;
  #warmUp: readonly number[] = [];
  #counter = 0;
  /** Where the present step began, and its outputs so far. */
  #origin: Tensor | undefined;
  #stages: Tensor[] = [];

  protected override get stride(): number {
    return this.#stride;
  }

  protected override spaced(steps: number): readonly number[] {
    const { timestep_spacing, num_train_timesteps: total, steps_offset, skip_prk_steps: skip } = this.config;
    this.wantSteps(steps, skip ? 1 : WARM_UP);
    this.#stride = Math.floor(total / steps);
    const all = this.wantTimesteps(spaced(timestep_spacing, steps, total, steps_offset).map(roundHalfEven));
    const half = Math.floor(this.#stride / 2);
    // Each of the first three steps sees its beginning, its middle twice, and its end, where the next one begins.
    this.#warmUp = skip
      ? []
      : all.slice(0, WARM_UP - 1).flatMap((t, i) => [t, all[i + 1] + half, all[i + 1] + half, all[i + 1]]);
    if (!skip) return [...this.#warmUp, ...all.slice(WARM_UP - 1)];
    return steps === 1 ? all : [all[0], all[1], ...all.slice(1)];
  }

  protected advance(modelOutput: Tensor, index: number, sample: Tensor): Tensor {
    const t = this.timesteps[index];
    const next =
      this.#counter < this.#warmUp.length
        ? this.rungeKutta(modelOutput, t, sample)
        : this.multistep(modelOutput, t, sample);
    this.#counter++;
    return next;
  }

  private rungeKutta(modelOutput: Tensor, t: number, sample: Tensor): Tensor {
    const stage = this.#counter % 4;
    if (stage === 0) {
      this.remember(modelOutput, 4);
      this.begin(sample);
    }
    this.#stages.push(this.hold(modelOutput));
    const outputs =
      stage < 3 ? [[1, modelOutput] as const] : this.#stages.map((output, i) => [RUNGE_KUTTA[i], output] as const);
    const to = stage % 2 === 0 ? t - Math.floor(this.#stride / 2) : t;
    return this.transfer(this.#origin!, this.#warmUp[this.#counter - stage], to, outputs);
  }

  private multistep(modelOutput: Tensor, t: number, sample: Tensor): Tensor {
    if (this.#counter === 1) {
      const [first] = this.history;
      return this.transfer(this.#origin!, t + this.stride, t, [[1 / 2, modelOutput], [1 / 2, first]]); // prettier-ignore
    }
    this.remember(modelOutput, 4);
    if (this.#counter === 0) this.begin(sample);
    const newest = [...this.history].reverse();
    const outputs = newest.map((output, i) => [MULTISTEP[newest.length - 1][i], output] as const);
    return this.transfer(sample, t, t - this.stride, outputs);
  }

  /** From one timestep to another with a sum of outputs. */
  private transfer(sample: Tensor, from: number, to: number, outputs: readonly (readonly [number, Tensor])[]): Tensor {
    const a = this.abar(from),
      b = this.abar(to);
    const move = -(b - a) / (a * Math.sqrt(1 - b) + Math.sqrt(a * (1 - a) * b));
    const velocity = this.config.prediction_type === 'v_prediction';
    const scale = velocity ? Math.sqrt(a) : 1;
    return combine(
      [Math.sqrt(b / a) + (velocity ? move * Math.sqrt(1 - a) : 0), sample],
      ...outputs.map(([weight, output]) => [move * scale * weight, output] as const),
    );
  }

  private begin(sample: Tensor): void {
    this.release();
    this.#origin = this.hold(sample);
  }

  private release(): void {
    this.#origin?.dispose();
    for (const output of this.#stages) output.dispose();
    this.#origin = undefined;
    this.#stages = [];
  }

  override dispose(): void {
    super.dispose();
    this.release();
    this.#counter = 0;
  }
}
