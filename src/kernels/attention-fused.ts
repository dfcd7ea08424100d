import type { GpuArray } from './array.ts';
import type { AttentionInputs, AttentionSizes, Strides } from './attention-layout.ts';
import subgroupKernel from './attention-subgroup.wgsl';
import workgroupKernel from './attention-workgroup.wgsl';
import pieces from './attention.wgsl';
import { spread } from './gpu.ts';
import type { Gpu } from './gpu.ts';
import { unrolledOnce } from './unroll.ts';

/** Which kernel: 'subgroup' holds rows in the registers of SIMD lanes, 'workgroup' in workgroup memory. */
export type FusedKernel = 'subgroup' | 'workgroup';

/** Columns per lane, at most; twice as many forwards over many keys, which makes up for the larger kernel. */
const MOST_COLS = 4;
const MANY_KEYS = 512;
const MOST_DIMS = 20;
/** Bytes of workgroup memory for rows, of the 16 KB that every adapter has. */
const ROW_BYTES = 12288;

/** Whether one head fits the registers, or the workgroup memory, of a fused kernel. */
export const fits = ({ dim, vdim }: AttentionSizes, kernel: FusedKernel, lanes: number): boolean =>
  kernel === 'subgroup' ? Math.max(dim, vdim) <= MOST_DIMS * lanes : 2 * 4 * (dim + vdim) <= ROW_BYTES;

/** softmax(q·kᵀ·scale + bias)·v in one pass.   logSumExp: [batch, heads, queries] */
export function fusedForward(gpu: Gpu, kernel: FusedKernel, { q, k, v, bias }: AttentionInputs, s: AttentionSizes) {
  const y = gpu.empty(s.shape, q.dtype),
    logSumExp = gpu.empty([s.batch, s.heads, s.queries]);
  const { code, uniforms, constants, grid } = launch[kernel](gpu, s, false, !!bias, 'forward');
  gpu.run(code, 'forward', uniforms, [q, k, v, bias ?? gpu.none, y, logSumExp], grid, constants);
  return { y, logSumExp };
}

/** Gradients by q, k and v from the scores computed once more: one pass for q, one for k and v. */
export function fusedBackward(
  gpu: Gpu,
  kernel: FusedKernel,
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
    dq = gpu.empty(q.shape, q.dtype);
    using unused = gpu.empty([1]);
    const { code, uniforms, constants, grid } = launch[kernel](gpu, s, false, !!bias, 'backward');
    gpu.run(code, 'backward', uniforms, [q, k, dy, v, bias ?? gpu.none, stats, dq, unused], grid, constants);
  }
  if (needs[1] || needs[2]) {
    dk = gpu.empty(k.shape, k.dtype);
    dv = gpu.empty(v.shape, v.dtype);
    const { code, uniforms, constants, grid } = launch[kernel](gpu, s, true, !!bias, 'backward');
    gpu.run(code, 'backward', uniforms, [k, q, v, dy, bias ?? gpu.none, stats, dk, dv], grid, constants);
  }
  return [dq, dk, dv];
}

type Direction = 'forward' | 'backward';
const launch = { subgroup: launchSubgroup, workgroup: launchWorkgroup };

function launchSubgroup(gpu: Gpu, s: AttentionSizes, rowsAreKeys: boolean, hasBias: boolean, direction: Direction) {
  const lanes = gpu.capabilities.subgroupSize;
  const rows = rowsAreKeys ? s.keys : s.queries;
  const cols = rowsAreKeys ? s.queries : s.keys;
  // Numbers that a row accumulates.
  const width = direction === 'forward' ? s.vdim : rowsAreKeys ? s.dim + s.vdim : s.dim;
  // A tile costs about as much as ROWS + 4, and every pair of sizes is a pipeline more to compile.
  const cost = (size: number) => Math.ceil(rows / size) * (size + 4);
  const ROWS = width <= 8 * lanes && cost(16) <= cost(8) ? 16 : 8;
  const parts = Math.ceil(cols / lanes);
  const most = direction === 'forward' && cols >= MANY_KEYS ? 2 * MOST_COLS : MOST_COLS;
  const COLS = Math.max(2, Math.ceil(parts / Math.ceil(parts / most)));
  const constants = {
    ROWS,
    COLS,
    LANES: lanes,
    DIMS: Math.ceil(s.dim / lanes),
    VDIMS: Math.ceil(s.vdim / lanes),
    ROWS_ARE_KEYS: rowsAreKeys,
    HAS_BIAS: hasBias,
  };
  const { uniforms, grid } = geometry(s, rowsAreKeys, ROWS);
  return { code: subgroupKernel, uniforms: { ...uniforms, dim: s.dim, vdim: s.vdim, lanes }, constants, grid };
}

function launchWorkgroup(_: Gpu, s: AttentionSizes, rowsAreKeys: boolean, hasBias: boolean, direction: Direction) {
  const held = direction === 'forward' ? s.dim : s.dim + s.vdim;
  const ROWS = [16, 8, 4].find((rows) => rows * held * 4 <= ROW_BYTES) ?? 2;
  const TEAM = 64 / ROWS;
  const DIMS = Math.ceil(s.dim / TEAM),
    VDIMS = Math.ceil(s.vdim / TEAM);
  const constants = {
    ROWS,
    TEAM,
    COLS: Math.max(16, TEAM),
    DIM: s.dim,
    VDIM: s.vdim,
    DIMS,
    VDIMS,
    ROWS_ARE_KEYS: rowsAreKeys,
    HAS_BIAS: hasBias,
  };
  return { code: unrolledOnce(workgroupKernel, { DIMS, VDIMS }), constants, ...geometry(s, rowsAreKeys, ROWS) };
}

/** One group for each `size` rows of each head. */
function geometry(s: AttentionSizes, rowsAreKeys: boolean, size: number) {
  const rows = rowsAreKeys ? s.keys : s.queries;
  const blocks = Math.ceil(rows / size);
  const groups = blocks * s.batch * s.heads;
  const uniforms = {
    rows,
    cols: rowsAreKeys ? s.queries : s.keys,
    heads: s.heads,
    blocks,
    groups,
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
  return { uniforms, grid: spread(groups) };
}

const named = (name: string, { batch, head, token }: Strides) => ({
  [`${name}Batch`]: batch,
  [`${name}Head`]: head,
  [`${name}Token`]: token,
});
