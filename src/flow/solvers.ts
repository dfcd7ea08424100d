/** Ways to follow the flow dZ/dt = v(Z, t): Euler, Heun, Adams–Bashforth, and Runge–Kutta 4(5) with steps of its own choice. */
import { wantWhole } from '../kernels/index.ts';
import { addScaled, neg } from '../tensor/index.ts';
import type { Tensor } from '../tensor/index.ts';
import type { Velocity } from './rectified-flow.ts';

/**
 * Follow the flow dZ/dt = v(Z, t) from noise to image in equal steps.   z: [B, …]
 *
 *     Z(t + 1/N) = Z(t) + v(Z(t), t) / N
 *
 * One step is exact when the flow is straight, which is what reflow trains for.
 * @see Liu et al. 2022, Flow Straight and Fast, §2.1. https://arxiv.org/abs/2209.03003
 */
export function euler(velocity: Velocity, z: Tensor, steps: number): Tensor {
  wantWhole('euler', 'steps', steps, 1);
  for (let i = 0; i < steps; i++) z = addScaled(z, velocity(z, i / steps), { s: 1 / steps });
  return z;
}

/**
 * The trapezoid rule: an Euler step, then the mean of the velocities at both ends. Two evaluations per step.
 *
 *     Z' = Z + v(Z, t) h        Z(t + h) = Z + (v(Z, t) + v(Z', t + h)) h / 2
 */
export function heun(velocity: Velocity, z: Tensor, steps: number): Tensor {
  wantWhole('heun', 'steps', steps, 1);
  const h = 1 / steps;
  for (let i = 0; i < steps; i++) {
    const here = velocity(z, i / steps);
    const there = velocity(addScaled(z, here, { s: h }), (i + 1) / steps);
    z = addScaled(addScaled(z, here, { s: h / 2 }), there, { s: h / 2 });
  }
  return z;
}

/**
 * Adams–Bashforth of second order: the last velocity says how the present one bends. One evaluation per step, like Euler,
 * which takes the first step; the error falls with h² instead of h.
 *
 *     Z(t + h) = Z(t) + (3 v(Z(t), t) − v(Z(t − h), t − h)) h / 2
 *
 * @see Hairer, Nørsett & Wanner, Solving ODEs I, §III.1
 */
export function adamsBashforth(velocity: Velocity, z: Tensor, steps: number): Tensor {
  wantWhole('adamsBashforth', 'steps', steps, 1);
  const h = 1 / steps;
  let before: Tensor | undefined;
  for (let i = 0; i < steps; i++) {
    const here = velocity(z, i / steps);
    z = before ? addScaled(addScaled(z, here, { s: 1.5 * h }), before, { s: -0.5 * h }) : addScaled(z, here, { s: h });
    before = here;
  }
  return z;
}

/** Solvers with equal steps. */
export const fixedStepSolvers = {
  /** First order, one evaluation a step. */
  euler,
  /** Second order, two evaluations a step. */
  heun,
  /** Second order, one evaluation a step. */
  'adams-bashforth': adamsBashforth,
};
/** The name of a solver with equal steps. */
export type FixedStepSolver = keyof typeof fixedStepSolvers;

/**
 * The same flow walked from image to noise: follow it with any solver.
 *
 *     Y(s) = Z(1 − s),   dY/ds = −v(Y, 1 − s)
 */
export function reversed(velocity: Velocity): Velocity {
  return (y, s) => neg(velocity(y, 1 - s));
}

