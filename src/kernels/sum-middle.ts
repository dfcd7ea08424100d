import type { DType, GpuArray, Shape } from './array.ts';
import { spread } from './gpu.ts';
import type { Gpu } from './gpu.ts';
import code from './sum-middle.wgsl';

/** y = scale · Σ over the middle axis of x + bias + residual.   x: [outer, count, inner]   bias: [last axis]   y: [outer, inner] */
export function sumMiddle(
  gpu: Gpu,
  x: GpuArray,
  [outer, count, inner]: readonly [number, number, number],
  {
    shape = [outer, inner],
    bias,
    residual,
    scale = 1,
    dtype = 'f32',
    into,
  }: { shape?: Shape; bias?: GpuArray; residual?: GpuArray; scale?: number; dtype?: DType; into?: GpuArray } = {},
): GpuArray {
  const y = into ?? gpu.empty(shape, dtype);
  const uniforms = { size: y.size, inner, count, biasSize: bias?.size ?? 0, hasResidual: +!!residual, scale };
  gpu.run(code, 'forward', uniforms, [x, bias ?? gpu.none, residual ?? gpu.none, y], spread(Math.ceil(y.size / 64)));
  return y;
}
