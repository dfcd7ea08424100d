import { sizeOf } from './array.ts';
import type { DType, GpuArray, Shape } from './array.ts';
import { copyStrided, dense, denseStrides } from './copy.ts';
import type { Walk } from './copy.ts';
import { broadcastShape } from './elementwise.ts';
import { shapeError, wantWhole } from './errors.ts';
import { wantFloats, widest } from './floats.ts';
import { map } from './elementwise.ts';
import { hostArray } from './op.ts';
import type { HostArray, Op } from './op.ts';
import { outline } from './outline.ts';
import { axisOf, distinctAxes, sumTo } from './reduce.ts';
import { repeated } from './binary.ts';

/**
 * The same numbers in another shape; one size may be −1. Shares the memory. dx = dy.
 * @throws when the sizes differ
 */
export const reshape: Op<[x: GpuArray], { shape: Shape }> = {
  name: 'reshape',
  forward: (_, [x], { shape }) => ({ output: x.view(resolve(x.shape, shape)), saved: [outline(x)] }),
  backward: (_, dy, [x]) => [dy.view(x.shape)],
  reference: ([x], { shape }) => hostArray(resolve(x.shape, shape), x.data),
};

/** `to` with its −1 worked out. */
export function resolve(from: Shape, to: Shape): Shape {
  for (const d of to) if (d !== -1) wantWhole('reshape', 'a size', d, 0, { x: from, shape: to });
  if (to.filter((d) => d === -1).length > 1)
    throw shapeError('reshape', 'only one size may be −1', { x: from, shape: to });
  const known = to.reduce((n, d) => (d === -1 ? n : n * d), 1);
  const shape = to.map((d) => (d === -1 ? sizeOf(from) / known : d));
  if (sizeOf(shape) !== sizeOf(from) || shape.some((d) => !Number.isInteger(d))) {
    throw shapeError('reshape', `${sizeOf(from)} numbers do not fill [${to.join(', ')}]`, { x: from, shape: to });
  }
  return shape;
}

/** Copy all that `walk` visits in `x` into a new array of `shape`. */
function gathered(x: GpuArray, shape: Shape, walk: Walk): GpuArray {
  const y = x.gpu.empty(shape, x.dtype);
  copyStrided(x.gpu, shape, x, walk, y, dense(shape));
  return y;
}

/** Zeros of `shape` with dy copied to the places that `walk` visits. */
function scattered(dy: GpuArray, shape: Shape, walk: Walk): GpuArray {
  const dx = dy.gpu.zeros(shape, dy.dtype);
  copyStrided(dy.gpu, dy.shape, dy, dense(dy.shape), dx, walk);
  return dx;
}

function visit(x: HostArray, shape: Shape, { offset, strides }: Walk): HostArray {
  const y = hostArray(shape);
  y.data.forEach((_, n) => {
    let at = offset;
    let rest = n;
    for (let i = shape.length - 1; i >= 0; i--) {
      at += (rest % shape[i]) * strides[i];
      rest = Math.floor(rest / shape[i]);
    }
    y.data[n] = x.data[at];
  });
  return y;
}

/** An op that picks places of x by a walk; its gradient puts dy back there, into zeros where the walk does not go. */
function picker<A>(
  name: string,
  plan: (x: Shape, attrs: A) => { shape: Shape; walk: Walk; all?: boolean },
): Op<[x: GpuArray], A> {
  return {
    name,
    forward(_, [x], attrs) {
      const { shape, walk } = plan(x.shape, attrs);
      return { output: gathered(x, shape, walk), saved: [outline(x)] };
    },
    backward(gpu, dy, [x], attrs) {
      const { walk, all } = plan(x.shape, attrs);
      if (!all) return [scattered(dy, x.shape, walk)];
      const dx = gpu.empty(x.shape, x.dtype);
      copyStrided(gpu, dy.shape, dy, dense(dy.shape), dx, walk);
      return [dx];
    },
    reference([x], attrs) {
      const { shape, walk } = plan(x.shape, attrs);
      return visit(x, shape, walk);
    },
  };
}

/**
 * y[i…] = x[i…] with the axes in another order: axis k of y is axis `axes[k]` of x.
 * @throws unless `axes` has each axis once
 */
