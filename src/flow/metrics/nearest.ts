/** Which real image is a made one closest to, and does it carry the caption that was asked for? */

export interface Nearest {
  /** Row of the nearest real vector, for each made one. */
  index: Int32Array;
  /** Euclidean distance to it. */
  distance: Float64Array;
}

/** made: [n, dims], real: [m, dims] → the nearest row of `real` for each of `made`; the first of equals. */
export function nearest(made: ArrayLike<number>, real: ArrayLike<number>, dims: number): Nearest {
  const n = made.length / dims,
    m = real.length / dims;
  if (!Number.isInteger(n) || !Number.isInteger(m) || m === 0) {
    throw new RangeError(`nearest: ${made.length} and ${real.length} numbers are not vectors of ${dims}`);
  }
  const index = new Int32Array(n).fill(-1),
    distance = new Float64Array(n).fill(Infinity);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < m; j++) {
      let sum = 0;
      for (let k = 0; k < dims && sum < distance[i]; k++) sum += (made[i * dims + k] - real[j * dims + k]) ** 2;
      if (sum < distance[i]) {
        distance[i] = sum;
        index[i] = j;
      }
    }
  }
  return { index, distance: distance.map(Math.sqrt) };
}

/** Share of made vectors whose nearest real one has the caption they were made from. NaN vectors count as wrong. */
export function captionAccuracy(
  made: ArrayLike<number>,
  prompts: string[],
  real: ArrayLike<number>,
  captions: string[],
  dims: number,
): number {
  const { index } = nearest(made, real, dims);
  if (prompts.length !== index.length || captions.length * dims !== real.length) {
    throw new RangeError('captionAccuracy: every image needs a caption');
  }
  return index.reduce((right, j, i) => right + Number(captions[j] === prompts[i]), 0) / index.length;
}

/** Divide each dimension by its standard deviation over the real vectors, so that none drowns the others. */
export function standardise(features: ArrayLike<number>, deviation: ArrayLike<number>): Float32Array {
  return Float32Array.from(features, (x, i) => x / (deviation[i % deviation.length] || 1));
}

/** Standard deviation of each dimension; a constant dimension gives 1. */
export function deviations(features: ArrayLike<number>, dims: number): Float64Array {
  const count = features.length / dims;
  const mean = new Float64Array(dims),
    square = new Float64Array(dims);
  for (let i = 0; i < features.length; i++) mean[i % dims] += features[i] / count;
  for (let i = 0; i < features.length; i++) square[i % dims] += (features[i] - mean[i % dims]) ** 2 / count;
  return square.map((v) => Math.sqrt(v) || 1);
}
