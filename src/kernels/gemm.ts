import type { DType, GpuArray, Shape } from './array.ts';
import type { Capabilities } from './device.ts';
import { spread } from './gpu.ts';
import type { Gpu } from './gpu.ts';
import code from './matmul.wgsl';
import subgroupCode from './matmul-subgroup.wgsl';
import { loadable, multiples, NOT_GATHERED, pickUnits, runUnits, sliced } from './matrix-units.ts';
import type { Chunks, UnitsPlan, UnitsVariant } from './matrix-units.ts';
import { sumMiddle } from './sum-middle.ts';

/** A matrix inside an array: where it starts and how far apart its rows and columns lie, in elements. */
export interface Matrix {
  array: GpuArray;
  row: number;
  col: number;
  start?: number;
  /** Distances between the matrices of the outer and the inner batch; 0 repeats one matrix. */
  outer?: number;
  inner?: number;
  /** Of B in strips of 64 columns: the distance between strips, where `col` is 1. */
  strip?: number;
}

export interface Gemm {
  M: number;
  N: number;
  K: number;
  /** [M, K] */
  a: Matrix;
  /** [K, N] */
  b: Matrix;
  /** Sizes of the outer and the inner batch. */
  batch?: readonly [number, number];
  /** [N], added to every row. */
  bias?: GpuArray;
  /** Shaped like the output, added to it. */
  residual?: GpuArray;
  /** Shape of the output, by default [batch, M, N]. */
  shape?: Shape;
  /** Of the output and of the row sums, f32 by default. Sums on the way are f32. */
  dtype?: DType;
  sumsDtype?: DType;
  /** Distances in the output, where it is not dense, and where it begins. */
  y?: { row: number; outer: number; inner: number; start?: number };
  /** Write into this array, which is then what comes back. Only with `y`. */
  into?: GpuArray;
  /** Also return the sums of A's rows, [batch, M]: the gradient of a bias comes free with that of its weight. */
  rowSums?: boolean;
}

type TileVariant = 'naive' | 'register-tile' | 'subgroup-tile' | 'workgroup-tile';
export type GemmVariant = TileVariant | UnitsVariant;
export interface GemmPlan {
  variant: GemmVariant;
  /** Rows and columns of a tile. */
  rows: number;
  cols: number;
  /** Parts that K is cut into where there are too few tiles to fill the adapter. */
  splits: number;
  /** Of the variants for matrix units. */
  units?: UnitsPlan;
}

/** Rows, and columns per lane, of the subgroup tile. */
const SUBGROUP_TILES = [
  [16, 8],
  [16, 4],
  [8, 4],
] as const;
/** Columns of the widest tile: a strip of B. */
export const STRIP = 64;
/** Bytes of one partial-sum workspace at most. */
const WORKSPACE = 64 * 2 ** 20;

/** Which kernel multiplies [M, K] by [K, N], `batch` times, on this adapter; `halves` says that matrix units could take them. */
export function pickGemm(
  M: number,
  N: number,
  K: number,
  batch: number,
  capabilities: Capabilities,
  force?: string,
  halves = false,
): GemmPlan {
  const { family, subgroups, subgroupSize, invocations } = capabilities;
  const fast =
    family === 'gpu' && invocations >= 256
      ? 'workgroup-tile'
      : subgroups && subgroupSize === 8
        ? 'subgroup-tile'
        : 'register-tile';
  const units = halves ? pickUnits(M, N, K, batch, capabilities, force) : undefined;
  const impossible = force?.startsWith('subgroup-') && (force !== 'subgroup-tile' || !(subgroups && subgroupSize > 1));
  const forced = impossible ? undefined : (force as TileVariant | undefined);
  const tiled = forced ?? (family === 'gpu' && M * N * batch < 4096 ? 'naive' : fast);
  const variant = units?.variant ?? tiled;
  const sizes = { naive: [8, 8], 'register-tile': [8, 32], 'workgroup-tile': [64, 64], 'subgroup-tile': [0, 0] };
  let [rows, cols] = units ? [units.rows, units.cols] : sizes[tiled];
  if (variant === 'subgroup-tile') {
    // Per tile and step of k: ROWS / LANES + COLS loads of some 8 ns, ROWS · COLS multiply-adds of 0.2 ns.
    const cost = ([r, c]: readonly [number, number]) =>
      Math.ceil(M / r) * Math.ceil(N / (c * subgroupSize)) * (r / subgroupSize + c + r * c * 0.025);
    const [r, c] = SUBGROUP_TILES.reduce((best, tile) => (cost(tile) < cost(best) ? tile : best));
    [rows, cols] = [r, c * subgroupSize];
  }
  const tiles = Math.ceil(M / rows) * Math.ceil(N / cols) * batch;
  const splits = splitK(tiles, K, M * N * batch, family === 'gpu' || !!units);
  return { variant, rows, cols, splits: units ? sliced(K, splits).splits : splits, units };
}

