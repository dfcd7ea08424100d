/** Weights of a multistep DPM-Solver step, in float64. */

/** A time as DPM-Solver sees it: x = alpha · image + sigma · noise, lambda = ln(alpha / sigma). */
export interface Level {
  alpha: number;
  sigma: number;
  lambda: number;
}

/** x_t = sample · x_s + Σ outputs[i] · (output i steps before) + noise · (fresh noise) */
export interface StepWeights {
  sample: number;
  outputs: number[];
  noise: number;
}

/** The four solvers: of the image (++) or of the noise, of the flow or of the equation with noise (sde). */
export type Algorithm = 'dpmsolver' | 'dpmsolver++' | 'sde-dpmsolver' | 'sde-dpmsolver++';

/**
 * levels: where the step goes, where it begins, and where earlier outputs were made: order + 1 of them.
 *
 *     x_t = sample · x_s + w0 D0 + w1 D1 + w2 D2
 *     order 2   D0 = m0,  D1 = (h/h0) (m0 − m1)
 *     order 3   D1 = d + k (d − d'),  D2 = h/(h0 + h1) (d − d')
 *               d = (h/h0) (m0 − m1),  d' = (h/h1) (m1 − m2),  k = h0/(h0 + h1)
 *
 * @see Lu et al. 2022, DPM-Solver++, §4 and appendix B. https://arxiv.org/abs/2211.01095
 */
export function weightsOf(algorithm: Algorithm, solver: 'midpoint' | 'heun', levels: readonly Level[]): StepWeights {
  const [to, from, ...earlier] = levels;
  const h = to.lambda - from.lambda;
  const { sample, noise, w0, midpoint, heun, w2 } = parts(algorithm, to, from, h);
  if (earlier.length === 0) return { sample, outputs: [w0], noise };
  const h0 = from.lambda - earlier[0].lambda;
  if (earlier.length === 1) {
    const slope = ((solver === 'midpoint' ? midpoint : heun) * h) / h0;
    return { sample, outputs: [w0 + slope, -slope], noise };
  }
  const h1 = earlier[0].lambda - earlier[1].lambda;
  const bend = (heun * h0 + w2 * h) / (h0 + h1);
  const near = ((heun + bend) * h) / h0,
    far = (bend * h) / h1;
  return { sample, outputs: [w0 + near, -near - far, far], noise };
}

function parts(algorithm: Algorithm, to: Level, from: Level, h: number) {
  // Of no length, as the last Karras step is: nothing moves, and what follows would divide 0 by 0.
  if (h === 0) return { sample: 1, noise: 0, w0: 0, midpoint: 0, heun: 0, w2: 0 };
  if (algorithm === 'dpmsolver++') {
    const e = Math.expm1(-h);
    const w0 = -to.alpha * e;
    const w2 = -to.alpha * ((e + h) / h ** 2 - 0.5);
    return { sample: to.sigma / from.sigma, noise: 0, w0, midpoint: w0 / 2, heun: to.alpha * (e / h + 1), w2 };
  }
  if (algorithm === 'sde-dpmsolver++') {
    const e = Math.expm1(-2 * h);
    const w0 = -to.alpha * e;
    const sample = (to.sigma / from.sigma) * Math.exp(-h);
    return { sample, noise: to.sigma * Math.sqrt(-e), w0, midpoint: w0 / 2, heun: to.alpha * (e / (2 * h) + 1), w2: 0 };
  }
  const e = Math.expm1(h);
  const twice = algorithm === 'sde-dpmsolver' ? 2 : 1;
  const w0 = -twice * to.sigma * e;
  const heun = -twice * to.sigma * (e / h - 1);
  const w2 = -to.sigma * ((e - h) / h ** 2 - 0.5);
  const noise = twice === 2 ? to.sigma * Math.sqrt(Math.expm1(2 * h)) : 0;
  return { sample: to.alpha / from.alpha, noise, w0, midpoint: w0 / 2, heun, w2 };
}
