import code from './scan.wgsl';
import { sizeOf } from './array.ts';
import type { GpuArray } from './array.ts';
import { shapeError } from './errors.ts';
import { wantFloats } from './floats.ts';
import { spread } from './gpu.ts';
import { hostArray } from './op.ts';
import type { Op } from './op.ts';
import { axisOf } from './reduce.ts';

/**
 * y[k] = x[0] + … + x[k] along an axis.    dx[k] = dy[k] + … + dy[last]      x, y: one shape.
 * @throws when there is no such axis
 */
export const cumsum: Op<[x: GpuArray], { axis: number }> = {
  name: 'cumsum',
  forward: (_, [x], { axis }) => ({ output: running(x, axis, false) }),
  backward: (_, dy, __, { axis }) => [running(dy, axis, true)],
  reference([x], { axis }) {
    const y = hostArray(x.shape, x.data);
    const at = axisOf('cumsum', x.shape, axis);
    const inner = sizeOf(x.shape.slice(at + 1));
    y.data.forEach((_, i) => {
      if (Math.floor(i / inner) % x.shape[at] > 0) y.data[i] += y.data[i - inner];
    });
    return y;
  },
};

function running(x: GpuArray, axis: number, backwards: boolean): GpuArray {
  wantFloats('cumsum', { x });
  const at = axisOf('cumsum', x.shape, axis);
  const [outer, length, inner] = [sizeOf(x.shape.slice(0, at)), x.shape[at], sizeOf(x.shape.slice(at + 1))];
  const y = x.gpu.empty(x.shape, x.dtype);
  const uniforms = { outer, length, inner, backwards: Number(backwards), diagonal: 0 };
  x.gpu.run(code, 'cumsum', uniforms, [x, y], spread(Math.ceil((outer * inner) / 64)));
  return y;
}

/**
 * y[…, i, j] = x[…, i, j] where j ≤ i + diagonal, else 0; dx likewise.   x, y: [..., rows, columns].
 * @throws for one axis
 */
export const tril: Op<[x: GpuArray], { diagonal: number }> = {
  name: 'tril',
  forward: (_, [x], { diagonal }) => ({ output: triangle(x, diagonal) }),
  backward: (_, dy, __, { diagonal }) => [triangle(dy, diagonal)],
  reference: ([x], { diagonal }) => {
    const [rows, columns] = x.shape.slice(-2);
    return hostArray(
      x.shape,
      x.data.map((v, i) => (i % columns <= (Math.floor(i / columns) % rows) + diagonal ? v : 0)),
    );
  },
};

function triangle(x: GpuArray, diagonal: number): GpuArray {
  if (x.shape.length < 2) throw shapeError('tril', 'wants two axes or more', { x });
  wantFloats('tril', { x });
  if (!Number.isInteger(diagonal)) throw shapeError('tril', `diagonal ${diagonal} is no whole number`, { x });
  const [length, inner] = x.shape.slice(-2);
  const y = x.gpu.empty(x.shape, x.dtype);
  const uniforms = { outer: x.size / (length * inner), length, inner, backwards: 0, diagonal };
  x.gpu.run(code, 'tril', uniforms, [x, y], spread(Math.ceil(x.size / 64)));
  return y;
}
