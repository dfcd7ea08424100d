/** What is timed must be right first: results against the plain JavaScript references, gradients against slopes. */
import { add } from '../src/kernels/binary.ts';
import { attention } from '../src/kernels/attention.ts';
import { conv2d } from '../src/kernels/conv2d.ts';
import { groupNorm } from '../src/kernels/group-norm.ts';
import { hostArray } from '../src/kernels/index.ts';
import type { HostArray } from '../src/kernels/index.ts';
import { layerNorm } from '../src/kernels/layer-norm.ts';
import { linear } from '../src/kernels/linear.ts';
import { matmul } from '../src/kernels/matmul.ts';
import { softmax } from '../src/kernels/softmax.ts';
import * as T from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { opOf } from './calls.ts';
import { numbers } from './work.ts';
import type { Operand, Work, WorkOf } from './work.ts';

type OpWork = Exclude<Work, WorkOf<'train'>>;

const TOLERANCE = 2e-5;
/** Slopes are differences of float32 sums, and not quite straight. */
const SLOPE_TOLERANCE = 1e-2;

/** @throws when a part of the result is not what the op's JavaScript reference makes of the operands */
export async function checkResult(work: OpWork, operands: Operand[], tensors: Tensor[]): Promise<void> {
  const got = await T.noGrad(() => T.scope(() => opOf(work)(tensors).read()));
  for (const { want, at } of partsOf(work, operands)) {
    let [error, largest] = [0, 0];
    want.data.forEach((w, i) => {
      largest = Math.max(largest, Math.abs(w));
      error = Math.max(error, Math.abs(got[at(i)] - w) || (Number.isNaN(got[at(i)]) ? Infinity : 0));
    });
    if (!(error <= TOLERANCE * largest)) throw new Error(`a result is wrong by ${(error / largest).toExponential(1)}`);
  }
}

/** A part of the result by the reference, and where it lies in the whole. */
interface Part {
  want: HostArray;
  at(i: number): number;
}

/** Parts that need few operations and meet both edges and the middle: rows, pixels, groups. */
function partsOf(work: OpWork, operands: Operand[]): Part[] {
  const [x, w, b] = operands.map(({ shape, data }): HostArray => ({ shape, data: data as unknown as Float64Array }));
  if (work.kind === 'matmul' || work.kind === 'linear') {
    const op = work.kind === 'matmul' ? matmul : linear;
    return edges(work.M).map((m) => ({ want: op.reference([row(x, m, work.K), w], {}), at: (i) => m * work.N + i }));
  }
  if (work.kind === 'conv') return pixels(work, x, w, b);
  if (work.kind === 'attention') {
    const { B, heads, Tq, Tk, D } = work;
    const width = heads * D;
    const keys = (o: HostArray) => hostArray([1, Tk, width], o.data.subarray((B - 1) * Tk * width));
    return edges(Tq).map((t) => {
      const at = (B - 1) * Tq + t;
      const q = hostArray([1, 1, width], row(x, at, width).data);
      return { want: attention.reference([q, keys(w), keys(b), undefined], { heads }), at: (i) => at * width + i };
    });
  }
  if (work.kind === 'groupNormSilu') {
    const { B, H, W, C, groups } = work;
    const size = C / groups;
    return [0, groups - 1].map((g) => {
      const channel = (i: number) => g * size + (i % size);
      const at = (i: number) => ((B - 1) * H * W + Math.floor(i / size)) * C + channel(i);
      const part = hostArray(
        [1, H, W, size],
        Float64Array.from({ length: H * W * size }, (_, i) => x.data[at(i)]),
      );
      const affine = [w, b].map((o) => hostArray([size], o.data.subarray(g * size, (g + 1) * size)));
      return { want: groupNorm.reference([part, affine[0], affine[1]], { groups: 1, eps: 1e-5, silu: true }), at };
    });
  }
  if (work.kind === 'layerNorm') {
    const { rows, cols } = work;
    const attrs = { eps: 1e-5, axes: 1 };
    return edges(rows).map((r) => ({
      want: layerNorm.reference([row(x, r, cols), w, b], attrs),
      at: (i) => r * cols + i,
    }));
  }
  if (work.kind === 'softmax') {
    const cols = work.shape.at(-1)!;
    return edges(x.data.length / cols).map((r) => ({
      want: softmax.reference([row(x, r, cols)], { axis: -1 }),
      at: (i) => r * cols + i,
    }));
  }
  const length = Math.min(1000, work.n);
  const last = work.n - length;
  return [{ want: add.reference([row(x, 0, length, last), row(w, 0, length, last)], {}), at: (i) => last + i }];
}

