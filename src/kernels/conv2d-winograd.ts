/** 3 × 3 convolutions in 16 products for each 4 outputs, where the definition takes 36. */
import type { GpuArray } from './array.ts';
import code from './conv2d-winograd.wgsl';
import { gemm, STRIP } from './gemm.ts';
import { spread } from './gpu.ts';
import type { Gpu } from './gpu.ts';

/** What it needs to know of a gathering convolution: see `gather` in conv2d-launch.ts. */
export type Gathered = Record<
  | 'rows'
  | 'height'
  | 'width'
  | 'cols'
  | 'inHeight'
  | 'inWidth'
  | 'inChannels'
  | 'tapsY'
  | 'tapsX'
  | 'stride'
  | 'dilationY'
  | 'dilationX'
  | 'originY'
  | 'originX'
  | 'outStep'
  | 'weightBase'
  | 'weightCol'
  | 'weightTapY'
  | 'weightTapX'
  | 'weightChannel',
  number
>;

const THREADS = 32;
const RUN = 8;
/** Bytes of one workspace, of three: the transformed image, weights and products. */
const WORKSPACE = 32 * 2 ** 20;
/** Tiles of a band: enough to make the transformed weights worth their while, few enough to stay in a cache. */
const TILES = 1024;
/** Bytes of the 16 numbers that stand for one channel of a tile. */
const TILE = 16 * 4;
/** A load or store of some lanes costs as much as so many multiply-adds of theirs inside a matrix product. */
const MOVE = 10;
/** What transforming the taps of one pair of channels costs, in the same unit. */
const WEIGHT = 150;

/** Multiply-adds of the definition below which it is kept: milliseconds are not worth workspaces larger than the image. */
const LEAST = 2 ** 28;

/** Whether the taps are 3 × 3 next to each other, every pixel is made, and one line of tiles fits an array. */
export const canWinograd = (s: Gathered, arrayLimit: number): boolean =>
  s.tapsY === 3 &&
  s.tapsX === 3 &&
  s.stride === 1 &&
  s.outStep === 1 &&
  s.dilationY === s.dilationX &&
  Math.abs(s.dilationY) === 1 &&
  TILE * Math.ceil(s.width / 2) * Math.max(s.inChannels, s.cols) <= arrayLimit &&
  TILE * s.inChannels * STRIP <= arrayLimit;

/** Whether it is also faster by a third: the ends take loads and stores, and memory, that the definition does not. */
export function winogradPays({ rows, height, width, cols, inChannels }: Gathered): boolean {
  const tiles = (rows / (height * width)) * Math.ceil(height / 2) * Math.ceil(width / 2);
  const pairs = inChannels * cols;
  if (rows * 9 * pairs < LEAST) return false;
  const cost = tiles * (16 * pairs + MOVE * (24 * inChannels + 20 * cols)) + WEIGHT * pairs;
  return cost < 0.75 * rows * 9 * pairs;
}

interface Extras {
  bias: GpuArray;
  temb: GpuArray;
  residual: GpuArray;
}

/**
 * y = x ⋆ w (+ bias + temb + residual), by bands: lines of tiles, and channels of y, whose workspaces stay small.
 *
 * @see Lavin & Gray 2015, Fast Algorithms for Convolutional Neural Networks, §4.1. https://arxiv.org/abs/1509.09308
 */
export function winograd(
  gpu: Gpu,
  x: GpuArray,
  w: GpuArray,
  y: GpuArray,
  { bias, temb, residual }: Extras,
  shape: Gathered & { biased: number },
  flags: { TEMB: boolean; RESIDUAL: boolean },
): void {
  const { rows, height, width, cols, inChannels, dilationY, originY, originX } = shape;
  const [tilesY, tilesX] = [Math.ceil(height / 2), Math.ceil(width / 2)];
  const allLines = (rows / (height * width)) * tilesY;
  const flip = dilationY < 0;
  const most = (bytes: number, all: number) => {
    const fit = Math.max(1, Math.min(all, Math.floor(Math.min(WORKSPACE, gpu.arrayLimit) / bytes)));
    return Math.ceil(all / Math.ceil(all / fit)); // parts of about one size
  };
  const lines = Math.min(most(TILE * tilesX * Math.max(inChannels, cols), allLines), Math.ceil(TILES / tilesX));
  const bandCols = STRIP * most(TILE * inChannels * STRIP, Math.ceil(cols / STRIP));
  const runs = Math.ceil(tilesX / RUN);
  const common = {
    ...shape,
    originY: flip ? originY - 2 : originY,
    originX: flip ? originX - 2 : originX,
    flip: +flip,
    tilesY,
    tilesX,
    runs,
  };
  const threads = (n: number) => spread(Math.ceil(n / THREADS));
  for (let line0 = 0; line0 < allLines; line0 += lines) {
    const band = { ...common, line0, lines: Math.min(lines, allLines - line0), col0: 0, bandCols: 0 };
    const tiles = band.lines * tilesX;
    using v = gpu.empty([16, tiles, inChannels]);
    gpu.run(code, 'input', band, [x, v], threads(band.lines * runs * inChannels));
    for (let col0 = 0; col0 < cols; col0 += bandCols) {
      const own = { ...band, col0, bandCols: Math.min(bandCols, cols - col0) };
      const N = own.bandCols;
      const strips = Math.ceil(N / STRIP);
      using u = gpu.empty([16, strips, inChannels, STRIP]);
      gpu.run(code, 'weights', own, [w, u], threads(Math.ceil(inChannels / 16) * N));
      const a = { array: v, row: inChannels, col: 1, inner: tiles * inChannels };
      const b = { array: u, row: STRIP, col: 1, strip: inChannels * STRIP, inner: strips * inChannels * STRIP };
      using m = gemm(gpu, { M: tiles, N, K: inChannels, batch: [1, 16], a, b }).y;
      gpu.run(code, 'output', own, [m, bias, temb, residual, y], threads(tiles * N), flags);
    }
  }
}
