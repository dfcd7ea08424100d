/**
 * Fréchet distance between the Gaussians that fit two sets of feature vectors, in float64.
 *
 *     d² = |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½)
 *     tr (Σ₁ Σ₂)^½ = Σ √λᵢ,   λ = eigenvalues of the symmetric matrix Σ₁^½ Σ₂ Σ₁^½
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
  return { dims, count, mean, covariance };
}

/** Squared Fréchet distance of two Gaussians: the number papers report. */
export function frechetDistance(a: Gaussian, b: Gaussian): number {
  if (a.dims !== b.dims) throw new RangeError(`frechetDistance: ${a.dims} and ${b.dims} dimensions`);
  const n = a.dims;
  let distance = 0;
  for (let i = 0; i < n; i++) {
    distance += (a.mean[i] - b.mean[i]) ** 2 + a.covariance[i * n + i] + b.covariance[i * n + i];
  }
  const root = squareRoot(a.covariance, n);
  const { values } = symmetricEigen(multiply(multiply(root, b.covariance, n), root, n), n);
  return distance - 2 * values.reduce((sum, value) => sum + Math.sqrt(Math.max(value, 0)), 0);
}

/** Eigenvalues and eigenvectors (columns of `vectors`) of a symmetric matrix [n, n], by cyclic Jacobi rotations. */
export function symmetricEigen(matrix: Float64Array, n: number): { values: Float64Array; vectors: Float64Array } {
  const m = matrix.slice(),
    vectors = new Float64Array(n * n);
  for (let i = 0; i < n; i++) vectors[i * n + i] = 1;
  const total = m.reduce((sum, x) => sum + x * x, 0);
  for (let sweep = 0; sweep < 60; sweep++) {
    let off = 0;
    for (let p = 0; p < n; p++) for (let q = 0; q < p; q++) off += m[p * n + q] ** 2;
    if (off <= 1e-30 * total) break;
    for (let p = 0; p < n - 1; p++) for (let q = p + 1; q < n; q++) rotate(m, vectors, n, p, q);
  }
  return { values: Float64Array.from({ length: n }, (_, i) => m[i * n + i]), vectors };
}

/** One Jacobi rotation: makes m[p, q] zero and applies the same rotation to the columns of `vectors`. */
function rotate(m: Float64Array, vectors: Float64Array, n: number, p: number, q: number): void {
  const mpq = m[p * n + q];
  if (mpq === 0) return;
  const theta = (m[q * n + q] - m[p * n + p]) / (2 * mpq);
  const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
  const c = 1 / Math.sqrt(t * t + 1),
    s = t * c;
  for (let k = 0; k < n; k++) {
    const kp = m[k * n + p],
      kq = m[k * n + q];
    m[k * n + p] = c * kp - s * kq;
    m[k * n + q] = s * kp + c * kq;
  }
  for (let k = 0; k < n; k++) {
    const pk = m[p * n + k],
      qk = m[q * n + k];
    m[p * n + k] = c * pk - s * qk;
    m[q * n + k] = s * pk + c * qk;
    const vp = vectors[k * n + p],
      vq = vectors[k * n + q];
    vectors[k * n + p] = c * vp - s * vq;
    vectors[k * n + q] = s * vp + c * vq;
  }
}

/** V √Λ Vᵀ; eigenvalues that rounding made negative count as zero. */
function squareRoot(matrix: Float64Array, n: number): Float64Array {
  const { values, vectors } = symmetricEigen(matrix, n);
  const scaled = vectors.map((v, i) => v * Math.sqrt(Math.max(values[i % n], 0)));
  const transposed = vectors.map((_, i) => vectors[(i % n) * n + Math.floor(i / n)]);
  return multiply(scaled, transposed, n);
}

function multiply(a: Float64Array, b: Float64Array, n: number): Float64Array {
  const out = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < n; k++) {
      const x = a[i * n + k];
      for (let j = 0; j < n; j++) out[i * n + j] += x * b[k * n + j];
    }
  }
  return out;
}
