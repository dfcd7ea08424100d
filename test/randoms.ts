/** Uniform numbers in [lo, hi), the same in every run (mulberry32). */
export function randoms(
  n: number,
  seed: number,
  [lo, hi]: readonly [number, number] = [-2, 2],
): Float32Array<ArrayBuffer> {
  let state = (seed * 0x9e3779b9) >>> 0;
  return Float32Array.from({ length: n }, () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return lo + ((hi - lo) * ((t ^ (t >>> 14)) >>> 0)) / 2 ** 32;
  });
}
