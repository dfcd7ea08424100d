import type { GpuArray } from './array.ts';
import type { AttentionInputs, AttentionSizes, Strides } from './attention-layout.ts';
import code from './attention-subgroup.wgsl';
import pieces from './attention.wgsl';
import { spread } from './gpu.ts';
import type { Gpu } from './gpu.ts';

/** Columns per lane, at most. */
const MOST_COLS = 4;
const MOST_DIMS = 20;

/** Whether one head fits the registers of the fused kernel. */
export const fits = ({ dim, vdim }: AttentionSizes, lanes: number): boolean => Math.max(dim, vdim) <= MOST_DIMS * lanes;

/** softmax(q·kᵀ·scale + bias)·v in one pass.   logSumExp: [batch, heads, queries] */
export function fusedForward(gpu: Gpu, { q, k, v, bias }: AttentionInputs, s: AttentionSizes) {
  const y = gpu.empty(s.shape),
    logSumExp = gpu.empty([s.batch, s.heads, s.queries]);
  const { uniforms, constants, grid } = launch(gpu, s, false, !!bias, s.vdim);
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
    rows,
    queries: s.queries,
    heads: s.heads,
    vdim: s.vdim,
    yBatch: s.y.batch,
    yHead: s.y.head,
    yToken: s.y.token,
  };
  gpu.run(pieces, 'row_stats', layout, [y, dy, logSumExp, stats], spread(Math.ceil(rows / 64)));
  let dq: GpuArray | undefined, dk: GpuArray | undefined, dv: GpuArray | undefined;
  if (needs[0]) {
    dq = gpu.empty(q.shape);
    using unused = gpu.empty([1]);
    const { uniforms, constants, grid } = launch(gpu, s, false, !!bias, s.dim);
    gpu.run(code, 'backward', uniforms, [q, k, dy, v, bias ?? gpu.none, stats, dq, unused], grid, constants);
  }
  if (needs[1] || needs[2]) {
    dk = gpu.empty(k.shape);
    dv = gpu.empty(v.shape);
    const { uniforms, constants, grid } = launch(gpu, s, true, !!bias, s.dim + s.vdim);
    gpu.run(code, 'backward', uniforms, [k, q, v, dy, bias ?? gpu.none, stats, dk, dv], grid, constants);
  }
  return [dq, dk, dv];
}

/** `width`: numbers that a row accumulates. */
function launch(gpu: Gpu, s: AttentionSizes, rowsAreKeys: boolean, hasBias: boolean, width: number) {
  const lanes = gpu.capabilities.subgroupSize;
  const rows = rowsAreKeys ? s.keys : s.queries;
  const cols = rowsAreKeys ? s.queries : s.keys;
  // A tile costs about as much as ROWS + 4, and every pair of sizes is a pipeline more to compile.
  const cost = (size: number) => Math.ceil(rows / size) * (size + 4);
  const ROWS = width <= 8 * lanes && cost(16) <= cost(8) ? 16 : 8;
  const parts = Math.ceil(cols / lanes);
  const COLS = Math.max(2, Math.ceil(parts / Math.ceil(parts / MOST_COLS)));
  const blocks = Math.ceil(rows / ROWS);
  const groups = blocks * s.batch * s.heads;
  const uniforms = {
    rows,
    cols,
    dim: s.dim,
    vdim: s.vdim,
    heads: s.heads,
    blocks,
    groups,
    lanes,
    causal: +s.causal,
    scale: s.scale,
    ...named('rowsA', rowsAreKeys ? s.k : s.q),
    ...named('colsA', rowsAreKeys ? s.q : s.k),
    ...named('rowsB', rowsAreKeys ? s.v : s.y),
    ...named('colsB', rowsAreKeys ? s.y : s.v),
    biasBatch: s.bias.batch,
    biasHead: s.bias.head,
    biasQuery: s.bias.query,
    biasKey: s.bias.key,
  };
  const constants = {
    ROWS,
    COLS,
    LANES: lanes,
    DIMS: Math.ceil(s.dim / lanes),
    VDIMS: Math.ceil(s.vdim / lanes),
    ROWS_ARE_KEYS: rowsAreKeys,
    HAS_BIAS: hasBias,
  };
  return { uniforms, constants, grid: spread(groups) };
}

const named = (name: string, { batch, head, token }: Strides) => ({
  [`${name}Batch`]: batch,
  [`${name}Head`]: head,
  [`${name}Token`]: token,
});
