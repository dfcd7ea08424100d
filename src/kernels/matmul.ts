import type { DType, GpuArray, Shape } from './array.ts';
import { sizeOf } from './array.ts';
import { shapeError } from './errors.ts';
import { wantFloats, widest } from './floats.ts';
import { gemm } from './gemm.ts';
import type { Matrix } from './gemm.ts';
import type { Gpu } from './gpu.ts';
import { hostArray } from './op.ts';
import type { Op } from './op.ts';
import { sumMiddle } from './sum-middle.ts';

interface Attrs {
  transposeA?: boolean;
  transposeB?: boolean;
}

/**
 * Matrix product over the last two axes; the axes before them broadcast.
 *
 *     y  = A·B              A: [.., M, K]   B: [.., K, N]   y: [.., M, N]
 *     dA = dy·Bᵀ            dB = Aᵀ·dy      each summed over the axes it was broadcast along
 *
 * A is given as [.., K, M] with `transposeA`, B as [.., N, K] with `transposeB`. A vector A is a row, a vector B a column,
 * and their axis of size 1 is left out of y.
 *
 * @throws when inner sizes differ or batches do not broadcast
 */
export const matmul: Op<[a: GpuArray, b: GpuArray], Attrs> = {
  name: 'matmul',
  forward(gpu, [a, b], attrs) {
    wantFloats('matmul', { a, b });
    const s = sizes(a, b, attrs);
    return {
      output: product(gpu, left(a, s), right(b, s), s.M, s.N, s.K, s.y, s.aBatch, s.bBatch, s.batch, widest(a, b)),
      saved: [a, b],
    };
  },
  backward(gpu, dy, [a, b], attrs, needs) {
    const s = sizes(a, b, attrs);
    const { M, N, K, aBatch, bBatch, batch } = s;
    const A = left(a, s),
      B = right(b, s),
      dY = { array: dy, row: N, col: 1 };
    // The gradient of a transposed operand is the transposed product: dAᵀ = B·dyᵀ.
    const dA = () =>
      attrs.transposeA
        ? gradient(gpu, B, transposed(dY), K, M, N, bBatch, batch, batch, aBatch, a)
        : gradient(gpu, dY, transposed(B), M, K, N, batch, bBatch, batch, aBatch, a);
    const dB = () =>
      attrs.transposeB
        ? gradient(gpu, transposed(dY), A, N, K, M, batch, aBatch, batch, bBatch, b)
        : gradient(gpu, transposed(A), dY, K, N, M, aBatch, batch, batch, bBatch, b);
    return [needs[0] ? dA() : undefined, needs[1] ? dB() : undefined];
  },
  reference([a, b], attrs) {
    const { M, N, K, y, aBatch, bBatch, batch } = sizes(a, b, attrs);
    const out = hostArray(y);
    for (let z = 0; z < sizeOf(batch); z++) {
      const A = batchIndex(z, batch, aBatch) * M * K,
        B = batchIndex(z, batch, bBatch) * K * N;
      for (let m = 0; m < M; m++) {
        for (let n = 0; n < N; n++) {
          let sum = 0;
          for (let k = 0; k < K; k++) {
            const aAt = A + (attrs.transposeA ? k * M + m : m * K + k);
            const bAt = B + (attrs.transposeB ? n * K + k : k * N + n);
            sum += a.data[aAt] * b.data[bAt];
          }
          out.data[(z * M + m) * N + n] = sum;
        }
      }
    }
    return out;
  },
};

interface Sizes {
  M: number;
  N: number;
  K: number;
  aBatch: Shape;
  bBatch: Shape;
  batch: Shape;
  /** Shape of the product. */
  y: Shape;
  attrs: Attrs;
}

function sizes(a: { shape: Shape }, b: { shape: Shape }, attrs: Attrs): Sizes {
  if (!a.shape.length || !b.shape.length)
    throw shapeError('matmul', 'a scalar is no matrix', { a: a.shape, b: b.shape });
  const aShape = a.shape.length === 1 ? (attrs.transposeA ? [a.shape[0], 1] : [1, a.shape[0]]) : a.shape;
  const bShape = b.shape.length === 1 ? (attrs.transposeB ? [1, b.shape[0]] : [b.shape[0], 1]) : b.shape;
  const [K, M] = attrs.transposeA ? aShape.slice(-2) : aShape.slice(-2).reverse();
  const [N, inner] = attrs.transposeB ? bShape.slice(-2) : bShape.slice(-2).reverse();
  if (K !== inner) {
    const fix =
      bShape.at(attrs.transposeB ? -2 : -1) === K
        ? 'did you mean matmul(a, b, { transposeB: ' + !attrs.transposeB + ' })?'
        : '';
    throw shapeError('matmul', `inner sizes differ (${K} ≠ ${inner})`, { a: a.shape, b: b.shape }, fix);
  }
  const aBatch = aShape.slice(0, -2),
    bBatch = bShape.slice(0, -2);
  const rank = Math.max(aBatch.length, bBatch.length);
  const padded = (shape: Shape) => [...Array(rank - shape.length).fill(1), ...shape] as number[];
  const [p, q] = [padded(aBatch), padded(bBatch)];
  if (p.some((d, i) => d !== q[i] && d !== 1 && q[i] !== 1)) {
    throw shapeError('matmul', 'batches do not broadcast', { a: a.shape, b: b.shape });
  }
  const batch = p.map((d, i) => (d === 1 ? q[i] : d));
  const y = [...batch, ...(a.shape.length > 1 ? [M] : []), ...(b.shape.length > 1 ? [N] : [])];
  return { M, N, K, aBatch: p, bBatch: q, batch, y, attrs };
}

