/**
 * How ops work on arrays that are larger than one binding. Such an array lies in parts, some rows of its first axis each
 * (see GpuArray), and most ops are the same for every row: they run piece by piece. The tables at the end say which way each
 * op goes; what is not there refuses. An image that is too large by itself lies in bands: the second table.
 */
import { sizeOf } from './array.ts';
import type { GpuArray, Shape } from './array.ts';
import { attention } from './attention.ts';
import * as binary from './binary.ts';
import { conv2d, convShape } from './conv2d.ts';
import { convTranspose2d } from './conv2d-transpose.ts';
import { copyRange } from './copy.ts';
import { map } from './elementwise.ts';
import { embedding } from './embedding.ts';
import { mib, shapeError } from './errors.ts';
import { geglu } from './geglu.ts';
import type { Gpu } from './gpu.ts';
import { groupNorm } from './group-norm.ts';
import { layerNorm } from './layer-norm.ts';
import { linear } from './linear.ts';
import { outline } from './outline.ts';
import * as pooling from './pool2d.ts';
import { axisOf, mean, resolveAxes, sum } from './reduce.ts';
import type { Axes } from './reduce.ts';
import { concat, reshape, resolve as reshapedTo, slice } from './shape.ts';
import { logSoftmax, softmax } from './softmax.ts';
import { convInBands, cutAxes, partByPart, upsampleInBands } from './split-bands.ts';
import { convInParts, linearInParts } from './split-outputs.ts';
import { addTo, fits, joinRows, opsIn, pieceByPiece, rowsOf } from './split-pieces.ts';
import type { AnyOp, Operands, Rule } from './split-pieces.ts';
import * as unary from './unary.ts';
import * as upsampling from './upsample.ts';

/** `op` for these operands: itself, unless some are larger than one binding. @throws when it has no rule for them */
export function inParts(gpu: Gpu, op: AnyOp, inputs: Operands, attrs: object): AnyOp {
  const divided = inputs.filter((x) => x?.parts) as GpuArray[];
  const made = bytesMade(op, inputs, attrs);
  if (!divided.length && made <= gpu.arrayLimit) return op;
  const rows = Math.max(...(divided.length ? divided : [inputs[0]!]).map((x) => x.shape[0]));
  const chosen = (rows === 1 && op !== concat ? bandRules : rules).get(op.name)?.(op, inputs, attrs, inParts);
  if (chosen) return chosen;
  const limit = `more than this adapter binds at once (${mib(gpu.arrayLimit)})`;
  throw shapeError(
    op.name,
    divided.length
      ? `does not work in parts, and an operand is ${limit}`
      : `an array of ${mib(made)} is ${limit}, and cannot be made in parts`,
    Object.fromEntries(inputs.map((x, i) => ['abcdefgh'[i], x])),
    'use a smaller batch or image; src/kernels/split.ts says which ops do',
  );
}

/** Bytes of the output of ops that make more than they get. */
function bytesMade(op: AnyOp, inputs: Operands, attrs: any): number {
  const bytes = inputs.every((x) => x?.dtype === 'f16') ? 2 : 4;
  if (op === concat) return inputs.reduce((n, x) => n + bytes * x!.size, 0);
  if (op === conv2d) return bytes * sizeOf(convShape(inputs, attrs));
  if (op === upsampling.upsampleNearest) return bytes * sizeOf(upsampling.resizedShape(inputs[0]!.shape, attrs));
  return 0;
}

/** The operands at these positions have the first axis. */
const alongRows = (...positions: number[]): Rule =>
  pieceByPiece((inputs) => inputs.map((x, i) => x !== undefined && positions.includes(i)));

/** Operands broadcast: those with as many axes as the result and all its rows have them. */
const elementWise: Rule = pieceByPiece((inputs) => {
  const rank = Math.max(...inputs.map((x) => x?.shape.length ?? 0));
  const rows = Math.max(...inputs.map((x) => (x?.shape.length === rank ? x.shape[0] : 0)));
  return inputs.map((x) => x?.shape.length === rank && x.shape[0] === rows);
});

/** Ops along one axis, when it is not the first. */
const alongAxis: Rule = pieceByPiece(([x], { axis }) => (axisOf('axis', x!.shape, axis) === 0 ? undefined : [true]));

/** A view where rows of the new shape keep to the parts, else a copy. */
const reshapeRule: Rule = (op, inputs, { shape }: { shape: Shape }) => {
  const [x] = inputs as [GpuArray];
  const reshaped = (gpu: Gpu, from: GpuArray, to: Shape) => {
    const row = sizeOf(to) / to[0];
    const parts = (from.parts ?? [from]).map((part) => [part.size / row, ...to.slice(1)]);
    if (fits(gpu, to, parts)) return from.view(to);
    const y = gpu.empty(to, from.dtype);
    copyRange(from, 0, y, 0, y.size);
    return y;
  };
  return {
    ...op,
    forward: (gpu) => ({ output: reshaped(gpu, x, reshapedTo(x.shape, shape)), saved: [outline(x)] }),
    backward: (gpu, dy, [{ shape }]) => [reshaped(gpu, dy, shape)],
  };
};

