import code from './reduce.wgsl';
import { sizeOf } from './array.ts';
import type { DType, GpuArray, Shape } from './array.ts';
import { castTo } from './cast.ts';
import { map, withExpression } from './elementwise.ts';
import { shapeError } from './errors.ts';
import { wantFloats } from './floats.ts';
import { spread } from './gpu.ts';
import type { Gpu } from './gpu.ts';
import { lanes } from './lanes.ts';
import { outline } from './outline.ts';
import { hostArray } from './op.ts';
import type { HostArray, Op } from './op.ts';

const COMBINE = { sum: 0, max: 1, min: 2 };
const START = { sum: 0, max: -Infinity, min: Infinity };
const kernels = new Map<string, string>();

export interface Reduction {
  combine?: keyof typeof COMBINE;
  /** WGSL in a, b and s: what to add up. */
  f?: string;
  s?: number;
  scale?: number;
  /** Of the result; sums on the way are f32. */
  dtype?: DType;
}

/** How threads share the work: sizes count V. `team` threads to a row (inner = 1), `chunks` pieces of each long axis. */
export function plan(outer: number, length: number, inner: number, family: 'cpu' | 'gpu') {
  const team = inner > 1 || family === 'cpu' || length < 32 ? 1 : length < 512 ? 32 : 256;
  const rows = team === 256 ? 1 : team === 32 ? 8 : family === 'cpu' ? 32 : 64;
  const wanted = family === 'cpu' ? 512 : 32768;
  const threads = outer * inner * team;
  const most = Math.floor(length / (64 * team));
  const chunks = threads >= wanted || length <= 256 ? 1 : Math.max(1, Math.min(most, Math.ceil(wanted / threads)));
  const chunk = Math.ceil(length / chunks);
  return { team, rows, chunks: Math.ceil(length / chunk) || 1, chunk };
}

/** [outer, length, inner] → [outer, inner] */
export function reduce3(
  gpu: Gpu,
  operands: readonly GpuArray[],
  [outer, length, inner]: readonly [number, number, number],
  { combine = 'sum', f = 'a', s = 0, scale = 1, dtype = 'f32' }: Reduction = {},
): GpuArray {
  let base = kernels.get(f);
  if (!base) kernels.set(f, (base = withExpression(code, f)));
  const rowwise = inner === 1;
  const [kernel, width] = lanes(base, rowwise ? length : inner);
  const [n, m] = rowwise ? [width, 1] : [length, width];
  const { team, rows, chunks, chunk } = plan(outer, n, m, gpu.capabilities.family);
  const whole = chunks === 1;
  const y = whole ? gpu.empty([outer, inner], dtype) : gpu.empty([outer, chunks, inner]);
  const uniforms = { outer, length: n, inner: m, chunks, chunk, s, scale: whole ? scale : 1, start: START[combine] };
  const constants = { TEAM: team, ROWS: rows, ARITY: operands.length, COMBINE: COMBINE[combine] };
  const threads = outer * chunks * m;
  const arrays = [operands[0], operands[1] ?? gpu.none, y];
  gpu.run(kernel, rowwise ? 'rows' : 'columns', uniforms, arrays, spread(Math.ceil(threads / rows)), constants);
  if (whole) return y;
  const result = reduce3(gpu, [y], [outer, chunks, inner], { combine, scale, dtype });
  y.dispose();
  return result;
}

/** Neighbouring axes that are all reduced, or all kept, as one. */
function groups(shape: Shape, axes: ReadonlySet<number>): { size: number; reduced: boolean }[] {
  const list: { size: number; reduced: boolean }[] = [];
  shape.forEach((size, i) => {
    const reduced = axes.has(i);
    const last = list.at(-1);
    if (size === 1) return;
    if (last?.reduced === reduced) last.size *= size;
    else list.push({ size, reduced });
  });
  return list;
}

