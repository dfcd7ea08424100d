/**
 * Fréchet distance between the Gaussians that fit two sets of feature vectors, in float64.
 *
 *     d² = |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½)
 *     tr (Σ₁ Σ₂)^½ = Σ √λᵢ,   λ = eigenvalues of K Kᵀ,   K = F₁ F₂ᵀ,   Σ = Fᵀ F
 *
 * The name FID belongs to this distance on Inception features; on any other features it is just the Fréchet distance.
 * @see Dowson & Landau 1982, The Fréchet distance between multivariate normal distributions
 */

/** Mean [dims] and covariance [dims, dims] (divided by count − 1) of a set of feature vectors. */
export interface Gaussian {
  dims: number;
  count: number;
  mean: Float64Array;
  covariance: Float64Array;
}

/** F of a Gaussian made of fewer vectors than dimensions: they themselves, centred. [count, dims] */
const fewVectors = new WeakMap<Gaussian, Float64Array>();

/** features: [count, dims], row-major. */
export function gaussianOf(features: ArrayLike<number>, dims: number): Gaussian {
  const count = features.length / dims;
  if (!Number.isInteger(count) || count < 2) {
    throw new RangeError(`gaussianOf: ${features.length} numbers are not two or more vectors of ${dims}`);
  }
  const mean = new Float64Array(dims),
    covariance = new Float64Array(dims * dims),
    centred = new Float64Array(dims);
  for (let i = 0; i < features.length; i++) mean[i % dims] += features[i] / count;
  for (let row = 0; row < count; row++) {
    for (let i = 0; i < dims; i++) centred[i] = features[row * dims + i] - mean[i];
    for (let i = 0; i < dims; i++) {
      for (let j = 0; j <= i; j++) covariance[i * dims + j] += (centred[i] * centred[j]) / (count - 1);
    }
  }
  for (let i = 0; i < dims; i++) for (let j = 0; j < i; j++) covariance[j * dims + i] = covariance[i * dims + j];
  if (!mean.every(Number.isFinite)) throw new RangeError('gaussianOf: the features hold a NaN or an infinity');
  const gaussian = { dims, count, mean, covariance };
  if (count < dims) {
    const centre = (x: number, i: number) => (x - mean[i % dims]) / Math.sqrt(count - 1);
    fewVectors.set(gaussian, Float64Array.from(features, centre));
  }
  return gaussian;
}

/** Squared Fréchet distance of two Gaussians: the number papers report. */
export function frechetDistance(a: Gaussian, b: Gaussian): number {
  if (a.dims !== b.dims) throw new RangeError(`frechetDistance: ${a.dims} and ${b.dims} dimensions`);
  const n = a.dims;
  let distance = 0;
  for (let i = 0; i < n; i++) {
    distance += (a.mean[i] - b.mean[i]) ** 2 + a.covariance[i * n + i] + b.covariance[i * n + i];
  }
  const [few, many] = [factorOf(a), factorOf(b)].sort((x, y) => x.length - y.length);
  const product = timesTransposed(few, many, n);
  const values = symmetricEigenvalues(timesTransposed(product, product, many.length / n), few.length / n);
  return distance - 2 * values.reduce((sum, value) => sum + Math.sqrt(Math.max(value, 0)), 0);
}

/** F [rank, dims] with Fᵀ F = Σ; kept, as one set of real images is compared with many. */
function factorOf(gaussian: Gaussian): Float64Array {
  const known = fewVectors.get(gaussian) ?? factors.get(gaussian);
  if (known) return known;
  const factor = cholesky(gaussian.covariance, gaussian.dims);
  factors.set(gaussian, factor);
  return factor;
}
const factors = new WeakMap<Gaussian, Float64Array>();

/** The upper triangle U with Uᵀ U = m, a symmetric matrix [n, n] without negative eigenvalues; a pivot that rounding left counts as zero. */
function cholesky(m: Float64Array, n: number): Float64Array {
  const u = m.slice();
  let largest = 0;
  for (let i = 0; i < n; i++) largest = Math.max(largest, m[i * n + i]);
  for (let k = 0; k < n; k++) {
    const pivot = u[k * n + k];
    const root = pivot > 1e-15 * largest ? Math.sqrt(pivot) : 0;
    for (let j = 0; j < n; j++) u[k * n + j] = j < k || root === 0 ? 0 : u[k * n + j] / root;
    for (let i = k + 1; i < n; i++) {
      const s = u[k * n + i];
      if (s !== 0) for (let j = i; j < n; j++) u[i * n + j] -= s * u[k * n + j];
    }
  }
  return u;
}

