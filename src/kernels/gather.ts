import code from './gather.wgsl';
import { sizeOf } from './array.ts';
import type { GpuArray, Shape } from './array.ts';
import { shapeError } from './errors.ts';
import { wantFloats } from './floats.ts';
import { spread } from './gpu.ts';
import { hostArray } from './op.ts';
import type { Op } from './op.ts';
import { outline } from './outline.ts';
import { axisOf } from './reduce.ts';

/** Sizes around the axis, and the shape of what is picked. */
function geometry(name: string, x: Shape, index: Shape, axis: number, shared: boolean) {
  const at = axisOf(name, x, axis);
  const fits = shared ? index.length === 1 : index.length === x.length && index.every((d, i) => i === at || d === x[i]);
  if (!fits)
    throw shapeError(name, shared ? 'the index must have one axis' : `only axis ${at} may differ`, { x, index });
  if (x[at] === 0 && sizeOf(index) > 0) throw shapeError(name, `axis ${at} is empty`, { x, index });
  const count = shared ? index[0] : index[at];
  const uniforms = { outer: sizeOf(x.slice(0, at)), length: x[at], inner: sizeOf(x.slice(at + 1)), count };
  return { uniforms, shape: x.map((d, i) => (i === at ? count : d)) };
}

function picking(name: 'gather' | 'indexSelect'): Op<[x: GpuArray, index: GpuArray], { axis: number }> {
  const shared = name === 'indexSelect';
  return {
    name,
    forward(gpu, [x, index], { axis }) {
      wantFloats(name, { x });
      if (index.dtype !== 'i32') throw shapeError(name, 'the index must be i32', { x, index });
      const { uniforms, shape } = geometry(name, x.shape, index.shape, axis, shared);
      const y = gpu.empty(shape, x.dtype);
      gpu.run(code, 'forward', uniforms, [index, x, y], spread(Math.ceil(y.size / 64)), { SHARED: shared });
      return { output: y, saved: [outline(x), index] };
    },
    backward(gpu, dy, [x, index], { axis }) {
      const { uniforms } = geometry(name, x.shape, index.shape, axis, shared);
      const dx = gpu.empty(x.shape, x.dtype);
      gpu.run(code, 'backward', uniforms, [index, dy, dx], spread(Math.ceil(dx.size / 64)), { SHARED: shared });
      return [dx];
    },
    reference([x, index], { axis }) {
      const { uniforms, shape } = geometry(name, x.shape, index.shape, axis, shared);
      const { length, inner, count } = uniforms;
      const y = hostArray(shape);
      y.data.forEach((_, id) => {
        const at = index.data[shared ? Math.floor(id / inner) % count : id];
        y.data[id] = x.data[(Math.floor(id / inner / count) * length + at) * inner + (id % inner)];
      });
      return y;
    },
  };
}

/**
 * y[…, m, …] = x[…, index[…, m, …], …]: an index for each number; NaN where x has no such place.
 *
 *     dx[…, k, …] = Σ dy[…, m, …] over m with index[…, m, …] = k      x: [..., n, ...]   index: i32, y: [..., count, ...]
 *
 * @throws when the index is not i32, or differs from x beside the axis
 */
export const gather = picking('gather');
/**
 * y[…, m, …] = x[…, index[m], …]: one index for all; NaN where x has no such place.
 *
 *     dx[…, k, …] = Σ dy[…, m, …] over m with index[m] = k      x: [..., n, ...]   index: [count]   y: [..., count, ...]
 *
 * @throws when the index is not i32 [count]
 */
export const indexSelect = picking('indexSelect');
