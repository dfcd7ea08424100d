/** Matrix products and convolutions of halves on matrix units: which tile, how operands are loaded, the launch. */
import type { GpuArray } from './array.ts';
import type { Capabilities } from './device.ts';
import type { Gpu } from './gpu.ts';
import code from './matrix-units.wgsl';
import { withEmulatedUnits, withMatrixUnits } from './subgroup-matrix.ts';
import type { MatrixUnit } from './subgroup-matrix.ts';

/** 'subgroup-matrix-emulated' is the same kernel with its units in plain arithmetic: slow, for tests, and only when forced. */
export type UnitsVariant = 'subgroup-matrix' | 'subgroup-matrix-emulated';

export interface UnitsPlan {
  variant: UnitsVariant;
  unit: MatrixUnit;
  /** Rows and columns of a tile. */
  rows: number;
  cols: number;
  /** Slices of K in workgroup memory: 2 where they fit, so that one is filled while the other is read. */
  stages: number;
  /** Threads of a subgroup. */
  lanes: number;
}

/** Whether the halves of an operand that neighbour each other lie along K, and whether any 8 from a multiple of 8 on are one word. */
export interface Chunks {
  alongK: boolean;
  wide: boolean;
}

/** Columns of A and rows of B in a slice. */
const DEPTH = 32;
/** Halves in 16 bytes. */
const CHUNK = 8;
const SUBGROUPS = 2;
const TILES = [
  [128, 128],
  [128, 64],
  [64, 64],
] as const;
/** Tiles below which the next smaller kind is taken: about one for each processor of a large GPU. */
const ENOUGH = 128;
const EMULATED: MatrixUnit = { M: 16, N: 16, K: 16, inputs: 'f16', sums: 'f32' };

/** The tile for [M, K]·[K, N] of halves, `batch` times, on an adapter with matrix units, if they pay: M, N and K fill some. */
export function pickUnits(
  M: number,
  N: number,
  K: number,
  batch: number,
  { matrixUnits, subgroups, subgroupSize, workgroupStorage, invocations }: Capabilities,
  force?: string,
): UnitsPlan | undefined {
  const emulated = force === 'subgroup-matrix-emulated';
  if (force && force !== 'subgroup-matrix' && !emulated) return undefined;
  const sizes = [
    [16, 16],
    [8, 16],
    [8, 8],
  ];
  const known = sizes.flatMap(([m, n]) =>
    matrixUnits.filter((u) => u.inputs === 'f16' && u.sums === 'f32' && u.M === m && u.N === n && DEPTH % u.K === 0),
  );
  const unit = known[0] ?? (emulated ? EMULATED : undefined);
  const lanes = emulated ? 32 : subgroups ? subgroupSize : 0;
  if (!unit || lanes < 8 || lanes > 64 || lanes * SUBGROUPS ** 2 > invocations) return undefined;
  if (!force && (M < unit.M || N < unit.N || K < DEPTH || M * N * batch < 4096)) return undefined;
  const fitting = TILES.filter(([rows, cols]) => bytes(rows, cols, unit, 1) <= workgroupStorage);
  const count = ([rows, cols]: readonly [number, number]) => Math.ceil(M / rows) * Math.ceil(N / cols) * batch;
  const tile = fitting.find((t) => count(t) >= ENOUGH) ?? fitting.at(-1);
  if (!tile) return undefined;
  const [rows, cols] = tile;
  const stages = bytes(rows, cols, unit, 2) <= workgroupStorage ? 2 : 1;
  return { variant: emulated ? 'subgroup-matrix-emulated' : 'subgroup-matrix', unit, rows, cols, stages, lanes };
}

/** Workgroup memory of a tile: slices with padded lines, or the strip that its sums pass through. */
const bytes = (rows: number, cols: number, unit: MatrixUnit, stages: number): number =>
  Math.max(stages * (rows + cols) * (DEPTH + 8) * 2, SUBGROUPS * unit.M * (cols + 4) * 4);

