import code from './cast.wgsl';
import type { DType, GpuArray } from './array.ts';
import { shapeError } from './errors.ts';
import { floatToHalf, halfToFloat } from './half.ts';
import { spread } from './gpu.ts';
import { hostArray } from './op.ts';
import type { Op } from './op.ts';
import { outline } from './outline.ts';

const VECTORS = { f32: 'vec4f', f16: 'vec4f', i32: 'vec4i', u32: 'vec4u' } as const;

const kernels = new Map<string, string>();

function kernelFor(from: DType, to: DType): string {
  const [From, To] = [VECTORS[from], VECTORS[to]];
  let kernel = kernels.get(From + To);
  if (!kernel) {
    kernel = code
      .replace('alias From = vec4f;', `alias From = ${From};`)
      .replace('alias To = vec4f;', `alias To = ${To};`);
    kernels.set(From + To, kernel);
  }
  return kernel;
}

/** to ← the numbers of `from`, each rounded to the dtype of `to`. */
export function castInto(from: GpuArray, to: GpuArray): void {
  if (from.size !== to.size) throw shapeError('cast', 'sizes differ', { from, to });
  if (from.dtype === to.dtype) return from.gpu.copy(from, to);
  const n = Math.ceil(to.size / 4);
  from.gpu.run(kernelFor(from.dtype, to.dtype), 'convert', { n }, [from, to], spread(Math.ceil(n / 256)));
}

/** The numbers of x as `dtype`: another array over the same memory when they are that already. */
export function castTo(x: GpuArray, dtype: DType): GpuArray {
  if (x.dtype === dtype) return x.view();
  const y = x.gpu.empty(x.shape, dtype);
  castInto(x, y);
  return y;
}

/** y = x rounded to `dtype`.    dx = dy, rounded to the dtype of x; none through integers */
export const cast: Op<[x: GpuArray], { dtype: DType }> = {
  name: 'cast',
  forward: (_, [x], { dtype }) => ({ output: castTo(x, dtype), saved: [outline(x)] }),
  backward: (_, dy, [x]) => [isFloat(x.dtype) && isFloat(dy.dtype) ? castTo(dy, x.dtype) : undefined],
  reference: ([x], { dtype }) => hostArray(x.shape, x.data.map(ROUND[dtype])),
};

const isFloat = (dtype: DType): boolean => dtype === 'f32' || dtype === 'f16';

const ROUND = {
  f32: (v: number) => v,
  f16: (v: number) => halfToFloat(floatToHalf(v)),
  i32: (v: number) => Math.min(Math.max(Math.trunc(v), -(2 ** 31)), 2 ** 31 - 1),
  u32: (v: number) => Math.min(Math.max(Math.trunc(v), 0), 2 ** 32 - 1),
};
