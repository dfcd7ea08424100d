import code from './softmax.wgsl';
import { sizeOf } from './array.ts';
import type { GpuArray, Shape } from './array.ts';
import { castTo } from './cast.ts';
import { map } from './elementwise.ts';
import { shapeError } from './errors.ts';
import { wantFloats } from './floats.ts';
import { spread } from './gpu.ts';
import type { Gpu } from './gpu.ts';
import { lanes } from './lanes.ts';
import { pick } from './layer-norm.ts';
import { hostArray } from './op.ts';
import type { HostArray, Op } from './op.ts';
import { axisOf, reduceAxes } from './reduce.ts';

function launch(
  gpu: Gpu,
  name: string,
  backward: boolean,
  arrays: readonly GpuArray[],
  shape: Shape,
  axis: number,
  log: boolean,
): void {
  const at = axisOf(name, shape, axis);
  const [outer, length, inner] = [sizeOf(shape.slice(0, at)), shape[at], sizeOf(shape.slice(at + 1))];
  const entry = (inner === 1 ? 'rows' : 'columns') + (backward ? '_backward' : '');
  const [kernel, width] = lanes(code, inner === 1 ? length : inner);
  if (inner === 1) {
    const team = pick('softmax', width, gpu.capabilities);
    gpu.run(kernel, entry, { outer, length: width, inner }, arrays, spread(Math.ceil(outer / team.ROWS)), {
      ...team,
      LOG: log,
    });
  } else {
    gpu.run(kernel, entry, { outer, length, inner: width }, arrays, spread(Math.ceil((outer * width) / 32)), {
      LOG: log,
    });
  }
}

/**
 * eˣ / Σ eˣ, or its logarithm, along one axis; shifted by the largest, so that nothing overflows.
 *
 *     softmax: dx = y · (dy − Σ dy · y)          log: y = x − ln Σ eˣ,  dx = dy − e^y · Σ dy      x, y, dx: one shape
 *
 * A row with NaN or +∞, or with nothing but −∞, is NaN.
 * @throws when there is no such axis
 * @see Milakov & Gimelshein 2018, Online normalizer calculation for softmax. https://arxiv.org/abs/1805.02867
 */
function softmaxOp(name: 'softmax' | 'logSoftmax'): Op<[x: GpuArray], { axis: number }> {
  const log = name === 'logSoftmax';
  return {
    name,
    forward(gpu, [x], { axis }) {
      wantFloats(name, { x });
      const y = gpu.empty(x.shape, x.dtype);
      launch(gpu, name, false, [x, y], x.shape, axis, log);
      return { output: y, saved: [y] };
    },
    backward(gpu, dy, [y], { axis }) {
      const dx = gpu.empty(y.shape, y.dtype);
      launch(gpu, name, true, [y, dy, dx], y.shape, axis, log);
      return [dx];
    },
    reference([x], { axis }) {
      const y = hostArray(x.shape);
      for (const places of lines(x, axisOf(name, x.shape, axis))) {
        const largest = Math.max(...places.map((i) => x.data[i]));
        const sum = places.reduce((s, i) => s + Math.exp(x.data[i] - largest), 0);
        for (const i of places)
          y.data[i] = log ? x.data[i] - largest - Math.log(sum) : Math.exp(x.data[i] - largest) / sum;
      }
      return y;
    },
  };
}

/** The places of each line along an axis. */
function lines(x: HostArray, axis: number): number[][] {
  const inner = sizeOf(x.shape.slice(axis + 1));
  const length = x.shape[axis];
  return Array.from({ length: x.data.length / length }, (_, n) =>
    Array.from({ length }, (_, k) => (Math.floor(n / inner) * length + k) * inner + (n % inner)),
  );
}

export const softmax = softmaxOp('softmax');
export const logSoftmax = softmaxOp('logSoftmax');

const LARGEST = '3.4028234e38';

/**
 * y = ln Σ eˣ along an axis.    dx = dy · e^(x − y)      x, dx: [..., n, ...]   y: without the axis, or with size 1
 *
 * @throws when there is no such axis, or nothing along it
 */
export const logsumexp: Op<[x: GpuArray], { axis: number; keepdim?: boolean }> = {
  name: 'logsumexp',
  forward(gpu, [x], { axis, keepdim = false }) {
    wantFloats('logsumexp', { x });
    const at = axisOf('logsumexp', x.shape, axis);
    const kept = x.shape.map((d, i) => (i === at ? 1 : d));
    if (x.size === 0 && sizeOf(kept) > 0) throw shapeError('logsumexp', 'no numbers to add up', { x });
    const largest = reduceAxes(gpu, [x], [at], kept, { combine: 'max' });
    // Shifted by a finite number, so that infinities come out as they should: ln Σ of nothing but e^−∞ is −∞.
    const powers = map(gpu, `exp(a - clamp(b, -${LARGEST}, ${LARGEST}))`, [x, largest]);
    const sums = reduceAxes(gpu, [powers], [at], kept);
    const y = map(gpu, `clamp(a, -${LARGEST}, ${LARGEST}) + log(b)`, [largest, sums]);
    const rounded = castTo(y, x.dtype);
    const output = rounded.view(keepdim ? kept : x.shape.filter((_, i) => i !== at));
    for (const array of [largest, powers, sums, rounded]) array.dispose();
    return { output, saved: [x, y] };
  },
  backward(gpu, dy, [x, y]) {
    const view = dy.view(y.shape);
    const dx = map(gpu, 'c * exp(a - b)', [x, y, view], { dtype: x.dtype });
    view.dispose();
    return [dx];
  },
  reference([x], { axis, keepdim = false }) {
    const at = axisOf('logsumexp', x.shape, axis);
    const shape = keepdim ? x.shape.map((d, i) => (i === at ? 1 : d)) : x.shape.filter((_, i) => i !== at);
    return hostArray(
      shape,
      lines(x, at).map((places) => {
        const largest = Math.max(...places.map((i) => x.data[i]));
        if (Math.abs(largest) === Infinity) return largest;
        return largest + Math.log(places.reduce((s, i) => s + Math.exp(x.data[i] - largest), 0));
      }),
    );
  },
};