/** sum and mean: rows by rows, or the sums of parts added up when the first axis goes too. */
const reduction: Rule = (op, inputs, attrs: Axes, choose) => {
  const [x] = inputs as [GpuArray];
  const { list, count } = resolveAxes(op.name, x.shape, attrs);
  if (!cutAxes(x).every((axis) => list.includes(axis))) {
    if (list.includes(0) || x.shape[0] === 1) return undefined;
    return pieceByPiece(() => [true])(op, inputs, attrs, choose);
  }
  const scale = op === mean ? 1 / count : 1;
  return {
    ...op,
    forward(gpu) {
      let total: GpuArray | undefined;
      for (const part of x.parts!) total = addTo(total, sum.forward(gpu, [part], attrs).output);
      if (scale === 1) return { output: total!, saved: x.parts!.map(outline) };
      const output = map(gpu, 'a * s', [total!], { s: scale });
      total!.dispose();
      return { output, saved: x.parts!.map(outline) };
    },
    backward(gpu, dy, saved) {
      const scaled = scale === 1 ? dy.view() : map(gpu, 'a * s', [dy], { s: scale });
      const pieces = saved.map((part) => sum.backward!(gpu, scaled, [part], attrs, [true])[0]!);
      scaled.dispose();
      return [joinRows(gpu, x.shape, pieces)];
    },
  };
};

/** Rows of the first axis are taken from the parts they lie in; the other axes from what is then at hand. */
const sliceRule: Rule = (op, inputs, { ranges }: Parameters<typeof slice.forward>[2], choose) => {
  const [x] = inputs as [GpuArray];
  const [start = 0, stop = null, step = 1] = ranges[0] ?? [];
  if (step !== 1) return undefined;
  const bound = (v: number) => Math.min(x.shape[0], Math.max(0, v < 0 ? v + x.shape[0] : v));
  const [from, to] = [bound(start), Math.max(bound(start), bound(stop ?? x.shape[0]))];
  const others = { ranges: [undefined, ...ranges.slice(1)] };
  let inner: AnyOp = slice;
  return {
    ...op,
    forward(gpu) {
      const rows = rowsOf(x, from, to);
      if (rows.parts) inner = pieceByPiece(() => [true])(slice, [rows], others, choose)!;
      const { output, saved = [] } = inner.forward(gpu, [rows], others);
      if (!saved.includes(rows)) rows.dispose();
      return { output, saved };
    },
    backward(gpu, dy, saved) {
      const [rows] = inner.backward!(gpu, dy, saved, others, [true]) as [GpuArray];
      const dx = gpu.zeros(x.shape);
      copyRange(rows, 0, dx, (from * x.size) / x.shape[0], rows.size);
      rows.dispose();
      return [dx];
    },
  };
};

/** Along the first axis the inputs lie one behind the other. */
const concatRule: Rule = (op, inputs, attrs: { axis: number }, choose) => {
  const list = inputs as readonly GpuArray[];
  if (axisOf('concat', list[0].shape, attrs.axis) !== 0) {
    return list[0].shape[0] > 1 && list.some((x) => x.parts)
      ? pieceByPiece(() => list.map(() => true))(op, inputs, attrs, choose)
      : undefined;
  }
  const rows = list.map((x) => x.shape[0]);
  return {
    ...op,
    forward(gpu) {
      const y = gpu.empty([rows.reduce((a, b) => a + b), ...list[0].shape.slice(1)], list[0].dtype);
      let at = 0;
      for (const x of list) {
        copyRange(x, 0, y, at, x.size);
        at += x.size;
      }
      return { output: y };
    },
    backward(_gpu, dy, _saved, _attrs, needs) {
      let first = 0;
      return rows.map((n, i) => {
        first += n;
        return needs[i] ? rowsOf(dy, first - n, first) : undefined;
      });
    },
  };
};

const rules = new Map<string, Rule>([
  [embedding.name, (op) => op], // by itself: one dispatch for each part of the table
  [reshape.name, reshapeRule],
  ...[...opsIn(unary), ...opsIn(binary)].map((op): [string, Rule] => [op.name, elementWise]),
  ...[...opsIn(pooling), ...opsIn(upsampling)].map((op): [string, Rule] => [op.name, alongRows(0)]),
  [softmax.name, alongAxis],
  [logSoftmax.name, alongAxis],
  [sum.name, reduction],
  [mean.name, reduction],
  [layerNorm.name, pieceByPiece(([x]) => (x!.shape.length > 1 ? [true, false, false] : undefined))],
  [groupNorm.name, alongRows(0)],
  [geglu.name, pieceByPiece(([x]) => (x!.shape.length > 1 ? [true, false, false] : undefined))],
  [linear.name, (...given) => (given[1][1]!.parts ? linearInParts : alongRows(0, 3))(...given)],
  [conv2d.name, (...given) => (given[1][1]!.parts ? convInParts : alongRows(0, 3, 4))(...given)],
  [convTranspose2d.name, alongRows(0)],
  [attention.name, pieceByPiece(([, , , bias]) => (bias ? undefined : [true, true, true]))],
  [slice.name, sliceRule],
  [concat.name, concatRule],
]);

/** For arrays of one row that is too large by itself. */
const bandRules = new Map<string, Rule>([
  [conv2d.name, convInBands],
  [upsampling.upsampleNearest.name, upsampleInBands],
  [groupNorm.name, (op) => op], // by itself: sums of each part, then of all
  [sum.name, reduction],
  [mean.name, reduction],
  ...[...opsIn(unary), ...opsIn(binary)].map((op): [string, Rule] => [op.name, partByPart]),
]);
