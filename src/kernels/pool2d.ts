import type { GpuArray } from './array.ts';
import { shapeError, wantWhole } from './errors.ts';
import { wantFloats } from './floats.ts';
import { spread } from './gpu.ts';
import { hostArray } from './op.ts';
import type { HostArray, Op } from './op.ts';
import code from './pool2d.wgsl';

/** A window of kernel × kernel pixels every `stride` (= kernel) pixels, with `padding` (= 0) on all four sides. */
export interface PoolAttrs {
  kernel: number;
  stride?: number;
  padding?: number;
}

function pooled(op: string, x: readonly number[], { kernel, stride = kernel, padding = 0 }: PoolAttrs) {
  if (x.length !== 4) throw shapeError(op, 'x must be [B, H, W, C]', { x });
  wantWhole(op, 'kernel', kernel, 1, { x });
  wantWhole(op, 'stride', stride, 1, { x });
  wantWhole(op, 'padding', padding, 0, { x });
  if (padding > kernel / 2) throw shapeError(op, `padding ${padding} is more than half the kernel ${kernel}`, { x });
  const [B, H, W, C] = x;
  if (H * W === 0) throw shapeError(op, 'x has no pixels', { x });
  const Ho = Math.floor((H + 2 * padding - kernel) / stride) + 1;
  const Wo = Math.floor((W + 2 * padding - kernel) / stride) + 1;
  if (Ho < 1 || Wo < 1) throw shapeError(op, `a ${kernel}×${kernel} window does not fit`, { x });
  const uniforms = { height: H, width: W, outHeight: Ho, outWidth: Wo, channels: C, kernel, stride, padding };
  return { shape: [B, Ho, Wo, C], H, W, C, Ho, Wo, kernel, stride, padding, uniforms };
}

/** Fold the window of every output element. */
function referenceOf(
  op: string,
  x: HostArray,
  attrs: PoolAttrs,
  fold: (window: number[], area: number) => number,
): HostArray {
  const { shape, H, W, C, Ho, Wo, kernel, stride, padding } = pooled(op, x.shape, attrs);
  const y = hostArray(shape);
  for (let e = 0; e < y.data.length; e++) {
    const [c, ox, oy, b] = [e % C, Math.floor(e / C) % Wo, Math.floor(e / C / Wo) % Ho, Math.floor(e / C / Wo / Ho)];
    const window: number[] = [];
    for (let i = oy * stride - padding; i < oy * stride - padding + kernel; i++) {
      for (let j = ox * stride - padding; j < ox * stride - padding + kernel; j++) {
        if (i >= 0 && j >= 0 && i < H && j < W) window.push(x.data[((b * H + i) * W + j) * C + c]);
      }
    }
    y.data[e] = fold(window, kernel * kernel);
  }
  return y;
}

/**
 * Average of each window; padding counts as zeros.    x: [B, H, W, C]   y: [B, Ho, Wo, C]
 *
 *     y = Σ x / k²        dx = Σ dy / k² over the windows that hold the pixel        Ho = ⌊(H + 2p − k) / s⌋ + 1
 *
 * @throws when the window does not fit, or p is more than half of it
 */
export const avgPool2d: Op<[x: GpuArray], PoolAttrs> = {
  name: 'avgPool2d',
  forward(gpu, [x], attrs) {
    wantFloats('avgPool2d', { x });
    const { shape, uniforms } = pooled('avgPool2d', x.shape, attrs);
    const y = gpu.empty(shape, x.dtype);
    gpu.run(code, 'average', { size: y.size, ...uniforms }, [x, y], spread(Math.ceil(y.size / 64)));
    return { output: y, saved: [x] };
  },
  backward(gpu, dy, [x], attrs) {
    const dx = gpu.empty(x.shape, x.dtype);
    const { uniforms } = pooled('avgPool2d', x.shape, attrs);
    gpu.run(code, 'average_backward', { size: x.size, ...uniforms }, [dy, dx], spread(Math.ceil(x.size / 64)));
    return [dx];
  },
  reference: ([x], attrs) =>
    referenceOf('avgPool2d', x, attrs, (window, area) => window.reduce((a, b) => a + b, 0) / area),
};

/**
 * The largest of each window, or NaN where it holds one.    x: [B, H, W, C]   y: [B, Ho, Wo, C]
 *
 *     y = max x        dx = Σ dy over the windows in which the pixel is the (first) largest
 *
 * @throws when the window does not fit, or p is more than half of it
 */
export const maxPool2d: Op<[x: GpuArray], PoolAttrs> = {
  name: 'maxPool2d',
  forward(gpu, [x], attrs) {
    wantFloats('maxPool2d', { x });
    const { shape, uniforms } = pooled('maxPool2d', x.shape, attrs);
    const y = gpu.empty(shape, x.dtype);
    const chosen = gpu.empty(shape, 'u32');
    gpu.run(code, 'largest', { size: y.size, ...uniforms }, [x, y, chosen], spread(Math.ceil(y.size / 64)));
    return { output: y, saved: [x, chosen] };
  },
  backward(gpu, dy, [x, chosen], attrs) {
    const dx = gpu.empty(x.shape, x.dtype);
    const { uniforms } = pooled('maxPool2d', x.shape, attrs);
    gpu.run(code, 'largest_backward', { size: x.size, ...uniforms }, [dy, dx, chosen], spread(Math.ceil(x.size / 64)));
    return [dx];
  },
  reference: ([x], attrs) => referenceOf('maxPool2d', x, attrs, (window) => Math.max(...window)),
};