export const permute = picker<{ axes: readonly number[] }>('permute', (x, { axes }) => {
  const order = axes.map((axis) => axisOf('permute', x, axis));
  if (order.length !== x.length || new Set(order).size !== x.length)
    throw shapeError('permute', `axes ${axes} are not an order of ${x.length} axes`, { x });
  const strides = denseStrides(x);
  return { shape: order.map((i) => x[i]), walk: { offset: 0, strides: order.map((i) => strides[i]) }, all: true };
});

/** [start, stop, step] along one axis: counted from the end where negative; nothing takes all. */
export type Range = readonly [start?: number, stop?: number | null, step?: number] | null | undefined;

/**
 * y = x[start : stop : step, …]. Negative starts and stops count from the end; a missing range takes all.
 * @throws for step < 1
 */
export const slice = picker<{ ranges: readonly Range[] }>('slice', (x, { ranges }) => {
  if (ranges.length > x.length) throw shapeError('slice', `${ranges.length} ranges for ${x.length} axes`, { x });
  const strides = denseStrides(x);
  let offset = 0;
  const walk: number[] = [];
  const shape = x.map((size, i) => {
    const [start = 0, stop, step = 1] = ranges[i] ?? [];
    if (!Number.isInteger(step) || step < 1)
      throw shapeError('slice', `step ${step} on axis ${i}`, { x }, 'use flip() to go backwards');
    for (const v of [start, stop ?? 0])
      if (!Number.isInteger(v)) throw shapeError('slice', `${v} on axis ${i} is no whole number`, { x });
    const bound = (v: number) => Math.min(size, Math.max(0, v < 0 ? v + size : v));
    const first = bound(start);
    offset += first * strides[i];
    walk.push(strides[i] * step);
    return Math.max(0, Math.ceil((bound(stop ?? size) - first) / step));
  });
  return { shape, walk: { offset, strides: walk }, all: sizeOf(shape) === sizeOf(x) };
});

/** y[…, k, …] = x[…, n − 1 − k, …] along `axes`. @throws for an axis that is not there, or there twice */
export const flip = picker<{ axes: readonly number[] }>('flip', (x, { axes }) => {
  const strides = denseStrides(x);
  let offset = 0;
  for (const axis of distinctAxes('flip', x, axes)) {
    offset += (x[axis] - 1) * strides[axis];
    strides[axis] *= -1;
  }
  return { shape: x, walk: { offset, strides }, all: true };
});

/**
 * x repeated along axes of size 1, and along new axes in front, to `shape`. dx adds up the repeats.
 * @throws when x does not fit
 */
export const expand: Op<[x: GpuArray], { shape: Shape }> = {
  name: 'expand',
  forward(gpu, [x], { shape }) {
    const full = expanded(x.shape, shape);
    // Integers are copied as bits: as f32 they are denormals, which hardware may take for 0.
    const whole = x.dtype === 'i32' || x.dtype === 'u32';
    const output = whole ? gathered(x, full, repeats(x.shape, full)) : map(gpu, 'a', [x], { shape: full });
    return { output, saved: [outline(x)] };
  },
  backward: (gpu, dy, [x]) => [sumTo(gpu, dy, x.shape)],
  reference: ([x], { shape }) => {
    const full = expanded(x.shape, shape);
    return hostArray(full, repeated(x, full));
  },
};

function expanded(x: Shape, shape: Shape): Shape {
  for (const d of shape) wantWhole('expand', 'a size', d, 0, { x, shape });
  const full = broadcastShape('expand', [x, shape]);
  if (full.join() !== shape.join()) throw shapeError('expand', `x does not repeat to [${shape.join(', ')}]`, { x });
  return full;
}

/** The walk through x that visits it as often as `full` repeats it. */
function repeats(x: Shape, full: Shape): Walk {
  const [strides, more] = [denseStrides(x), full.length - x.length];
  return { offset: 0, strides: full.map((_, i) => (i < more || x[i - more] === 1 ? 0 : strides[i - more])) };
}

/**
 * All inputs one after the other along `axis`; dx are pieces of dy.
 * @throws when other axes or dtypes differ
 */