/** What a launch is made of besides sizes: how operands lie, and what the result is. */
export interface UnitsCall {
  /** The operand that is gathered as the taps of a convolution see it. */
  gather?: 'a' | 'b';
  a: Chunks;
  b: Chunks;
  /** Whether 4 neighbours of y, bias, temb and residual are one word. */
  wideY: boolean;
}

/** Uniforms of a product that gathers nothing. */
// prettier-ignore
export const NOT_GATHERED = {
  hasTemb: 0, height: 1, width: 1, inHeight: 0, inWidth: 0, inChannels: 1, tapsX: 1, stride: 0,
  dilationY: 0, dilationX: 0, originY: 0, originX: 0, outHeight: 0, outWidth: 0, outStep: 0, outY: 0, outX: 0,
  weightTapY: 0, weightTapX: 0, weightChannel: 0,
};

/** The kernel of a plan, and its constants. */
export function unitsKernel(
  { variant, unit, rows, cols, stages, lanes }: UnitsPlan,
  { gather, a, b, wideY }: UnitsCall,
) {
  const constants = {
    GATHER: gather === 'a',
    GATHER_B: gather === 'b',
    A_ALONG_K: a.alongK,
    B_ALONG_K: b.alongK,
    A_WIDE: a.wide,
    B_WIDE: b.wide,
    WIDTH: wideY ? 4 : 1,
    STAGES: stages,
    UNIT_M: unit.M,
    UNIT_N: unit.N,
    UNIT_K: unit.K,
    FRAGS_M: rows / SUBGROUPS / unit.M,
    FRAGS_N: cols / SUBGROUPS / unit.N,
    LANES: lanes,
  };
  const key = `${variant} ${Object.values(constants).join()}`;
  let text = texts.get(key);
  if (!text) {
    const base = wideY ? code : singles(code);
    const loads = (lines: number) => (lines * DEPTH) / CHUNK / (lanes * SUBGROUPS ** 2);
    const { FRAGS_M, FRAGS_N } = constants;
    const bounds = { CHUNK, A_LOADS: loads(rows), B_LOADS: loads(cols), FRAGS_M, FRAGS_N, STEPS: DEPTH / unit.K };
    const left = a.alongK ? 'row_major' : 'col_major';
    const right = b.alongK ? 'col_major' : 'row_major';
    text =
      variant === 'subgroup-matrix' ? withMatrixUnits(base, unit, { left, right }, bounds) : withEmulatedUnits(base);
    texts.set(key, text);
  }
  return { text, constants };
}
const texts = new Map<string, string>();

/** The kernel for results whose lines begin anywhere: a number where it had four. */
const singles = (text: string): string =>
  text.replace('alias V = vec4<f32>;', 'alias V = f32;').replace('stage[at / 4u]', 'stage[at / 4u][at % 4u]');

/** Append the product of halves a and b.   arrays: a, b, bias, temb, residual, y, as in matrix-units.wgsl */
export function runUnits(
  gpu: Gpu,
  plan: UnitsPlan,
  call: UnitsCall,
  uniforms: Readonly<Record<string, number>>,
  arrays: readonly GpuArray[],
  grid: readonly number[],
): void {
  const { text, constants } = unitsKernel(plan, call);
  gpu.run(text, 'multiply', uniforms, arrays, grid, constants);
}

/** About `splits` parts of K that are whole slices, and how many there are. */
export function sliced(K: number, splits: number): { chunk: number; splits: number } {
  const chunk = Math.ceil(K / splits / DEPTH) * DEPTH;
  return { chunk, splits: Math.ceil(K / chunk) };
}

/** Whether an operand can be loaded by words of 16 bytes at all: halves, none of them behind the last whole word of its binding. */
export const loadable = (gpu: Gpu, { dtype, size }: GpuArray): boolean =>
  dtype === 'f16' && size * 2 <= Math.floor(gpu.arrayLimit / 16) * 16;

/** Whether all of these are multiples of n. */
export const multiples = (n: number, ...numbers: readonly number[]): boolean => numbers.every((v) => v % n === 0);