/** A corner, the middle and the opposite corner of the last image: what a 3 × 3 window sees there. */
function pixels({ B, H, W, C, O }: WorkOf<'conv'>, x: HostArray, weight: HostArray, bias: HostArray): Part[] {
  return edges(H).map((h, n) => {
    const v = edges(W)[n];
    const [top, bottom, left, right] = [h === 0, h === H - 1, v === 0, v === W - 1].map(Number);
    const [height, width] = [3 - top - bottom, 3 - left - right];
    const patch = hostArray([1, height, width, C]);
    for (let i = 0; i < patch.data.length; i++) {
      const [py, px, c] = [Math.floor(i / (width * C)), Math.floor(i / C) % width, i % C];
      patch.data[i] = x.data[(((B - 1) * H + h - 1 + top + py) * W + v - 1 + left + px) * C + c];
    }
    const padding = [left, right, top, bottom] as const;
    const want = conv2d.reference([patch, weight, bias, undefined, undefined], { padding });
    return { want, at: (i) => (((B - 1) * H + h) * W + v) * O + i };
  });
}

const edges = (n: number): number[] => [...new Set([0, n >> 1, n - 1])];

/** Row `r` of rows of `length` numbers, from place `from`. */
const row = (x: HostArray, r: number, length: number, from = 0): HostArray =>
  hostArray([1, length], x.data.subarray(from + r * length, from + (r + 1) * length));

/**
 * Along its gradient g a function rises by g·g: L(x + εg) − L(x − εg) ≈ 2ε·g·g, for a random weighted sum L of the result.
 * @throws when the gradient of an operand is nothing or does not fit the slope
 */
export async function checkGradients(work: OpWork, tensors: Tensor[]): Promise<void> {
  const op = opOf(work);
  const size = T.noGrad(() => T.scope(() => op(tensors).shape));
  const weights = T.keep(
    T.tensor(
      numbers(
        size.reduce((a, b) => a * b, 1),
        99,
      ),
      size,
    ),
  );
  const loss = () => T.sum(T.mul(op(tensors), weights));
  const value = () => T.noGrad(() => T.scope(() => loss().item()));
  for (const x of tensors) x.requiresGrad = true;
  T.scope(() => loss().backward());
  for (const [i, x] of tensors.entries()) {
    const g = await x.grad!.read();
    const start = await x.read();
    const [steep, long] = [squares(g), squares(start)];
    if (!(steep > 0)) throw new Error(`gradient ${i} is nothing`);
    const epsilon = 0.01 * Math.sqrt(long / steep);
    const move = (e: number) => x.array.write(start.map((s, k) => s + e * g[k]));
    move(epsilon);
    const above = await value();
    move(-epsilon);
    const below = await value();
    x.array.write(start);
    const slope = (above - below) / (2 * epsilon);
    const error = Math.abs(slope - steep) / steep;
    if (!(error <= SLOPE_TOLERANCE)) throw new Error(`gradient ${i} misses the slope by ${error.toExponential(1)}`);
  }
  clearGradients(tensors);
  weights.dispose();
}

export function clearGradients(tensors: Tensor[]): void {
  for (const x of tensors) {
    x.grad?.dispose();
    x.grad = undefined;
    x.requiresGrad = false;
  }
}

function squares(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] * values[i];
  return sum;
}
