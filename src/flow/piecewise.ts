/** Piecewise reflow: a flow made straight window by window, with a teacher that is asked while the student learns. */
import { wantWhole } from '../kernels/index.ts';
import { add, mul, noGrad, reshape, scope, sub, tensor } from '../tensor/index.ts';
import { uniform } from '../tensor/random.ts';
import type { Objective, ObjectiveOptions, Points } from './objectives.ts';
import { timestepOf } from './rectified-flow.ts';
import type { Velocity } from './rectified-flow.ts';
import { fixedStepSolvers } from './solvers.ts';
import type { FixedStepSolver } from './solvers.ts';
import { drawTimes } from './times.ts';

/** How the time is cut, and how the teacher crosses a piece of it. */
export interface WindowOptions {
  /** K: what comes out is sampled in K steps. */
  windows: number;
  /** Steps of the teacher through one window (8). */
  solvingSteps?: number;
  /** 'euler' unless given. */
  solver?: FixedStepSolver;
}

/** An objective that asks a teacher. */
export interface PiecewiseObjective extends Pick<Objective, 'loss'> {
  /** x0, x1: [B, h, w, C] on the host, noise and image of no pair; `teacher` is the velocity for the texts of the batch. */
  points(x0: Float32Array, x1: Float32Array, step: number, teacher: Velocity): Points;
}

/**
 * The student goes straight from where the teacher enters a window to where it leaves it. Short pieces are nearly straight
 * to begin with, so this is learnt in few steps, and from images that were noised: no pairs are made beforehand.
 *
 *     z(a) = a·x1 + (1 − a)·x0        a = k / K, one window k for all of a batch, drawn anew for each
 *     z(b) = ODE[teacher](z(a), from a to b = a + 1 / K)
 *     min E loss(v(zt, t), K (z(b) − z(a)))        zt between the two at t = a + s / K, s by `times`
 *
 * @see Yan et al. 2024, PeRFlow: Piecewise Rectified Flow, §3.1. https://arxiv.org/abs/2405.07510
 */
export function piecewiseObjective(
  { windows: K, solvingSteps = 8, solver = 'euler' }: WindowOptions,
  { shape, times, loss, seed, stream, timeWaves }: ObjectiveOptions,
): PiecewiseObjective {
  wantWhole('piecewiseObjective', 'windows', K, 1);
  wantWhole('piecewiseObjective', 'solvingSteps', solvingSteps, 1);
  return {
    points(x0, x1, step, teacher) {
      const B = x0.length / (shape[0] * shape[1] * shape[2]);
      const a = Math.min(Math.floor(K * uniform(seed, `${stream}: window`, 1, step)[0]), K - 1) / K;
      const way = drawTimes(times, seed, stream, step, B);
      const s = tensor(way);
      const [sample, target] = noGrad(() =>
        scope(() => {
          const start = tensor(x1.map((image, i) => a * image + (1 - a) * x0[i]), [B, ...shape]); // prettier-ignore
          const inWindow: Velocity = (z, share) => mul(teacher(z, a + share / K), 1 / K);
          const jump = sub(fixedStepSolvers[solver](inWindow, start, solvingSteps), start);
          return [add(start, mul(reshape(s, [B, 1, 1, 1]), jump)), mul(jump, K)];
        }),
      );
      const waves = timeWaves([...way].map((share) => timestepOf(a + share / K)));
      const left = tensor(way.map((share) => (1 - share) / K));
      return [sample, waves, sample, target, left, s];
    },
    loss: (output, [, , xt, target, left]) => loss(output, { xt, target, left }),
  };
}
