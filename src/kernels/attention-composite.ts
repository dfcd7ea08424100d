import type { GpuArray } from './array.ts';
import type { AttentionInputs, AttentionSizes, Strides } from './attention-layout.ts';
import code from './attention.wgsl';
import { castTo } from './cast.ts';
import { gemm } from './gemm.ts';
import type { Gpu } from './gpu.ts';
import { spread } from './gpu.ts';
import { sumMiddle } from './sum-middle.ts';

const rowsOf = (array: GpuArray, s: Strides) => ({ array, row: s.token, col: 1, outer: s.batch, inner: s.head });
const columnsOf = (array: GpuArray, s: Strides) => ({ array, row: 1, col: s.token, outer: s.batch, inner: s.head });
const storedAs = (s: Strides) => ({ row: s.token, outer: s.batch, inner: s.head });

/** Attention as two matrix products with a softmax between them; the scores are stored in f32, [batch, heads, queries, keys]. */
export function compositeForward(gpu: Gpu, inputs: AttentionInputs, s: AttentionSizes): GpuArray {
  using p = probabilities(gpu, inputs, s);
  return weighted(gpu, p, inputs, s);
}

/** P = softmax(q·kᵀ·scale + bias) */
function probabilities(gpu: Gpu, { q, k, bias }: AttentionInputs, s: AttentionSizes): GpuArray {
  const { batch, heads, queries: M, keys: N, dim: K } = s;
  const { y } = gemm(gpu, { M, N, K, batch: [batch, heads], a: rowsOf(q, s.q), b: columnsOf(k, s.k) });
  const rows = batch * heads * M;
  gpu.run(code, 'softmax', softmaxUniforms(s, rows, !!bias), [bias ?? gpu.none, y], spread(rows));
  return y;
}

/** y = P·v, stored in the output's layout. */
function weighted(gpu: Gpu, p: GpuArray, { q, v }: AttentionInputs, s: AttentionSizes): GpuArray {
  const { batch, heads, queries, keys, vdim } = s;
  const a = scoresOf(p, s);
  return gemm(gpu, {
    M: queries,
    N: vdim,
    K: keys,
    batch: [batch, heads],
    a,
    b: rowsOf(v, s.v),
    shape: s.shape,
    dtype: q.dtype,
    y: storedAs(s.y),
  }).y;
}

export function compositeBackward(
  gpu: Gpu,
  dy: GpuArray,
  inputs: AttentionInputs,
  s: AttentionSizes,
  needs: readonly boolean[],
): (GpuArray | undefined)[] {
  const { q, k, v, bias } = inputs;
  const { queries, keys, dim, vdim, heads } = s;
  const batch = [s.batch, heads] as const;
  using p = probabilities(gpu, inputs, s);
  const dv = needs[2]
    ? gemm(gpu, {
        M: keys,
        N: vdim,
        K: queries,
        batch,
        a: transposed(scoresOf(p, s)),
        b: rowsOf(dy, s.y),
        shape: v.shape,
        dtype: v.dtype,
        y: storedAs(s.v),
      }).y
    : undefined;
  using ds = gemm(gpu, { M: queries, N: keys, K: vdim, batch, a: rowsOf(dy, s.y), b: columnsOf(v, s.v) }).y;
  const rows = s.batch * heads * queries;
  gpu.run(code, 'softmax_backward', softmaxUniforms(s, rows, false), [p, ds], spread(rows));
  const dq = needs[0]
    ? gemm(gpu, {
        M: queries,
        N: dim,
        K: keys,
        batch,
        a: scoresOf(ds, s),
        b: rowsOf(k, s.k),
        shape: q.shape,
        dtype: q.dtype,
        y: storedAs(s.q),
      }).y
    : undefined;
  const dk = needs[1]
    ? gemm(gpu, {
        M: keys,
        N: dim,
        K: queries,
        batch,
        a: transposed(scoresOf(ds, s)),
        b: rowsOf(q, s.q),
        shape: k.shape,
        dtype: k.dtype,
        y: storedAs(s.k),
      }).y
    : undefined;
  return [dq, dk, dv, needs[3] && bias ? biasGradient(gpu, ds, bias, s) : undefined];
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

const softmaxUniforms = (s: AttentionSizes, rows: number, hasBias: boolean) => ({
  rows,
  keys: s.keys,
  queries: s.queries,
  heads: s.heads,
  causal: +s.causal,
  scale: s.scale,
  hasBias: +hasBias,
  biasBatch: s.bias.batch,
  biasHead: s.bias.head,
  biasQuery: s.bias.query,
  biasKey: s.bias.key,
});
