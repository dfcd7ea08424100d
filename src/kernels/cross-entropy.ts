import code from './cross-entropy.wgsl';
import type { GpuArray } from './array.ts';
import { map } from './elementwise.ts';
import { shapeError } from './errors.ts';
import { wantFloats } from './floats.ts';
import { spread } from './gpu.ts';
import { hostArray } from './op.ts';
import type { Op } from './op.ts';
import { reduce3 } from './reduce.ts';
import { wantReduction } from './loss.ts';
import type { Reduction } from './loss.ts';

export interface CrossEntropyAttrs {
  reduction: Reduction;
  /** Rows with this label count for nothing. */
  ignoreIndex?: number;
  /** ε: this much of the weight is spread over all classes. */
  labelSmoothing?: number;
}

/**
 * −(1 − ε) · ln p[label] − ε · mean(ln p) with p = softmax(x) over the last axis; the mean is over labels that count.
 *
 * A label that is no class gives NaN, and so does its row of the gradient.
 *
 *     x: [..., classes]   labels: i32 [...]      dx = dy / count · (p − (1 − ε) · onehot − ε / classes)
 *
 * @throws when there is not one i32 label for each row, or no class
 * @see Szegedy et al. 2015, Rethinking the Inception Architecture, §7, for ε. https://arxiv.org/abs/1512.00567
 */
export const crossEntropy: Op<[x: GpuArray, labels: GpuArray], CrossEntropyAttrs> = {
  name: 'crossEntropy',
  forward(gpu, [x, labels], { reduction, ignoreIndex = -100, labelSmoothing = 0 }) {
    const classes = x.shape.at(-1) ?? 0;
    const rows = labels.size;
    if (x.shape.slice(0, -1).join() !== labels.shape.join())
      throw shapeError('crossEntropy', 'one label for each row of x is wanted', { x, labels });
    wantFloats('crossEntropy', { x });
    wantReduction('crossEntropy', reduction);
    if (classes === 0 && rows > 0) throw shapeError('crossEntropy', 'there are no classes', { x, labels });
    if (!Number.isInteger(ignoreIndex))
      throw shapeError('crossEntropy', `ignoreIndex ${ignoreIndex} is no whole number`, { x, labels });
    if (!(labelSmoothing >= 0 && labelSmoothing <= 1))
      throw shapeError('crossEntropy', `labelSmoothing is ${labelSmoothing}, must be from 0 to 1`, { x, labels });
    if (labels.dtype !== 'i32') throw shapeError('crossEntropy', 'labels must be i32', { x, labels });
    const losses = gpu.empty(labels.shape);
    const [counts, logSums] = [gpu.empty([rows]), gpu.empty([rows])];
    const uniforms = { rows, classes, ignore: ignoreIndex, smoothing: labelSmoothing, each: 0 };
    gpu.run(code, 'forward', uniforms, [x, labels, losses, counts, logSums], spread(Math.ceil(rows / 64)));
    if (reduction === 'none') {
      counts.dispose();
      return { output: losses, saved: [x, labels, undefined, logSums] };
    }
    const total = reduce3(gpu, [losses], [1, rows, 1]);
    const count = reduction === 'mean' ? reduce3(gpu, [counts], [1, rows, 1]) : undefined;
    const output = count ? map(gpu, 'a / b', [total, count], { shape: [] }) : total.view([]);
    for (const array of [losses, counts, total]) array.dispose();
    return { output, saved: [x, labels, count, logSums] };
  },
  backward(gpu, dy, [x, labels, count, logSums], { reduction, ignoreIndex = -100, labelSmoothing = 0 }) {
    const dx = gpu.empty(x.shape, x.dtype);
    const one = count ?? gpu.array([1], [1]);
    const uniforms = {
      rows: labels.size,
      classes: x.shape.at(-1)!,
      ignore: ignoreIndex,
      smoothing: labelSmoothing,
      each: Number(reduction === 'none'),
    };
    gpu.run(code, 'backward', uniforms, [x, labels, dy, one, logSums, dx], spread(Math.ceil(x.size / 64)));
    if (!count) one.dispose();
    return [dx];
  },
  reference([x, labels], { reduction, ignoreIndex = -100, labelSmoothing = 0 }) {
    const classes = x.shape.at(-1)!;
    const losses = labels.data.map((label, row) => {
      if (label === ignoreIndex) return 0;
      const values = x.data.subarray(row * classes, (row + 1) * classes);
      const logSum = Math.log(values.reduce((s, v) => s + Math.exp(v), 0));
      return (
        logSum - (1 - labelSmoothing) * values[label] - (labelSmoothing / classes) * values.reduce((s, v) => s + v, 0)
      );
    });
    if (reduction === 'none') return hostArray(labels.shape, losses);
    const sum = losses.reduce((s, v) => s + v, 0);
    return hostArray([], [reduction === 'sum' ? sum : sum / labels.data.filter((l) => l !== ignoreIndex).length]);
  },
};
