/**
 * How straight a flow is, from the velocities met while following it.
 *
 *     S    = ∫ E |(Z₁ − Z₀) − v(Z_t, t)|² dt        0 when every path is a straight line walked at constant speed
 *     cost = E |Z₁ − Z₀|²                            transport cost
 *
 * S / cost has no unit: about 1 for an independent coupling in 2-D, a few hundredths for images, smaller after reflow.
 * @see Liu et al. 2022, Flow Straight and Fast, §2.2. https://arxiv.org/abs/2209.03003
 */

export interface StraightnessResult {
  /** S: mean over samples, summed over dimensions. */
  straightness: number;
  cost: number;
  /** S / cost. */
  ratio: number;
  samples: number;
}

/** Adds up batches, so that a whole test set need not be held. */
export class Straightness {
  private deviation = 0;
  private cost = 0;
  private samples = 0;

  /**
   * velocities: the N velocities of one batch in the order of time, each [batch, …]; equal steps unless `steps` gives
   * their lengths (which must add up to 1). The ends of the paths follow: Z₁ − Z₀ = Σ vᵢ · dtᵢ.
   */
  add(velocities: ArrayLike<number>[], batch: number, steps?: number[]): this {
    const dt = steps ?? velocities.map(() => 1 / velocities.length);
    const n = velocities[0].length;
    if (dt.length !== velocities.length || velocities.some((v) => v.length !== n)) {
      throw new RangeError('Straightness: every step needs one velocity, all of one size');
    }
    const move = new Float64Array(n);
    velocities.forEach((v, step) => {
      for (let i = 0; i < n; i++) move[i] += v[i] * dt[step];
    });
    velocities.forEach((v, step) => {
      for (let i = 0; i < n; i++) this.deviation += (move[i] - v[i]) ** 2 * dt[step];
    });
    for (let i = 0; i < n; i++) this.cost += move[i] ** 2;
    this.samples += batch;
    return this;
  }

  result(): StraightnessResult {
    const straightness = this.deviation / this.samples,
      cost = this.cost / this.samples;
    return { straightness, cost, ratio: straightness / cost, samples: this.samples };
  }
}

/** Straightness of a single batch. */
export function straightness(velocities: ArrayLike<number>[], batch: number, steps?: number[]): StraightnessResult {
  return new Straightness().add(velocities, batch, steps).result();
}

/** Root mean square difference per element of two results from the same noise, e.g. with 1 and with 25 steps. */
export function fewStepError(few: ArrayLike<number>, many: ArrayLike<number>): number {
  if (few.length !== many.length) throw new RangeError(`fewStepError: ${few.length} and ${many.length} numbers`);
  let sum = 0;
  for (let i = 0; i < few.length; i++) sum += (few[i] - many[i]) ** 2;
  return Math.sqrt(sum / few.length);
}