export const concat: Op<readonly GpuArray[], { axis: number }> = {
  name: 'concat',
  forward(gpu, inputs, { axis }) {
    const { shape, walks } = joined(
      inputs.map((x) => x.shape),
      axis,
    );
    const y = gpu.empty(shape, joinedDtype(inputs));
    inputs.forEach((x, i) => copyStrided(gpu, x.shape, x, dense(x.shape), y, walks[i]));
    return { output: y, saved: inputs.map(outline) };
  },
  backward(gpu, dy, inputs, { axis }, needs) {
    const { walks } = joined(
      inputs.map((x) => x.shape),
      axis,
    );
    return inputs.map((x, i) => {
      if (!needs[i]) return undefined;
      const dx = gpu.empty(x.shape, x.dtype);
      copyStrided(gpu, x.shape, dy, walks[i], dx, dense(x.shape));
      return dx;
    });
  },
  reference(inputs, { axis }) {
    const { shape } = joined(
      inputs.map((x) => x.shape),
      axis,
    );
    const inner = sizeOf(shape.slice(axisOf('concat', shape, axis) + 1));
    const y = hostArray(shape);
    let at = 0;
    for (let outer = 0; at < y.data.length; outer++) {
      for (const x of inputs) {
        const run = x.shape[axisOf('concat', shape, axis)] * inner;
        for (let k = 0; k < run; k++) y.data[at++] = x.data[outer * run + k];
      }
    }
    return y;
  },
};

/** f32 wins over f16; other dtypes must be one. */
function joinedDtype(inputs: readonly GpuArray[]): DType {
  const first = inputs[0].dtype;
  if (inputs.every((x) => x.dtype === first)) return first;
  wantFloats('concat', Object.fromEntries(inputs.map((x, i) => [`input ${i}`, x])));
  return widest(...inputs);
}

function joined(shapes: readonly Shape[], axis: number): { shape: Shape; walks: Walk[] } {
  if (!shapes.length) throw shapeError('concat', 'nothing to join');
  const at = axisOf('concat', shapes[0], axis);
  for (const s of shapes) {
    if (s.length !== shapes[0].length || s.some((d, i) => i !== at && d !== shapes[0][i])) {
      throw shapeError(
        'concat',
        `only axis ${at} may differ`,
        Object.fromEntries(shapes.map((x, i) => [`input ${i}`, x])),
      );
    }
  }
  const shape = shapes[0].map((d, i) => (i === at ? shapes.reduce((n, s) => n + s[at], 0) : d));
  const strides = denseStrides(shape);
  let start = 0;
  const walks = shapes.map((s) => {
    const offset = start * strides[at];
    start += s[at];
    return { offset, strides };
  });
  return { shape, walks };
}

/**
 * x with `value` around it: `pads[i]` = [before, after] on axis i. dx = the middle of dy.
 * @throws for negative widths
 */
export const pad: Op<[x: GpuArray], { pads: readonly (readonly [number, number])[]; value: number }> = {
  name: 'pad',
  forward(gpu, [x], { pads, value }) {
    const { shape, walk } = padded(x.shape, pads);
    if (value !== 0) wantFloats('pad', { x });
    const y = value === 0 ? gpu.zeros(shape, x.dtype) : map(gpu, 's', [x], { s: value, shape });
    copyStrided(gpu, x.shape, x, dense(x.shape), y, walk);
    return { output: y, saved: [outline(x)] };
  },
  backward(gpu, dy, [x], { pads }) {
    const dx = gpu.empty(x.shape, x.dtype);
    copyStrided(gpu, x.shape, dy, padded(x.shape, pads).walk, dx, dense(x.shape));
    return [dx];
  },
  reference([x], { pads, value }) {
    const { shape, walk } = padded(x.shape, pads);
    const y = hostArray(shape);
    y.data.fill(value);
    const places = visit(
      hostArray(
        shape,
        y.data.map((_, i) => i),
      ),
      x.shape,
      walk,
    ).data;
    places.forEach((at, i) => (y.data[at] = x.data[i]));
    return y;
  },
};

function padded(x: Shape, pads: readonly (readonly [number, number])[]): { shape: Shape; walk: Walk } {
  if (pads.length !== x.length)
    throw shapeError(
      'pad',
      `${pads.length} pairs of widths for ${x.length} axes`,
      { x },
      'one [before, after] for each axis',
    );
  for (const width of pads.flat()) wantWhole('pad', 'a width', width, 0, { x });
  const shape = x.map((d, i) => d + pads[i][0] + pads[i][1]);
  const strides = denseStrides(shape);
  return { shape, walk: { offset: pads.reduce((n, [before], i) => n + before * strides[i], 0), strides } };
}