/** a: [n, k], b: [m, k] → a bᵀ [n, m] */
function timesTransposed(a: Float64Array, b: Float64Array, k: number): Float64Array {
  const [n, m] = [a.length / k, b.length / k];
  const out = new Float64Array(n * m);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < m; j++) {
      let sum = 0;
      for (let l = 0; l < k; l++) sum += a[i * k + l] * b[j * k + l];
      out[i * m + j] = sum;
    }
  }
  return out;
}

/** Eigenvalues of a symmetric matrix [n, n], in no order: Householder's reflections, then QL on what is left. */
export function symmetricEigenvalues(matrix: Float64Array, n: number): Float64Array {
  const m = matrix.slice(),
    diagonal = new Float64Array(n),
    beside = new Float64Array(n),
    v = new Float64Array(n),
    w = new Float64Array(n);
  for (let k = 0; k < n; k++) {
    diagonal[k] = m[k * n + k];
    if (k === n - 1) break;
    let square = 0;
    for (let i = k + 1; i < n; i++) square += (v[i] = m[k * n + i]) ** 2;
    const alpha = v[k + 1] > 0 ? -Math.sqrt(square) : Math.sqrt(square);
    beside[k] = alpha;
    const length = Math.sqrt(2 * (square - alpha * v[k + 1])); // of v − alpha e
    if (length === 0) continue;
    v[k + 1] -= alpha;
    for (let i = k + 1; i < n; i++) v[i] /= length;
    // m − 2 v wᵀ − 2 w vᵀ,   w = m v − (vᵀ m v) v
    let along = 0;
    for (let i = k + 1; i < n; i++) {
      let sum = 0;
      for (let j = k + 1; j < n; j++) sum += m[i * n + j] * v[j];
      w[i] = sum;
      along += v[i] * sum;
    }
    for (let i = k + 1; i < n; i++) w[i] -= along * v[i];
    for (let i = k + 1; i < n; i++) {
      const [a, b] = [2 * v[i], 2 * w[i]];
      for (let j = k + 1; j < n; j++) m[i * n + j] -= a * w[j] + b * v[j];
    }
  }
  return tridiagonalEigenvalues(diagonal, beside);
}

/**
 * QL with implicit shifts; `beside[i]` lies between i and i + 1. Both are overwritten.
 * @see Bowdler, Martin, Reinsch & Wilkinson 1968, The QR and QL algorithms for symmetric matrices
 */
function tridiagonalEigenvalues(diagonal: Float64Array, beside: Float64Array): Float64Array {
  const n = diagonal.length;
  for (let low = 0; low < n; low++) {
    for (let round = 0; ; round++) {
      let high = low;
      while (high < n - 1) {
        const size = Math.abs(diagonal[high]) + Math.abs(diagonal[high + 1]);
        if (Math.abs(beside[high]) <= Number.EPSILON * size) break;
        high++;
      }
      if (high === low) break;
      if (round === 100)
        throw new RangeError('frechetDistance: the eigenvalues do not settle; are the features numbers?');
      let g = (diagonal[low + 1] - diagonal[low]) / (2 * beside[low]);
      const r = Math.hypot(g, 1);
      g = diagonal[high] - diagonal[low] + beside[low] / (g + (g < 0 ? -r : r));
      let s = 1,
        c = 1,
        p = 0,
        i = high - 1;
      for (; i >= low; i--) {
        const f = s * beside[i],
          b = c * beside[i];
        const length = Math.hypot(f, g);
        beside[i + 1] = length;
        if (length === 0) {
          diagonal[i + 1] -= p; // it has come apart here
          beside[high] = 0;
          break;
        }
        s = f / length;
        c = g / length;
        g = diagonal[i + 1] - p;
        const t = (diagonal[i] - g) * s + 2 * c * b;
        p = s * t;
        diagonal[i + 1] = g + p;
        g = c * t - b;
      }
      if (i >= low) continue;
      diagonal[low] -= p;
      beside[low] = g;
      beside[high] = 0;
    }
  }
  return diagonal;
}