/** Weights of Dormand and Prince: row i gives stage i + 1; the last row is the fifth-order result itself. */
const NODES = [0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1];
const STAGES = [
  [1 / 5],
  [3 / 40, 9 / 40],
  [44 / 45, -56 / 15, 32 / 9],
  [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
  [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
  [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
];
/** Fifth-order minus fourth-order result: the estimate of the error. */
const ERROR = [71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40];

/** Where the flow ended, and what it took. */
export interface AdaptiveResult {
  z: Tensor;
  /** Network evaluations. */
  evaluations: number;
  /** Accepted and rejected steps. */
  steps: number;
  rejected: number;
}

/**
 * Dormand–Prince 4(5) from t = 0 to 1. A step is accepted when the error, as the root mean square over the whole batch of
 * |error| / (atol + rtol · |z|), is at most 1. `z` stays the caller's; the result is a new tensor.
 *
 * @see Dormand & Prince 1980, A family of embedded Runge–Kutta formulae
 * @see Hairer, Nørsett & Wanner, Solving ODEs I, §II.4, for the first step and the choice of the next
 */
export async function rk45(
  velocity: Velocity,
  z: Tensor,
  { rtol = 1e-5, atol = 1e-5, maxEvaluations = 10_000 } = {},
): Promise<AdaptiveResult> {
  if (!(rtol >= 0 && atol >= 0 && rtol + atol > 0 && rtol + atol < Infinity))
    throw new RangeError(`rk45: tolerances must be 0 or more, and one above 0\n  rtol  ${rtol}\n  atol  ${atol}`);
  let t = 0;
  let evaluations = 0;
  let steps = 0;
  let rejected = 0;
  const evaluate = (at: Tensor, time: number) => (evaluations++, velocity(at, time));
  let state = addScaled(z, z, { s: 0 });
  let first = evaluate(state, 0);
  let h = await firstStep(evaluate, state, first, { rtol, atol });
  while (t < 1) {
    if (evaluations > maxEvaluations) {
      throw new Error(
        `rk45: ${evaluations} evaluations took it to t = ${t.toFixed(4)} only\n  allow a larger rtol or atol`,
      );
    }
    h = Math.min(h, 1 - t);
    const slopes = [first];
    let next = state;
    STAGES.forEach((weights, i) => {
      const before = next;
      next = combine(state, slopes, weights, h);
      if (before !== state) before.dispose();
      slopes.push(evaluate(next, t + NODES[i + 1] * h));
    });
    const error = await errorNorm(state, next, slopes, h, { rtol, atol });
    const accepted = error <= 1;
    if (!Number.isFinite(error)) throw new Error(`rk45: the velocity is not a number near t = ${t.toFixed(4)}`);
    const factor = error === 0 ? 10 : Math.min(10, Math.max(0.2, 0.9 * error ** -0.2));
    if (accepted) {
      t = t + h >= 1 - 1e-12 ? 1 : t + h;
      steps++;
      state.dispose();
      state = next;
      slopes.slice(0, 6).forEach((slope) => slope.dispose());
      first = slopes[6]; // the last stage lies where the next step begins
    } else {
      rejected++;
      next.dispose();
      slopes.slice(1).forEach((slope) => slope.dispose());
    }
    h *= accepted ? factor : Math.min(1, factor);
  }
  first.dispose();
  return { z: state, evaluations, steps, rejected };
}

type Tolerance = { rtol: number; atol: number };

/** z + h Σ wᵢ kᵢ */
function combine(z: Tensor, slopes: readonly Tensor[], weights: readonly number[], h: number): Tensor {
  let sum = z;
  weights.forEach((weight, i) => {
    if (weight === 0) return;
    const before = sum;
    sum = addScaled(sum, slopes[i], { s: weight * h });
    if (before !== z) before.dispose();
  });
  return sum;
}

async function errorNorm(from: Tensor, to: Tensor, slopes: readonly Tensor[], h: number, { rtol, atol }: Tolerance) {
  const [a, b, ...k] = await Promise.all([from, to, ...slopes].map((x) => x.read()));
  let sum = 0;
  for (let i = 0; i < a.length; i++) {
    const error = h * ERROR.reduce((total, weight, s) => total + weight * k[s][i], 0);
    sum += (error / (atol + rtol * Math.max(Math.abs(a[i]), Math.abs(b[i])))) ** 2;
  }
  return Math.sqrt(sum / a.length);
}

/** A step short enough for a first look at how the velocity changes. */
async function firstStep(evaluate: Velocity, z: Tensor, slope: Tensor, { rtol, atol }: Tolerance): Promise<number> {
  const [start, v] = await Promise.all([z.read(), slope.read()]);
  const norm = (values: (i: number) => number) => {
    let sum = 0;
    for (let i = 0; i < start.length; i++) sum += (values(i) / (atol + rtol * Math.abs(start[i]))) ** 2;
    return Math.sqrt(sum / start.length);
  };
  const d0 = norm((i) => start[i]);
  const d1 = norm((i) => v[i]);
  const h0 = d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : (0.01 * d0) / d1;
  const probe = addScaled(z, slope, { s: h0 });
  const ahead = evaluate(probe, h0);
  const w = await ahead.read();
  probe.dispose();
  ahead.dispose();
  const d2 = norm((i) => w[i] - v[i]) / h0;
  const h1 = Math.max(d1, d2) <= 1e-15 ? Math.max(1e-6, h0 * 1e-3) : (0.01 / Math.max(d1, d2)) ** 0.2;
  return Math.min(100 * h0, h1, 1);
}

/** What `--solver` takes. */
export type SolverName = FixedStepSolver | 'rk45';
/** All solvers by name. */
export const solverNames = ['euler', 'heun', 'adams-bashforth', 'rk45'] as const satisfies SolverName[];

/** Any of the solvers by name. */
export async function solve(
  name: SolverName,
  velocity: Velocity,
  z: Tensor,
  { steps = 25, rtol = 1e-5, atol = 1e-5 } = {},
): Promise<{ z: Tensor; evaluations: number }> {
  if (name === 'rk45') return rk45(velocity, z, { rtol, atol });
  if (!Object.hasOwn(fixedStepSolvers, name))
    throw new RangeError(`solve: there is no solver ${name}\n  known: ${solverNames.join(' ')}`);
  wantWhole('solve', 'steps', steps, 1);
  let evaluations = 0;
  const counted: Velocity = (at, t) => (evaluations++, velocity(at, t));
  return { z: fixedStepSolvers[name](counted, z, steps), evaluations };
}
