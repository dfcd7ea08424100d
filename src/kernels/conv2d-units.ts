/** Convolutions and their gradients as matrix products on matrix units: tiles of x are gathered as the taps see them. */
import type { GpuArray } from './array.ts';
import type { Conv } from './conv2d-launch.ts';
import type { Gathered } from './conv2d-winograd.ts';
import { splitK } from './gemm.ts';
import { spread } from './gpu.ts';
import type { Gpu } from './gpu.ts';
import { loadable, multiples, NOT_GATHERED, pickUnits, runUnits, sliced } from './matrix-units.ts';
import type { Chunks } from './matrix-units.ts';
import { sumMiddle } from './sum-middle.ts';

/** How the weights lie, if units can load them: forwards along K, for the gradient of x along the columns. */
function weightChunks(s: Gathered, K: number): Chunks | undefined {
  const { tapsY, tapsX, inChannels, cols, weightBase, weightCol, weightTapY, weightTapX, weightChannel } = s;
  const rowOfTaps = tapsX === 1 || weightTapX === inChannels;
  const dense = weightChannel === 1 && rowOfTaps && (tapsY === 1 || weightTapY === tapsX * inChannels);
  if (dense) return { alongK: true, wide: multiples(8, K, weightCol, weightBase) };
  if (weightCol !== 1) return undefined;
  return { alongK: false, wide: multiples(8, cols, weightBase, weightTapY, weightTapX, weightChannel) };
}

/**
 * y = x ⋆ w (+ bias + temb + residual), where this adapter, the dtypes and the sizes allow.
 * @returns whether they do
 */
export function convOnUnits(
  gpu: Gpu,
  x: GpuArray,
  w: GpuArray,
  y: GpuArray,
  { bias, temb, residual }: { bias?: GpuArray; temb?: GpuArray; residual?: GpuArray },
  s: Gathered & Record<string, number>,
): boolean {
  const { capabilities, none } = gpu;
  const [M, N, K] = [s.rows, s.cols, s.tapsY * s.tapsX * s.inChannels];
  const b = weightChunks(s, K);
  if (!b || K === 0 || ![x, w].every((array) => loadable(gpu, array))) return false;
  const plan = pickUnits(M, N, K, 1, capabilities, forced(gpu));
  if (!plan) return false;
  const tilesN = Math.ceil(N / plan.cols);
  const tiles = Math.ceil(M / plan.rows) * tilesN;
  const { chunk, splits } = sliced(K, s.outStep === 1 ? splitK(tiles, K, M * N, true) : 1);
  const sums = splits > 1 ? gpu.empty([splits, M, N]) : undefined;
  // prettier-ignore
  const uniforms = {
    ...s, M, N, K, tilesN, tiles, splits, chunk, inner: 1,
    aRow: 0, aCol: 0, aStart: 0, aOuter: 0, aInner: 0,
    bRow: 1, bCol: s.weightCol, bStart: s.weightBase, bOuter: 0, bInner: 0,
    yStart: 0, yRow: 0, yOuter: 0, yInner: 0, ySplit: M * N,
    hasBias: +!!bias, hasTemb: +!!temb, hasResidual: +!!residual,
  };
  const call = {
    gather: 'a' as const,
    a: { alongK: true, wide: multiples(8, s.inChannels) },
    b,
    wideY: multiples(4, N),
  };
  const arrays = [x, w, bias ?? none, temb ?? none, residual ?? none, sums ?? y];
  runUnits(gpu, plan, call, uniforms, arrays, [...spread(tiles), splits]);
  if (sums) sumMiddle(gpu, sums, [1, splits, M * N], { into: y });
  sums?.dispose();
  return true;
}

/** dw of x ⋆ w, like w, where this adapter, the dtypes and the sizes allow: dyᵀ [O, pixels] · x [pixels, (tap, channel)]. */
export function convWeightOnUnits(
  gpu: Gpu,
  c: Conv,
  x: GpuArray,
  dy: GpuArray,
  { shape, dtype }: GpuArray,
): GpuArray | undefined {
  const [M, N, K] = [c.O, c.kh * c.kw * c.C, c.B * c.Ho * c.Wo];
  if (K === 0 || !multiples(8, c.C) || ![x, dy].every((array) => loadable(gpu, array))) return undefined;
  const plan = pickUnits(M, N, K, 1, gpu.capabilities, forced(gpu));
  if (!plan) return undefined;
  const tilesN = Math.ceil(N / plan.cols);
  const tiles = Math.ceil(M / plan.rows) * tilesN;
  const { chunk, splits } = sliced(K, splitK(tiles, K, M * N, true));
  const dw = splits > 1 ? gpu.empty([splits, ...shape]) : gpu.empty(shape, dtype);
  // prettier-ignore
  const uniforms = {
    ...NOT_GATHERED, M, N, K, tilesN, tiles, splits, chunk, inner: 1,
    aRow: 1, aCol: M, aStart: 0, aOuter: 0, aInner: 0,
    bRow: 0, bCol: 0, bStart: 0, bOuter: 0, bInner: 0,
    yStart: 0, yRow: N, yOuter: 0, yInner: 0, ySplit: M * N, hasBias: 0, hasResidual: 0,
    height: c.Ho, width: c.Wo, inHeight: c.H, inWidth: c.W, inChannels: c.C, tapsX: c.kw,
    stride: c.stride, dilationY: c.dilation, dilationX: c.dilation, originY: -c.top, originX: -c.left,
  };
  const a = { alongK: false, wide: multiples(8, M) };
  const call = { gather: 'b' as const, a, b: { alongK: false, wide: true }, wideY: true };
  const { none } = gpu;
  runUnits(gpu, plan, call, uniforms, [dy, x, none, none, none, dw], [...spread(tiles), splits]);
  if (splits === 1) return dw;
  using parts = dw;
  return sumMiddle(gpu, parts, [1, splits, M * N], { shape, dtype });
}

const forced = ({ capabilities: { force } }: Gpu) => force.conv2d ?? force.convTranspose2d;
