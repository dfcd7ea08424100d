import type { Tensor } from '../../tensor/index.ts';
import { flag, notNaN, oneOf, trainingFields, whole } from './config.ts';
import type { Config } from './config.ts';
import { DiffusionScheduler } from './diffusion.ts';
import { weightsOf } from './dpm-solver-weights.ts';
import type { Level } from './dpm-solver-weights.ts';
import { combine, imageMix, mixed, noiseMix } from './mix.ts';
import { scalesOf } from './noise-schedule.ts';
import type { StepOptions } from './scheduler.ts';
import { karrasSigmas, linspace, roundHalfEven, spacings, timestepOfSigma, trailing } from './spacing.ts';

/** Fields of DPMSolverMultistepScheduler. `final_sigmas_type` and `euler_at_final` are from later versions of diffusers. */
export const dpmSolverFields = {
  ...trainingFields,
  solver_order: whole(2, 1, 3),
  algorithm_type: oneOf('dpmsolver++', ['dpmsolver', 'dpmsolver++', 'sde-dpmsolver', 'sde-dpmsolver++']),
  solver_type: oneOf('midpoint', ['midpoint', 'heun']),
  lower_order_final: flag(true),
  euler_at_final: flag(false),
  use_karras_sigmas: flag(false),
  final_sigmas_type: oneOf('sigma_min', ['sigma_min', 'zero']),
  lambda_min_clipped: notNaN(-Infinity),
  timestep_spacing: oneOf('linspace', spacings),
};

/** The last step or two fall back to a lower order when there are fewer steps than this. */
const FEW_STEPS = 15;

/**
 * DPM-Solver and DPM-Solver++, multistep, of order 1, 2 ("2M") or 3: exact in the linear part of the probability flow, a
 * Taylor polynomial in λ = ln(√ᾱ / √(1 − ᾱ)) for the network. One evaluation a step.
 *
 *     dpmsolver++ 2M:   x_t = σ_t/σ_s · x_s − α_t (e⁻ʰ − 1) (D0 + D1/2)
 *     h = λ_t − λ_s,    D0 = x0(s),   D1 = (h / h') (x0(s) − x0(s')),   s' one step before s, h' = λ_s − λ_s'
 *
 * @see Lu et al. 2022, DPM-Solver++, alg. 2. https://arxiv.org/abs/2211.01095
 * @see Lu et al. 2022, DPM-Solver. https://arxiv.org/abs/2206.00927
 */
export class DPMSolverMultistepScheduler extends DiffusionScheduler<Config<typeof dpmSolverFields>> {
  readonly name = 'DPMSolverMultistepScheduler';

  constructor(config: Config<typeof dpmSolverFields>) {
    super(config);
    const { algorithm_type, solver_order, final_sigmas_type } = config;
    if (solver_order === 3 && algorithm_type.startsWith('sde'))
      throw new RangeError(`${this.name}: ${algorithm_type} has no order 3\n  solver_order  1 or 2`);
    if (final_sigmas_type === 'zero' && !algorithm_type.endsWith('++'))
      throw new RangeError(`${this.name}: ${algorithm_type} cannot end without noise\n  final_sigmas_type  sigma_min`);
  }

  protected override spaced(steps: number): readonly number[] {
    const { timestep_spacing, num_train_timesteps: total, steps_offset, use_karras_sigmas: karras } = this.config;
    const { sigmas } = this.schedule;
    this.wantSteps(steps, 1, timestep_spacing === 'leading' ? total - 1 : total);
    const last = this.lastTimestep();
    const all = karras
      ? karrasSigmas(sigmas.at(-1)!, sigmas[0], steps).map((sigma) => timestepOfSigma(sigma, sigmas))
      : timestep_spacing === 'trailing'
        ? trailing(last, total / steps)
        : timestep_spacing === 'linspace'
          ? linspace(0, last - 1, steps + 1)
              .slice(1)
              .reverse()
          : Array.from({ length: steps }, (_, i) => (i + 1) * Math.floor(last / (steps + 1)) + steps_offset).reverse();
    return this.wantTimesteps([...new Set(all.map(roundHalfEven))]);
  }

  /** How many timesteps have a λ of at least `lambda_min_clipped`. */
  private lastTimestep(): number {
    const lambda = (_: number, t: number) => this.level(t).lambda;
    const kept = this.schedule.alphasCumprod.map(lambda).filter((l) => l >= this.config.lambda_min_clipped).length;
    if (kept >= 2) return kept;
    throw new RangeError(`${this.name}: lambda_min_clipped ${this.config.lambda_min_clipped} leaves no timesteps`);
  }

  /** Where a step goes: to the next timestep, and at last to timestep 0 or to no noise at all. */
  private level(t: number | undefined): Level {
    const zero = t === undefined && this.config.final_sigmas_type === 'zero';
    const { alpha, sigma } = scalesOf(zero ? 1 : this.schedule.alphasCumprod[t ?? 0]);
    return { alpha, sigma, lambda: Math.log(alpha) - Math.log(sigma) };
  }

  protected advance(modelOutput: Tensor, index: number, sample: Tensor, options: StepOptions): Tensor {
    const {
      algorithm_type: algorithm,
      solver_order,
      lower_order_final,
      euler_at_final,
      final_sigmas_type,
    } = this.config;
    const noise = algorithm.startsWith('sde') ? this.draw(options, sample) : undefined;
    const scales = this.schedule.scales(this.timesteps[index]);
    const mix = algorithm.endsWith('++') ? imageMix : noiseMix;
    this.remember(mixed(mix(this.config.prediction_type, scales), sample, modelOutput), solver_order);
    const left = this.timesteps.length - index;
    const few = lower_order_final && this.timesteps.length < FEW_STEPS;
    const first = left === 1 && (few || euler_at_final || final_sigmas_type === 'zero');
    const order = Math.min(solver_order, this.history.length, first ? 1 : few && left === 2 ? 2 : 3);
    const levels = Array.from({ length: order + 1 }, (_, i) => this.level(this.timesteps[index + 1 - i]));
    const weights = weightsOf(algorithm, this.config.solver_type, levels);
    return combine(
      [weights.sample, sample],
      ...weights.outputs.map((weight, i) => [weight, this.history.at(-1 - i)!] as const),
      ...(noise ? [[weights.noise, noise] as const] : []),
    );
  }
}
