import type { GpuArray } from './array.ts';
import { shapeError } from './errors.ts';
import { wantFloats } from './floats.ts';
import { spread } from './gpu.ts';
import type { Gpu } from './gpu.ts';
import { hostArray } from './op.ts';
import type { HostArray, Op } from './op.ts';
import code from './upsample.wgsl';

/** The size to make: `size` [height, width], or `factor` times the size of x (2 when neither is given). */
export interface ResizeAttrs {
  size?: readonly [height: number, width: number];
  factor?: number;
}
/** Bilinear interpolation also has a say about corners. */
export interface BilinearAttrs extends ResizeAttrs {
  /** Corner pixels of x and y coincide, instead of their corners. */
  alignCorners?: boolean;
}

function resized(op: string, x: readonly number[], { size, factor = 2 }: ResizeAttrs) {
  if (x.length !== 4) throw shapeError(op, 'x must be [B, H, W, C]', { x });
  const [B, H, W, C] = x;
  if (H * W === 0) throw shapeError(op, 'x has no pixels', { x });
  const [Ho, Wo] = size ?? [Math.floor(H * factor), Math.floor(W * factor)];
  if (!(Ho >= 1 && Wo >= 1 && Number.isInteger(Ho) && Number.isInteger(Wo)))
    throw shapeError(op, `cannot make ${Ho}×${Wo} pixels`, { x });
  return { B, H, W, C, Ho, Wo };
}

/** The shape of the output of `upsampleNearest`.   x: [B, H, W, C] */
export function resizedShape(x: readonly number[], attrs: ResizeAttrs): readonly number[] {
  const { B, Ho, Wo, C } = resized('upsampleNearest', x, attrs);
  return [B, Ho, Wo, C];
}

function launch(
  gpu: Gpu,
  entry: string,
  op: string,
  x: readonly number[],
  attrs: ResizeAttrs,
  from: GpuArray,
  alignCorners = false,
): GpuArray {
  wantFloats(op, { x: from });
  const { B, H, W, C, Ho, Wo } = resized(op, x, attrs);
  const to = gpu.empty(entry.endsWith('backward') ? x : [B, Ho, Wo, C], from.dtype);
  const shape = { size: to.size, height: H, width: W, outHeight: Ho, outWidth: Wo, channels: C };
  gpu.run(code, entry, shape, [from, to], spread(Math.ceil(to.size / 64)), { ALIGN_CORNERS: alignCorners });
  return to;
}

/** y[b, i, j, c] = Σ weight · x[b, i', j', c] over the samples that `row` and `column` name. */
function referenceOf(
  op: string,
  x: HostArray,
  attrs: ResizeAttrs,
  samples: (o: number, n: number, out: number) => [i: number, w: number][],
) {
  const { B, H, W, C, Ho, Wo } = resized(op, x.shape, attrs);
  const y = hostArray([B, Ho, Wo, C]);
  for (let e = 0; e < y.data.length; e++) {
    const [c, p, o, b] = [e % C, Math.floor(e / C) % Wo, Math.floor(e / C / Wo) % Ho, Math.floor(e / C / Wo / Ho)];
    for (const [i, v] of samples(o, H, Ho)) {
      for (const [j, u] of samples(p, W, Wo)) y.data[e] += v * u * x.data[((b * H + i) * W + j) * C + c];
    }
  }
  return y;
}

/**
 * Resize by repeating the nearest pixel.    x: [B, H, W, C]   y: [B, Ho, Wo, C]
 *
 *     y[b, i, j, c] = x[b, ⌊i · H / Ho⌋, ⌊j · W / Wo⌋, c]        dx = Σ dy over the pixels made from it
 *
 * @throws when x has no pixels, or the new size is not whole
 */
export const upsampleNearest: Op<[x: GpuArray], ResizeAttrs> = {
  name: 'upsampleNearest',
  forward: (gpu, [x], attrs) => ({ output: launch(gpu, 'nearest', 'upsampleNearest', x.shape, attrs, x), saved: [x] }),
  backward: (gpu, dy, [x], attrs) => [launch(gpu, 'nearest_backward', 'upsampleNearest', x.shape, attrs, dy)],
  reference: ([x], attrs) => referenceOf('upsampleNearest', x, attrs, (o, n, out) => [[Math.floor((o * n) / out), 1]]),
};

/**
 * Resize by interpolating between the four pixels around each position.    x: [B, H, W, C]   y: [B, Ho, Wo, C]
 *
 *     position(o) = (o + ½) · n / out − ½, at least 0        with alignCorners: o · (n − 1) / (out − 1)
 *     y = Σ share(i) · share(j) · x[b, i, j, c]              dx[i, j] = Σ share(i) · share(j) · dy
 *
 * @throws when x has no pixels, or the new size is not whole
 */
export const upsampleBilinear: Op<[x: GpuArray], BilinearAttrs> = {
  name: 'upsampleBilinear',
  forward: (gpu, [x], attrs) => ({
    output: launch(gpu, 'bilinear', 'upsampleBilinear', x.shape, attrs, x, attrs.alignCorners),
    saved: [x],
  }),
  backward: (gpu, dy, [x], attrs) => [
    launch(gpu, 'bilinear_backward', 'upsampleBilinear', x.shape, attrs, dy, attrs.alignCorners),
  ],
  reference: ([x], attrs) =>
    referenceOf('upsampleBilinear', x, attrs, (o, n, out) => {
      const p = attrs.alignCorners
        ? out > 1
          ? (o * (n - 1)) / (out - 1)
          : 0
        : Math.max(0, ((o + 0.5) * n) / out - 0.5);
      const i = Math.min(Math.floor(p), n - 1);
      return [
        [i, 1 - (p - i)],
        [Math.min(i + 1, n - 1), p - i],
      ];
    }),
};
