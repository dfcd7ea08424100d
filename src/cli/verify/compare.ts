/** Comparing what we computed with what was expected. */
import { ruleHash, ruleUniform } from './rule.ts';

/** One tensor (or number) of a case. */
export interface Check {
  name: string;
  got: ArrayLike<number>;
  want: ArrayLike<number>;
  /** Largest allowed relative error; 0 asks for equality. */
  tolerance: number;
  /** Errors count relative to max|want|, but at least to this. */
  scale?: number;
}

/** A finished check. */
export interface Compared {
  name: string;
  error: number;
  tolerance: number;
  passed: boolean;
  /** Element with the largest error, and both values there. */
  at: number;
  got: number;
  want: number;
}

/** rel = max|got − want| / max(max|want|, scale); NaN, a wrong size or a wrong infinity is an infinite error. */
export function compare({ name, got, want, tolerance, scale = 0 }: Check): Compared {
  if (got.length !== want.length) {
    return {
      name: `${name} (size ${got.length}, want ${want.length})`,
      error: Infinity,
      tolerance,
      passed: false,
      at: -1,
      got: NaN,
      want: NaN,
    };
  }
  let largest = scale,
    worst = 0,
    at = 0;
  for (let i = 0; i < want.length; i++) {
    if (Number.isFinite(want[i])) largest = Math.max(largest, Math.abs(want[i]));
    const same = got[i] === want[i] || (Number.isNaN(got[i]) && Number.isNaN(want[i]));
    const difference = same ? 0 : Math.abs(got[i] - want[i]);
    if (!(difference <= worst)) {
      worst = Number.isNaN(difference) ? Infinity : difference;
      at = i;
      if (worst === Infinity) break;
    }
  }
  const error = worst === 0 ? 0 : worst / (largest || 1);
  return { name, error, tolerance, passed: error <= tolerance, at, got: got[at], want: want[at] };
}

/**
 * Checks of gradients. Some are zero in exact arithmetic and PyTorch's values there are rounding noise, so errors count
 * relative to at least 1/1000 of `largest`: the largest gradient of the model (`grad_abs_scale`).
 */
export function gradientCheck(
  name: string,
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  tolerance: number,
  largest: number,
): Check {
  return { name, got, want, tolerance, scale: 1e-3 * largest };
}

/** What golden data keeps of a tensor that it does not hold whole. */
export interface Stats {
  rms: number;
  probe?: number;
}

/** A summary: rms within the tolerance, probe within three times it, both relative to the rms. */
export function statsChecks(name: string, got: ArrayLike<number>, want: Stats, tolerance: number, scale = 0): Check[] {
  let squares = 0;
  for (let i = 0; i < got.length; i++) squares += got[i] * got[i];
  const reference = Math.max(want.rms, scale);
  const checks: Check[] = [
    { name: `${name}.rms`, got: [Math.sqrt(squares / got.length)], want: [want.rms], tolerance, scale: reference },
  ];
  if (want.probe !== undefined) {
    checks.push({
      name: `${name}.probe`,
      got: [probe(name, got)],
      want: [want.probe],
      tolerance: 3 * tolerance,
      scale: reference,
    });
  }
  return checks;
}

/** Σ Tᵢ uᵢ / √n with u from the seed "probe" and the entry's name: notices permuted elements, which rms does not. */
export function probe(name: string, data: ArrayLike<number>): number {
  const hash = ruleHash('probe', name);
  let sum = 0;
  for (let i = 0; i < data.length; i++) sum += data[i] * ruleUniform(hash, i);
  return sum / Math.sqrt(data.length);
}