const left = (array: GpuArray, { M, K, attrs }: Sizes): Matrix =>
  attrs.transposeA ? { array, row: 1, col: M } : { array, row: K, col: 1 };
const right = (array: GpuArray, { N, K, attrs }: Sizes): Matrix =>
  attrs.transposeB ? { array, row: 1, col: K } : { array, row: N, col: 1 };
const transposed = (m: Matrix): Matrix => ({ ...m, row: m.col, col: m.row });

/** A·B over `batch`, where A and B have batches that broadcast to it. */
function product(
  gpu: Gpu,
  a: Matrix,
  b: Matrix,
  M: number,
  N: number,
  K: number,
  y: Shape,
  aBatch: Shape,
  bBatch: Shape,
  batch: Shape,
  dtype: DType,
): GpuArray {
  // One B for all of a dense A: the batch is more rows.
  if (sizeOf(bBatch) === 1 && sizeOf(aBatch) === sizeOf(batch) && a.row === K && a.col === 1) {
    return gemm(gpu, { M: M * sizeOf(batch), N, K, a, b, shape: y, dtype }, gpu.capabilities.force.matmul).y;
  }
  const levels = twoLevels(batch, strides(aBatch, M * K), strides(bBatch, K * N));
  if (levels) {
    const [outer, inner] = levels;
    const A = { ...a, outer: outer.a, inner: inner.a },
      B = { ...b, outer: outer.b, inner: inner.b };
    const shared = { M, N, K, batch: [outer.size, inner.size] as const, shape: y };
    return gemm(gpu, { ...shared, a: A, b: B, dtype }, gpu.capabilities.force.matmul).y;
  }
  throw shapeError(
    'matmul',
    'batches broadcast along more than two interleaved axes',
    { a: aBatch, b: bBatch },
    'expand one of them first',
  );
}

/** A·B over `batch`, summed over the axes in which `kept` has size 1. */
function gradient(
  gpu: Gpu,
  a: Matrix,
  b: Matrix,
  M: number,
  N: number,
  K: number,
  aBatch: Shape,
  bBatch: Shape,
  batch: Shape,
  kept: Shape,
  { shape, dtype }: GpuArray,
): GpuArray {
  const n = sizeOf(batch);
  if (sizeOf(kept) === 1 && n > 1 && sizeOf(aBatch) === n && sizeOf(bBatch) === n && a.col === M && b.row === N) {
    // Both lie with K as their slow axis, so that the sum over the batch is a longer sum over K.
    return gemm(gpu, { M, N, K: K * n, a, b, shape, dtype }, gpu.capabilities.force.matmul).y;
  }
  const summed = batch.flatMap((size, i) => (size === kept[i] ? [] : [i]));
  let y = product(gpu, a, b, M, N, K, [...batch, M, N], aBatch, bBatch, batch, summed.length ? 'f32' : dtype);
  for (const i of summed) {
    using whole = y;
    const before = y.shape.slice(0, i),
      after = y.shape.slice(i + 1);
    const last = i === summed.at(-1);
    y = sumMiddle(gpu, whole, [sizeOf(before), batch[i], sizeOf(after)], {
      shape: [...before, 1, ...after],
      dtype: last ? dtype : 'f32',
    });
  }
  using result = y;
  return result.view(shape);
}

/** Distances between neighbours along each batch axis; 0 along an axis of size 1. */
function strides(batch: Shape, size: number): number[] {
  const out: number[] = [];
  for (let i = batch.length - 1; i >= 0; i--) {
    out.unshift(batch[i] === 1 ? 0 : size);
    size *= batch[i];
  }
  return out;
}

/** Merge batch axes that lie evenly in both operands, down to an outer and an inner one. */
function twoLevels(batch: Shape, a: number[], b: number[]) {
  const levels: { size: number; a: number; b: number }[] = [];
  for (let i = batch.length - 1; i >= 0; i--) {
    if (batch[i] === 1) continue;
    const last = levels[0];
    if (last && a[i] === last.a * last.size && b[i] === last.b * last.size) last.size *= batch[i];
    else levels.unshift({ size: batch[i], a: a[i], b: b[i] });
  }
  while (levels.length < 2) levels.unshift({ size: 1, a: 0, b: 0 });
  return levels.length === 2 ? levels : undefined;
}

const batchIndex = (z: number, batch: Shape, own: Shape): number => {
  let index = 0,
    scale = 1;
  for (let i = batch.length - 1; i >= 0; i--) {
    index += (z % batch[i]) * (own[i] === 1 ? 0 : scale);
    scale *= own[i];
    z = Math.floor(z / batch[i]);
  }
  return index;
};
