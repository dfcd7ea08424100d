import { embedding as embeddingOp } from '../../kernels/embedding.ts';
import * as picking from '../../kernels/gather.ts';
import { shapeError, wantWhole } from '../../kernels/index.ts';
import type { Shape } from '../../kernels/index.ts';
import { axisOf } from '../../kernels/reduce.ts';
import * as scan from '../../kernels/scan.ts';
import * as ops from '../../kernels/shape.ts';
import type { Range } from '../../kernels/shape.ts';
import { apply, Tensor } from '../tensor.ts';

/** The same numbers in another shape; one size may be −1. */
export const reshape = (x: Tensor, shape: Shape): Tensor => apply(ops.reshape, [x], { shape });

/** Axes in another order: axis k of the result is axis `axes[k]` of x. */
export const permute = (x: Tensor, axes: readonly number[]): Tensor => apply(ops.permute, [x], { axes });

/** Two axes exchanged, the last two when not said. */
export function transpose(x: Tensor, a = -2, b = -1): Tensor {
  const axes = x.shape.map((_, i) => i);
  const [p, q] = [axisOf('transpose', x.shape, a), axisOf('transpose', x.shape, b)];
  [axes[p], axes[q]] = [q, p];
  return permute(x, axes);
}

/** x repeated along axes of size 1, and along new axes in front. */
export const expand = (x: Tensor, shape: Shape): Tensor => apply(ops.expand, [x], { shape });

/** All tensors one after the other along `axis`. */
export const concat = (tensors: readonly Tensor[], { axis = -1 } = {}): Tensor => apply(ops.concat, tensors, { axis });

/** All tensors side by side along a new axis. */
export function stack(tensors: readonly Tensor[], { axis = 0 } = {}): Tensor {
  const shape = tensors[0]?.shape ?? [];
  if (tensors.some((t) => t.shape.join() !== shape.join()))
    throw shapeError('stack', 'shapes differ', Object.fromEntries(tensors.map((t, i) => [`input ${i}`, t])));
  const at = axisOf('stack', [...shape, 1], axis);
  return concat(
    tensors.map((t) => reshape(t, [...shape.slice(0, at), 1, ...shape.slice(at)])),
    { axis: at },
  );
}

/** x[start : stop : step, …]: a range, or undefined for all, for each axis from the first. */
export const slice = (x: Tensor, ranges: readonly Range[]): Tensor => apply(ops.slice, [x], { ranges });

/** `length` places along `axis` from `start`. */
export function narrow(x: Tensor, { axis, start, length }: { axis: number; start: number; length: number }): Tensor {
  const at = axisOf('narrow', x.shape, axis);
  for (const [name, value] of Object.entries({ start, length })) wantWhole('narrow', name, value, 0, { x });
  if (start + length > x.shape[at])
    throw shapeError('narrow', `${length} places from ${start} do not fit into ${x.shape[at]} on axis ${at}`, { x });
  const ranges: Range[] = x.shape.map(() => undefined);
  ranges[at] = [start, start + length];
  return slice(x, ranges);
}

/** x cut along `axis` into pieces of the given sizes. */
export function split(x: Tensor, sizes: readonly number[], { axis = -1 } = {}): Tensor[] {
  const length = x.shape[axisOf('split', x.shape, axis)];
  for (const size of sizes) wantWhole('split', 'a size', size, 0, { x });
  if (sizes.reduce((n, d) => n + d, 0) !== length)
    throw shapeError('split', `${sizes.join(' + ')} is not ${length}`, { x: x.shape });
  let start = 0;
  return sizes.map((size) => {
    start += size;
    return narrow(x, { axis, start: start - size, length: size });
  });
}

/** x cut along `axis` into `n` pieces of one size; the last may be smaller. */
export function chunk(x: Tensor, n: number, { axis = -1 } = {}): Tensor[] {
  const length = x.shape[axisOf('chunk', x.shape, axis)];
  wantWhole('chunk', 'n', n, 1, { x });
  const size = Math.max(1, Math.ceil(length / n));
  const sizes = Array.from({ length: Math.ceil(length / size) }, (_, i) => Math.min(size, length - i * size));
  return split(x, sizes, { axis });
}

/** The order along `axes` reversed. */
export const flip = (x: Tensor, axes: readonly number[]): Tensor => apply(ops.flip, [x], { axes });

/** Every place along `axis` `repeats` times in a row. */
export function repeatInterleave(x: Tensor, repeats: number, { axis = -1 } = {}): Tensor {
  const at = axisOf('repeatInterleave', x.shape, axis);
  wantWhole('repeatInterleave', 'repeats', repeats, 0, { x });
  const before = x.shape.slice(0, at + 1);
  const after = x.shape.slice(at + 1);
  const wide = expand(reshape(x, [...before, 1, ...after]), [...before, repeats, ...after]);
  return reshape(
    wide,
    x.shape.map((d, i) => (i === at ? d * repeats : d)),
  );
}

/** x with more around it: `pads[i]` = [before, after] on axis i. 'reflect' mirrors x without repeating its edge. */
export function pad(
  x: Tensor,
  pads: readonly (readonly [number, number])[],
  { mode = 'constant', value = 0 }: { mode?: 'constant' | 'reflect'; value?: number } = {},
): Tensor {
  if (mode !== 'constant' && mode !== 'reflect')
    throw new TypeError(`pad: there is no mode '${mode as string}'\n  known: constant reflect`);
  if (mode === 'constant') return apply(ops.pad, [x], { pads, value });
  if (pads.length !== x.shape.length)
    throw shapeError(
      'pad',
      `${pads.length} pairs of widths for ${x.shape.length} axes`,
      { x },
      'one [before, after] for each axis',
    );
  for (const width of pads.flat()) wantWhole('pad', 'a width', width, 0, { x });
  return pads.reduce((y, [before, after], axis) => {
    const length = y.shape[axis];
    if (Math.max(before, after) >= length)
      throw shapeError('pad', `cannot reflect ${Math.max(before, after)} of ${length} on axis ${axis}`, { x: x.shape });
    const parts = [y];
    if (before) parts.unshift(flip(narrow(y, { axis, start: 1, length: before }), [axis]));
    if (after) parts.push(flip(narrow(y, { axis, start: length - 1 - after, length: after }), [axis]));
    return parts.length > 1 ? concat(parts, { axis }) : y;
  }, x);
}

/** Running sums along `axis`. */
export const cumsum = (x: Tensor, { axis = -1 } = {}): Tensor => apply(scan.cumsum, [x], { axis });

/** The lower triangle of the last two axes; `diagonal` moves its edge up. */
export const tril = (x: Tensor, { diagonal = 0 } = {}): Tensor => apply(scan.tril, [x], { diagonal });

/** Rows of a table [rows, width] by number.   ids: i32 [...] → [..., width] */
export const embedding = (table: Tensor, ids: Tensor): Tensor => apply(embeddingOp, [table, ids], {});

/** y[…, m, …] = x[…, index[…, m, …], …] along `axis`; the index is i32. */
export const gather = (x: Tensor, index: Tensor, { axis = -1 } = {}): Tensor =>
  apply(picking.gather, [x, index], { axis });

/** y[…, m, …] = x[…, index[m], …] along `axis`; the index is i32 [count]. */
export const indexSelect = (x: Tensor, index: Tensor, { axis = 0 } = {}): Tensor =>
  apply(picking.indexSelect, [x, index], { axis });
