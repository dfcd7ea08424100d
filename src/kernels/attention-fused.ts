import type { GpuArray } from './array.ts';
import type { AttentionInputs, AttentionSizes, Strides } from './attention-layout.ts';
import kernel from './attention-subgroup.wgsl';
import pieces from './attention.wgsl';
import { spread } from './gpu.ts';
import type { Gpu } from './gpu.ts';
import { unrolledOnce } from './unroll.ts';

/** Columns per lane and rows of a tile, at most. */
const MOST_COLS = 4;
const MOST_ROWS = 16;
const MOST_DIMS = 20;

/** Whether one head fits the registers of the fused kernel. */
export const fits = ({ dim, vdim }: AttentionSizes, lanes: number): boolean => Math.max(dim, vdim) <= MOST_DIMS * lanes;

/** softmax(q·kᵀ·scale + bias)·v in one pass.   logSumExp: [batch, heads, queries] */
export function fusedForward(gpu: Gpu, { q, k, v, bias }: AttentionInputs, s: AttentionSizes) {
  const y = gpu.empty(s.shape), logSumExp = gpu.empty([s.batch, s.heads, s.queries]);
  const { code, uniforms, constants, grid } = launch(gpu, s, false, !!bias, s.vdim);
  gpu.run(code, 'forward', uniforms, [q, k, v, bias ?? gpu.none, y, logSumExp], grid, constants);
  return { y, logSumExp };
}

/** Gradients by q, k and v from the scores computed once more: one pass for q, one for k and v. */
export function fusedBackward(
  gpu: Gpu,
  dy: GpuArray,
  { q, k, v, bias, y, logSumExp }: AttentionInputs & { y: GpuArray; logSumExp: GpuArray },
  s: AttentionSizes,
  needs: readonly boolean[],
): [dq?: GpuArray, dk?: GpuArray, dv?: GpuArray] {
  const rows = logSumExp.size;
  using stats = gpu.empty([2, rows]);
  const layout = {
    rows, queries: s.queries, heads: s.heads, vdim: s.vdim,
    yBatch: s.y.batch, yHead: s.y.head, yToken: s.y.token,
  };
  gpu.run(pieces, 'row_stats', layout, [y, dy, logSumExp, stats], spread(Math.ceil(rows / 64)));
  let dq: GpuArray | undefined, dk: GpuArray | undefined, dv: GpuArray | undefined;
  if (needs[0]) {
    dq = gpu.empty(q.shape);
    using unused = gpu.empty([1]);
    const { code, uniforms, constants, grid } = launch(gpu, s, false, !!bias, s.dim);
    gpu.run(code, 'backward', uniforms, [q, k, dy, v, bias ?? gpu.none, stats, dq, unused], grid, constants);
  }
  if (needs[1] || needs[2]) {
    dk = gpu.empty(k.shape);
    dv = gpu.empty(v.shape);
    const { code, uniforms, constants, grid } = launch(gpu, s, true, !!bias, s.dim + s.vdim);
    gpu.run(code, 'backward', uniforms, [k, q, v, dy, bias ?? gpu.none, stats, dk, dv], grid, constants);
  }
  return [dq, dk, dv];
}

/** `width`: numbers that a row accumulates. */
function launch(gpu: Gpu, s: AttentionSizes, rowsAreKeys: boolean, hasBias: boolean, width: number) {
  const lanes = gpu.capabilities.subgroupSize;
  const rows = rowsAreKeys ? s.keys : s.queries;
  const cols = rowsAreKeys ? s.queries : s.keys;
  const most = width <= 8 * lanes ? MOST_ROWS : MOST_ROWS / 2;
  const ROWS = 4 * Math.ceil(evenly(rows, most) / 4);
  const COLS = evenly(Math.ceil(cols / lanes), MOST_COLS);
  const blocks = Math.ceil(rows / ROWS);
  const groups = blocks * s.batch * s.heads;
  const uniforms = {
    rows, cols, dim: s.dim, vdim: s.vdim,
    heads: s.heads, blocks, groups, lanes, causal: +s.causal, scale: s.scale,
    ...named('rowsA', rowsAreKeys ? s.k : s.q), ...named('colsA', rowsAreKeys ? s.q : s.k),
    ...named('rowsB', rowsAreKeys ? s.v : s.y), ...named('colsB', rowsAreKeys ? s.y : s.v),
    biasBatch: s.bias.batch, biasHead: s.bias.head, biasQuery: s.bias.query, biasKey: s.bias.key,
  };
  const constants = {
    ROWS, COLS, SLICES: COLS, LANES: lanes, DIMS: Math.ceil(s.dim / lanes), VDIMS: Math.ceil(s.vdim / lanes),
    ROWS_ARE_KEYS: rowsAreKeys, HAS_BIAS: hasBias,
  };
  return { code: unrolledOnce(kernel, { SLICES: COLS }), uniforms, constants, grid: spread(groups) };
}

/** The size of the parts when `n` things are dealt out evenly to as few parts of at most `most` as hold them. */
const evenly = (n: number, most: number): number => Math.ceil(n / Math.ceil(n / most));

const named = (name: string, { batch, head, token }: Strides) => ({
  [`${name}Batch`]: batch, [`${name}Head`]: head, [`${name}Token`]: token,
});
