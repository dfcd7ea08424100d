import type { GpuArray } from './array.ts';
import type { AttentionInputs, AttentionSizes, Strides } from './attention-layout.ts';
import code from './attention.wgsl';
import { castTo } from './cast.ts';
import { gemm } from './gemm.ts';
import type { Matrix } from './gemm.ts';
import type { Gpu } from './gpu.ts';
import { spread } from './gpu.ts';
import { sumMiddle } from './sum-middle.ts';

/** A block of queries, whose scores are stored together. */
interface Block extends AttentionSizes {
  first: number;
}

/** Scores of a block at most: enough for a matrix product, few enough to stay in a cache. */
const BLOCK = 2 ** 22;

function blocksOf(gpu: Gpu, s: AttentionSizes): Block[] {
  const most = Math.min(BLOCK, gpu.arrayLimit / 4);
  const rows = Math.max(1, Math.floor(most / (s.batch * s.heads * s.keys)));
  const count = Math.max(1, Math.ceil(s.queries / rows));
  const size = Math.ceil(s.queries / count);
  return Array.from({ length: count }, (_, i) => ({
    ...s,
    first: i * size,
    queries: Math.min(size, s.queries - i * size),
  }));
}

const rowsOf = (array: GpuArray, s: Strides, first = 0) => ({
  array,
  start: first * s.token,
  row: s.token,
  col: 1,
  outer: s.batch,
  inner: s.head,
});
const columnsOf = (array: GpuArray, s: Strides) => ({ array, row: 1, col: s.token, outer: s.batch, inner: s.head });
const storedAs = (s: Strides, first = 0) => ({
  start: first * s.token,
  row: s.token,
  outer: s.batch,
  inner: s.head,
});

/**
 * Attention as two matrix products with a softmax between them. The scores are stored in f32, those of a block of queries at
 * a time: [batch, heads, queries, keys].
 */
export function compositeForward(gpu: Gpu, inputs: AttentionInputs, s: AttentionSizes): GpuArray {
  const { q, v } = inputs;
  const y = gpu.empty(s.shape, q.dtype);
  for (const block of blocksOf(gpu, s)) {
    using p = probabilities(gpu, inputs, block);
    const { batch, heads, queries, keys, vdim, first } = block;
    gemm(gpu, {
      M: queries,
      N: vdim,
      K: keys,
      batch: [batch, heads],
      a: scoresOf(p, block),
      b: rowsOf(v, s.v),
      into: y,
      y: storedAs(s.y, first),
    });
  }
  return y;
}

/** P = softmax(q·kᵀ·scale + bias) */
function probabilities(gpu: Gpu, { q, k, bias }: AttentionInputs, s: Block): GpuArray {
  const { batch, heads, queries: M, keys: N, dim: K } = s;
  const { y } = gemm(gpu, { M, N, K, batch: [batch, heads], a: rowsOf(q, s.q, s.first), b: columnsOf(k, s.k) });
  const rows = batch * heads * M;
  gpu.run(code, 'softmax', softmaxUniforms(s, rows, !!bias), [bias ?? gpu.none, y], spread(rows));
  return y;
}

export function compositeBackward(
  gpu: Gpu,
  dy: GpuArray,
  inputs: AttentionInputs,
  s: AttentionSizes,
  needs: readonly boolean[],
): (GpuArray | undefined)[] {
  const { q, k, v, bias } = inputs;
  const batch = [s.batch, s.heads] as const;
  const dq = needs[0] ? gpu.empty(q.shape, q.dtype) : undefined;
  let dk: GpuArray | undefined, dv: GpuArray | undefined, dbias: GpuArray | undefined;
  // The gradient of a bias adds up whole scores.
  const blocks: Block[] = needs[3] && bias ? [{ ...s, first: 0 }] : blocksOf(gpu, s);
  /** aᵀ · b of a block, added to the sum so far. */
  const addUp = (sum: GpuArray | undefined, s: Block, a: Matrix, b: Matrix, like: GpuArray, to: Strides, N: number) => {
    using residual = sum;
    const dtype = s === blocks.at(-1) ? like.dtype : 'f32';
    const common = { M: s.keys, N, K: s.queries, batch, shape: like.shape, dtype, y: storedAs(to), residual } as const;
    return gemm(gpu, { ...common, a: transposed(a), b }).y;
  };
  for (const block of blocks) {
    const { queries, keys, dim, vdim, first } = block;
    using p = probabilities(gpu, inputs, block);
    const slice = rowsOf(dy, s.y, first);
    if (needs[2]) dv = addUp(dv, block, scoresOf(p, block), slice, v, s.v, vdim);
    using ds = gemm(gpu, { M: queries, N: keys, K: vdim, batch, a: slice, b: columnsOf(v, s.v) }).y;
    const rows = s.batch * s.heads * queries;
    gpu.run(code, 'softmax_backward', softmaxUniforms(block, rows, false), [p, ds], spread(rows));
    const a = scoresOf(ds, block);
    if (dq) gemm(gpu, { M: queries, N: dim, K: keys, batch, a, b: rowsOf(k, s.k), into: dq, y: storedAs(s.q, first) });
    if (needs[1]) dk = addUp(dk, block, a, rowsOf(q, s.q, first), k, s.k, dim);
    if (needs[3] && bias) dbias = biasGradient(gpu, ds, bias, s);
  }
  return [dq, dk, dv, dbias];
}

/** dbias = dS / scale, summed over the axes that the bias was broadcast along. */
function biasGradient(gpu: Gpu, ds: GpuArray, bias: GpuArray, s: AttentionSizes): GpuArray {
  let shape = [s.batch, s.heads, s.queries, s.keys];
  const own = [...Array(4 - bias.shape.length).fill(1), ...bias.shape] as number[];
  let sum = sumMiddle(gpu, ds, [1, 1, ds.size], { shape, scale: 1 / s.scale });
  for (let axis = 0; axis < 4; axis++) {
    if (own[axis] === shape[axis]) continue;
    using whole = sum;
    const size = (from: number, to: number) => shape.slice(from, to).reduce((n, d) => n * d, 1);
    const parts = [size(0, axis), shape[axis], size(axis + 1, 4)] as const;
    shape = shape.map((d, i) => (i === axis ? 1 : d));
    sum = sumMiddle(gpu, whole, parts, { shape });
  }
  using total = sum;
  using result = castTo(total, bias.dtype);
  return result.view(bias.shape);
}

const scoresOf = (array: GpuArray, { heads, queries, keys }: AttentionSizes) => ({
  array,
  row: keys,
  col: 1,
  outer: heads * queries * keys,
  inner: queries * keys,
});
const transposed = <T extends { row: number; col: number }>(m: T): T => ({ ...m, row: m.col, col: m.row });

const softmaxUniforms = (s: Block, rows: number, hasBias: boolean) => ({
  rows,
  keys: s.keys,
  queries: s.queries,
  firstQuery: s.first,
  heads: s.heads,
  causal: +s.causal,
  scale: s.scale,
  hasBias: +hasBias,
  biasBatch: s.bias.batch,
  biasHead: s.bias.head,
  biasQuery: s.bias.query,
  biasKey: s.bias.key,
});