/** Reduce over `axes`; the result has `shape`, which must have as many elements as are kept. */
export function reduceAxes(
  gpu: Gpu,
  operands: readonly GpuArray[],
  axes: readonly number[],
  shape: Shape,
  how: Reduction = {},
): GpuArray {
  const list = groups(operands[0].shape, new Set(axes));
  const product = (from: number, to: number) => list.slice(from, to).reduce((n, g) => n * g.size, 1);
  let current: readonly GpuArray[] = operands;
  let { f, s, scale } = how;
  do {
    // The longest reduced group first: it shrinks the rest.
    const at = list.reduce(
      (best, g, i) => (g.reduced && !(list[best]?.reduced && list[best].size >= g.size) ? i : best),
      -1,
    );
    const sizes =
      at < 0
        ? ([product(0, list.length), 1, 1] as const)
        : ([product(0, at), list[at].size, product(at + 1, list.length)] as const);
    if (at >= 0) list.splice(at, 1);
    const dtype = list.some((g) => g.reduced) ? 'f32' : how.dtype;
    const next = reduce3(gpu, current, sizes, { combine: how.combine, f, s, scale, dtype });
    if (current !== operands) current[0].dispose();
    current = [next];
    [f, s, scale] = ['a', 0, 1];
  } while (list.some((g) => g.reduced));
  const result = current[0].view(shape);
  current[0].dispose();
  return result;
}

/** Add `x` up over the axes along which `shape` was broadcast to it. `x` itself, once more, when there are none. */
export function sumTo(gpu: Gpu, x: GpuArray, shape: Shape, dtype = x.dtype): GpuArray {
  if (x.size === sizeOf(shape)) {
    const same = castTo(x, dtype);
    const view = same.view(shape);
    same.dispose();
    return view;
  }
  const axes = x.shape.flatMap((d, i) => ((shape[shape.length - x.shape.length + i] ?? 1) === d ? [] : [i]));
  return reduceAxes(gpu, [x], axes, shape, { dtype });
}

/** Over which axes a reduction goes. */
export interface Axes {
  /** Axes to reduce over; all when absent. Negative ones count from the end. */
  axes?: readonly number[];
  /** Leave the reduced axes in place, with size 1. */
  keepdim?: boolean;
}

/** Axes as a sorted list of 0 … rank − 1, and the shapes of the result with and without them. */
export function resolveAxes(op: string, shape: Shape, { axes, keepdim = false }: Axes) {
  const list = distinctAxes(op, shape, axes ?? shape.map((_, i) => i)).sort((p, q) => p - q);
  const kept = shape.map((d, i) => (list.includes(i) ? 1 : d));
  const output = keepdim ? kept : shape.filter((_, i) => !list.includes(i));
  return { list, kept, output, count: list.reduce((n, axis) => n * shape[axis], 1) };
}

/** Axes as 0 … rank − 1, in their order. @throws when one of them is not there, or twice */
export function distinctAxes(op: string, shape: Shape, axes: readonly number[]): number[] {
  const list = axes.map((axis) => axisOf(op, shape, axis));
  if (new Set(list).size !== list.length)
    throw shapeError(op, `axes ${axes.join(', ')} name one axis twice`, { x: shape });
  return list;
}

export function axisOf(op: string, shape: Shape, axis: number): number {
  const resolved = axis < 0 ? axis + shape.length : axis;
  if (!Number.isInteger(axis) || resolved < 0 || resolved >= shape.length)
    throw shapeError(op, `there is no axis ${axis}`, { x: shape });
  return resolved;
}

function referenceReduce(
  name: string,
  x: HostArray,
  attrs: Axes,
  join: (p: number, q: number) => number,
  start: number,
  mean = false,
) {
  const { kept, output, count } = resolveAxes(name, x.shape, attrs);
  const y = hostArray(output);
  y.data.fill(start);
  x.data.forEach((v, i) => {
    let at = 0;
    let rest = i;
    let step = 1;
    for (let axis = x.shape.length - 1; axis >= 0; axis--) {
      const c = rest % x.shape[axis];
      rest = (rest - c) / x.shape[axis];
      if (kept[axis] > 1) at += c * step;
      step *= kept[axis];
    }
    y.data[at] = join(y.data[at], v);
  });
  if (mean) y.data.forEach((v, i) => (y.data[i] = v / count));
  return y;
}

/**
 * y = Σ x, or mean(x): 0, or NaN, of no numbers.   dx = dy, or dy / count, repeated along the axes.
 * @throws for axes that are not there
 */