/** Parts of K that keep a GPU, or a few cores, busy where `outputs` numbers are made in few tiles. */
export function splitK(tiles: number, K: number, outputs: number, gpu: boolean): number {
  const [wanted, least] = gpu ? [256, 128] : [4, 512];
  const fitting = Math.floor(WORKSPACE / (outputs * 4));
  return Math.max(1, Math.min(Math.ceil(wanted / tiles), Math.floor(K / least), fitting));
}

/** How matrix units load the operands, if they can: halves whose neighbours lie along one of the axes. */
function chunksOf(gpu: Gpu, { M, N, K, a, b }: Gemm): { a: Chunks; b: Chunks } | undefined {
  const neighbours = (m: Matrix) => m.row === 1 || m.col === 1;
  if (b.strip !== undefined || ![a, b].every((m) => loadable(gpu, m.array) && neighbours(m))) return undefined;
  const even = ({ start = 0, outer = 0, inner = 0 }: Matrix) => multiples(8, start, outer, inner);
  const chunks = (m: Matrix, alongK: boolean, size: number, pitch: number) => ({
    alongK,
    wide: even(m) && multiples(8, alongK ? K : size, pitch),
  });
  return {
    a: a.col === 1 ? chunks(a, true, M, a.row) : chunks(a, false, M, a.col),
    b: b.row === 1 ? chunks(b, true, N, b.col) : chunks(b, false, N, b.row),
  };
}

const ENTRIES: Record<TileVariant, string> = {
  naive: 'naive',
  'register-tile': 'register_tile',
  'workgroup-tile': 'workgroup_tile',
  'subgroup-tile': 'forward',
};

