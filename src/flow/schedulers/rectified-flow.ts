import { addScaled, mul, scope } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { timeOf, timestepOf } from '../rectified-flow.ts';
import type { Velocity } from '../rectified-flow.ts';
import { fixedStepSolvers, rk45, solverNames } from '../solvers.ts';
import type { SolverName } from '../solvers.ts';
import { oneOf, positive } from './config.ts';
import type { Config } from './config.ts';
import { combineSamples } from './mix.ts';
import { Scheduler } from './scheduler.ts';
import type { Denoiser } from './scheduler.ts';

/** Fields of RectifiedFlow, the scheduler of this project's models. */
export const rectifiedFlowFields = {
  solver: oneOf<SolverName>('euler', solverNames),
  rtol: positive(1e-5),
  atol: positive(1e-5),
};

/**
 * Networks that predict the velocity of a rectified flow, told the timestep 1000 (1 − t).
 *
 *     euler             z' = z + (t' − t) · v(z, t)
 *     adams-bashforth   z' = z + (t' − t) · (3 v(z, t) − v before) / 2
 *
 * Heun and RK45 ask the network several times between one timestep and the next: use `run`, which follows the flow from
 * each of `timesteps` to the next by `solvers.ts`. RK45 chooses its own steps in between: one timestep is enough.
 *
 * @see Liu et al. 2022, Flow Straight and Fast, §2.1. https://arxiv.org/abs/2209.03003
 */
export class RectifiedFlowScheduler extends Scheduler {
  readonly name = 'RectifiedFlow';

  constructor(readonly config: Config<typeof rectifiedFlowFields>) {
    super();
  }

  protected spaced(steps: number): readonly number[] {
    if (!(Number.isInteger(steps) && steps >= 1 && steps <= 1e6))
      throw new RangeError(`${this.name}: steps is ${steps}, must be a whole number from 1 to 1000000`);
    return Array.from({ length: steps }, (_, i) => timestepOf(i / steps));
  }

  /** Time from one of `timesteps` to the next, and from the last to the image. */
  private span(index: number): number {
    return timeOf(this.timesteps[index + 1] ?? 0) - timeOf(this.timesteps[index]);
  }

  protected advance(modelOutput: Tensor, index: number, sample: Tensor): Tensor {
    const { solver } = this.config;
    const span = this.span(index);
    if (solver === 'heun' || solver === 'rk45')
      throw new Error(`${this.name}: ${solver} asks the network several times a step\n  use run()`);
    const [before] = this.history;
    if (solver === 'euler' || !before) {
      if (solver !== 'euler') this.remember(modelOutput, 1);
      return addScaled(sample, modelOutput, { s: span });
    }
    const next = addScaled(addScaled(sample, modelOutput, { s: 1.5 * span }), before, { s: -0.5 * span });
    this.remember(modelOutput, 1);
    return next;
  }

  protected override async walk(network: Denoiser, index: number, sample: Tensor): Promise<Tensor> {
    const { solver, rtol, atol } = this.config;
    if (solver === 'euler' || solver === 'adams-bashforth') return super.walk(network, index, sample, {});
    const from = timeOf(this.timesteps[index]),
      span = this.span(index);
    // The span as a flow of its own, from 0 to 1.
    const velocity: Velocity = (z, t) => scope(() => mul(network(z, timestepOf(from + span * t)), span));
    if (solver === 'rk45') return (await rk45(velocity, sample, { rtol, atol })).z;
    return scope(() => fixedStepSolvers[solver](velocity, sample, 1));
  }

  predictOriginal(modelOutput: Tensor, t: number, sample: Tensor): Tensor {
    this.wantAlike('predictOriginal', sample, modelOutput);
    return addScaled(sample, modelOutput, { s: 1 - timeOf(t) });
  }

  addNoise(original: Tensor, noise: Tensor, t: number | readonly number[]): Tensor {
    this.wantAlike('noise', original, noise);
    const times = [t].flat().map(timeOf);
    if (times.some((time) => !(time >= 0 && time <= 1)))
      throw new RangeError(`${this.name}: timestep is ${[t].flat().join(', ')}, must be from 0 to 1000`);
    return combineSamples([times, original], [times.map((time) => 1 - time), noise]);
  }
}