function adder(name: 'sum' | 'mean'): Op<[x: GpuArray], Axes> {
  return {
    name,
    forward(gpu, [x], attrs) {
      wantFloats(name, { x });
      const { list, output, count } = resolveAxes(name, x.shape, attrs);
      return {
        output: reduceAxes(gpu, [x], list, output, { scale: name === 'mean' ? 1 / count : 1, dtype: x.dtype }),
        saved: [outline(x)],
      };
    },
    backward(gpu, dy, [{ shape }], attrs) {
      const { kept, count } = resolveAxes(name, shape, attrs);
      return [expandTo(gpu, dy, kept, shape, name === 'mean' ? 1 / count : 1)];
    },
    reference: ([x], attrs) => referenceReduce(name, x, attrs, (p, q) => p + q, 0, name === 'mean'),
  };
}

/** x repeated to `shape`, times `s`. `kept` is the shape of x with 1 for each axis along which it is repeated. */
export function expandTo(gpu: Gpu, x: GpuArray, kept: Shape, shape: Shape, s = 1): GpuArray {
  const view = x.view(kept);
  const y = s === 1 && view.size === sizeOf(shape) ? view.view(shape) : map(gpu, 'a * s', [view], { shape, s });
  view.dispose();
  return y;
}

/**
 * y = the largest (smallest) number, or NaN where there is one.   dx = dy where x = y, shared evenly between equals.
 * @throws for no numbers
 */
function extreme(name: 'max' | 'min'): Op<[x: GpuArray], Axes> {
  const start = name === 'max' ? -Infinity : Infinity;
  return {
    name,
    forward(gpu, [x], attrs) {
      wantFloats(name, { x });
      const { list, output, count } = resolveAxes(name, x.shape, attrs);
      if (count === 0 && sizeOf(output) > 0) throw shapeError(name, `no numbers, so there is no ${name}`, { x });
      const y = reduceAxes(gpu, [x], list, output, { combine: name, dtype: x.dtype });
      return { output: y, saved: [x, y] };
    },
    backward(gpu, dy, [x, y], attrs) {
      const { list, kept } = resolveAxes(name, x.shape, attrs);
      const [yk, dyk] = [y.view(kept), dy.view(kept)];
      const hit = map(gpu, 'select(0.0, 1.0, a == b)', [x, yk]);
      const count = reduceAxes(gpu, [hit], list, kept);
      const dx = map(gpu, 'a * b / c', [hit, dyk, count], { dtype: x.dtype });
      for (const array of [yk, dyk, hit, count]) array.dispose();
      return [dx];
    },
    reference: ([x], attrs) => referenceReduce(name, x, attrs, name === 'max' ? Math.max : Math.min, start),
  };
}

export const sum = adder('sum');
export const mean = adder('mean');
export const max = extreme('max');
export const min = extreme('min');

/**
 * The place of the first largest number along `axis`, or of the first NaN: i32. No gradient.
 * @throws when there is nothing along it
 */
export const argmax: Op<[x: GpuArray], { axis: number }> = {
  name: 'argmax',
  forward(gpu, [x], { axis }) {
    wantFloats('argmax', { x });
    const at = axisOf('argmax', x.shape, axis);
    const [outer, length, inner] = [sizeOf(x.shape.slice(0, at)), x.shape[at], sizeOf(x.shape.slice(at + 1))];
    if (length === 0 && outer * inner > 0) throw shapeError('argmax', 'no numbers, so none is the largest', { x });
    const y = gpu.empty(
      x.shape.filter((_, i) => i !== at),
      'i32',
    );
    const uniforms = { outer, length, inner, chunks: 1, chunk: length, s: 0, scale: 1, start: 0 };
    gpu.run(code, 'argmax', uniforms, [x, y], spread(Math.ceil((outer * inner) / 64)));
    return { output: y };
  },
  reference([x], { axis }) {
    const at = axisOf('argmax', x.shape, axis);
    const inner = sizeOf(x.shape.slice(at + 1));
    const y = hostArray(x.shape.filter((_, i) => i !== at));
    y.data.forEach((_, i) => {
      const base = Math.floor(i / inner) * x.shape[at] * inner + (i % inner);
      for (let k = 1; k < x.shape[at]; k++) {
        const [v, best] = [x.data[base + k * inner], x.data[base + y.data[i] * inner]];
        if (v > best || (Number.isNaN(v) && !Number.isNaN(best))) y.data[i] = k;
      }
    });
    return y;
  },
};