/** y[z] = A[z]·B[z] + bias + residual.   @returns y: [batch, M, N] and, when asked for, sums: [batch, M], or [M] without a batch */
export function gemm(gpu: Gpu, g: Gemm, force?: string): { y: GpuArray; sums?: GpuArray } {
  if (!force && gpu.capabilities.family === 'cpu' && collides(g)) {
    using dense = pack(gpu, g);
    return gemm(gpu, { ...g, b: { array: dense, row: STRIP, col: 1, strip: g.K * STRIP } });
  }
  const { M, N, K, a, b, batch: [outer, inner] = [1, 1] } = g;
  const batch = outer * inner;
  const chunks = chunksOf(gpu, g);
  const plan = pickGemm(M, N, K, batch, gpu.capabilities, K === 0 ? 'naive' : force, !!chunks);
  const { variant, rows, cols, units } = plan;
  const splits = g.y ? 1 : plan.splits;
  const at = { start: 0, row: N, outer: inner * splits * M * N, inner: splits * M * N, ...g.y };
  const tilesN = Math.ceil(N / cols);
  const tilesM = Math.ceil(M / rows);
  const tiles = tilesM * tilesN;
  const split = splits > 1;
  const z = batch * splits;
  const shape = g.shape ?? [batch, M, N];
  const y = split ? gpu.empty([z, M, N]) : (g.into ?? gpu.empty(shape, g.dtype));
  const sumsShape = batch === 1 ? [M] : [batch, M];
  const sums = g.rowSums ? (split ? gpu.empty([z, M]) : gpu.empty(sumsShape, g.sumsDtype)) : undefined;
  const lanes = gpu.capabilities.subgroupSize;
  const uniforms = {
    M,
    N,
    K,
    tilesM,
    tilesN,
    tiles,
    splits,
    chunk: units ? sliced(K, splits).chunk : Math.ceil(K / splits),
    inner,
    lanes,
    aRow: a.row,
    aCol: a.col,
    bRow: b.row,
    bCol: b.col,
    aStart: a.start ?? 0,
    aOuter: a.outer ?? 0,
    aInner: a.inner ?? 0,
    bStart: b.start ?? 0,
    bOuter: b.outer ?? 0,
    bInner: b.inner ?? 0,
    bStrip: b.strip ?? STRIP * b.col,
    yStart: at.start,
    yRow: at.row,
    yOuter: at.outer,
    yInner: at.inner,
    ySplit: M * N,
    hasBias: +(!!g.bias && !split),
    hasResidual: +(!!g.residual && !split),
    hasSums: +!!sums,
  };
  const { none } = gpu;
  const [bias, residual] = split ? [none, none] : [g.bias ?? none, g.residual ?? none];
  const arrays = [a.array, b.array, bias, residual, y];
  const grid = [...spread(tiles), z];
  const sumRows = () => sums && gpu.run(code, 'row_sums', uniforms, [a.array, sums], [Math.ceil(M / 64), 1, z]);
  if (units) {
    const call = { ...chunks!, wideY: multiples(4, N, at.start, at.row, at.outer, at.inner) };
    const all = { ...NOT_GATHERED, ...uniforms };
    runUnits(gpu, units, call, all, [a.array, b.array, bias, none, residual, y], grid);
    sumRows();
  } else if (variant === 'subgroup-tile') {
    const unused = sums ? undefined : gpu.empty([1]);
    const constants = { ROWS: rows, COLS: cols / lanes, LANES: lanes };
    gpu.run(subgroupCode, 'forward', uniforms, [...arrays, sums ?? unused!], grid, constants);
    unused?.dispose();
  } else {
    gpu.run(code, ENTRIES[variant as TileVariant], uniforms, arrays, grid);
    sumRows();
  }
  if (!split) return { y, sums };
  using partial = y;
  using partialSums = sums;
  return {
    y: sumMiddle(gpu, partial, [batch, splits, M * N], {
      shape,
      bias: g.bias,
      residual: g.residual,
      dtype: g.dtype,
    }),
    sums: partialSums && sumMiddle(gpu, partialSums, [batch, splits, M], { shape: sumsShape, dtype: g.sumsDtype }),
  };
}

/** Columns of a shared B that lie a multiple of 1 KB apart and fall into the same few sets of the cache, tile after tile. */
const collides = ({ M, K, b, batch = [1, 1] }: Gemm): boolean =>
  b.row === 1 && b.col >= 512 && b.col % 256 === 0 && M >= 128 && K >= 256 && batch[0] * batch[1] === 1;

/** B in strips that each lie densely: [⌈N / 64⌉, K, 64]. */
function pack(gpu: Gpu, { N, K, b }: Gemm): GpuArray {
  const tilesN = Math.ceil(N / STRIP);
  const y = gpu.empty([tilesN, K, STRIP]);
  // prettier-ignore
  const uniforms = {
    M: 0, N, K, tilesN, tiles: 0, splits: 1, chunk: K, inner: 1, lanes: 0,
    aRow: 0, aCol: 0, bRow: b.row, bCol: b.col, aStart: 0, aOuter: 0, aInner: 0,
    bStart: b.start ?? 0, bOuter: 0, bInner: 0, bStrip: STRIP * b.col,
    yStart: 0, yRow: 0, yOuter: 0, yInner: 0, ySplit: 0, hasBias: 0, hasResidual: 0, hasSums: 0,
  };
  gpu.run(code, 'pack', uniforms, [b.array, y], spread(tilesN * Math.ceil(K / 16)));
  return y;
}
