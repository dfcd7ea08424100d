/**
 * How ops work on arrays that are larger than one binding. Such an array lies in parts, some rows of its first axis each
 * (see GpuArray), and most ops are the same for every row: they run piece by piece. The table at the end says which way each
 * op goes; what is not in it refuses.
 */
import { accumulate } from './accumulate.ts';
import { GpuArray, partition, sizeOf } from './array.ts';
import type { Shape } from './array.ts';
import { attention } from './attention.ts';
import * as binary from './binary.ts';
import { conv2d } from './conv2d.ts';
import { convTranspose2d } from './conv2d-transpose.ts';
import { copyRange, copyStrided, denseStrides } from './copy.ts';
import { map } from './elementwise.ts';
import { embedding } from './embedding.ts';
import { mib, shapeError } from './errors.ts';
import { geglu } from './geglu.ts';
import type { Gpu } from './gpu.ts';
import { groupNorm } from './group-norm.ts';
import { layerNorm } from './layer-norm.ts';
import { linear } from './linear.ts';
import type { Op } from './op.ts';
import { outline } from './outline.ts';
import * as pooling from './pool2d.ts';
import { axisOf, mean, resolveAxes, sum } from './reduce.ts';
import type { Axes } from './reduce.ts';
import { concat, reshape, resolve as reshapedTo, slice } from './shape.ts';
import { logSoftmax, softmax } from './softmax.ts';
import * as unary from './unary.ts';
import * as upsampling from './upsample.ts';

type AnyOp = Op<any, any>;
type Operands = readonly (GpuArray | undefined)[];
/** The op for operands some of which are in parts, or undefined when it cannot be. */
type Rule = (op: AnyOp, inputs: Operands, attrs: any) => AnyOp | undefined;

/** `op` for these operands: itself, unless some are larger than one binding. @throws when it has no rule for them */
export function inParts(gpu: Gpu, op: AnyOp, inputs: Operands, attrs: object): AnyOp {
  const bytes = inputs.every((x) => x?.dtype === 'f16') ? 2 : 4;
  const total = op === concat ? inputs.reduce((n, x) => n + bytes * x!.size, 0) : 0;
  if (total <= gpu.arrayLimit && !inputs.some((x) => x?.parts)) return op;
  const chosen = rules.get(op.name)?.(op, inputs, attrs);
  if (chosen) return chosen;
  throw shapeError(
    op.name,
    `does not work in parts, and an operand is larger than this adapter binds at once (${mib(gpu.arrayLimit)})`,
    Object.fromEntries(inputs.map((x, i) => ['abcdefgh'[i], x])),
    'use a smaller batch or image; src/kernels/split.ts says which ops do',
  );
}

/** Rows `from` … `to` of any array: a share of it where that is possible, else a copy. */
function rowsOf(x: GpuArray, from: number, to: number): GpuArray {
  const row = x.size / x.shape[0];
  let first = 0;
  for (const part of x.parts ?? [x]) {
    if (first === from && first + part.shape[0] === to) return part.view();
    first += part.shape[0];
  }
  const y = x.gpu.empty([to - from, ...x.shape.slice(1)], x.dtype);
  copyRange(x, from * row, y, 0, y.size);
  return y;
}

/** Do pieces with so many rows make an array of `shape` as gpu.empty() would divide it? Optimisers count on that. */
function fits(gpu: Gpu, shape: Shape, rows: readonly number[]): boolean {
  if (4 * sizeOf(shape) <= gpu.arrayLimit) return rows.length === 1;
  return partition('split', shape, gpu.arrayLimit).join() === rows.join();
}

/** An array of `shape` made of pieces along its first axis, which it takes over. */
function joinRows(gpu: Gpu, shape: Shape, pieces: readonly GpuArray[]): GpuArray {
  const { dtype } = pieces[0];
  const rows = pieces.map((piece) => piece.shape[0]);
  if (fits(gpu, shape, rows)) {
    return pieces.length === 1 ? pieces[0] : new GpuArray(gpu, gpu.none.storage, shape, dtype, pieces);
  }
  const y = gpu.empty(shape, dtype);
  let at = 0;
  for (const piece of pieces) {
    copyRange(piece, 0, y, at, piece.size);
    at += piece.size;
    piece.dispose();
  }
  return y;
}

/** Adds up what pieces contribute to an operand that they share. */
function addTo(total: GpuArray | undefined, term: GpuArray): GpuArray {
  if (!total) return term;
  if (total.shared) {
    const copy = total.gpu.empty(total.shape);
    total.gpu.copy(total, copy);
    total.dispose();
    total = copy;
  }
  accumulate(total, term);
  term.dispose();
  return total;
}

/**
 * Piece by piece along the first axis. `divided` tells of each operand whether it has that axis; the others are the same for
 * all pieces, and their gradients add up.
 */
function pieceByPiece(divided: (inputs: Operands, attrs: any) => readonly boolean[] | undefined): Rule {
  return (op, inputs, attrs) => {
    const byRows = divided(inputs, attrs);
    if (!byRows || inputs.some((x, i) => x?.parts && !byRows[i])) return undefined;
    // Cut as the operand is with the largest rows.
    const cut = inputs.reduce((a, b) => ((b?.parts?.length ?? 0) > (a?.parts?.length ?? 0) ? b : a))!;
    const cuts: [from: number, to: number][] = [];
    for (const part of cut.parts!) cuts.push([cuts.at(-1)?.[1] ?? 0, (cuts.at(-1)?.[1] ?? 0) + part.shape[0]]);
    const shapes = inputs.map((x) => x?.shape);
    let savedEach = 0;
    return {
      ...op,
      forward(gpu) {
        const outputs: GpuArray[] = [];
        const saved: (GpuArray | undefined)[] = [];
        for (const [from, to] of cuts) {
          const operands = inputs.map((x, i) => (x && byRows[i] ? rowsOf(x, from, to) : x));
          const piece = op.forward(gpu, operands, attrs);
          const kept = piece.saved ?? [];
          savedEach = kept.length;
          outputs.push(piece.output);
          saved.push(...kept.map((array) => (array === piece.output ? array.view() : array)));
          operands.forEach((x, i) => byRows[i] && !kept.includes(x) && x?.dispose());
        }
        const rest = outputs[0].shape.slice(1);
        return { output: joinRows(gpu, [cut.shape[0], ...rest], outputs), saved };
      },
      backward(gpu, dy, saved, _, needs) {
        const pieces: GpuArray[][] = inputs.map(() => []);
        const totals: (GpuArray | undefined)[] = inputs.map(() => undefined);
        cuts.forEach(([from, to], k) => {
          const slice = rowsOf(dy, from, to);
          const own = saved.slice(k * savedEach, (k + 1) * savedEach);
          op.backward!(gpu, slice, own, attrs, needs).forEach((gradient, i) => {
            if (!gradient) return;
            if (!needs[i]) gradient.dispose();
            else if (byRows[i]) pieces[i].push(gradient);
            else totals[i] = addTo(totals[i], gradient);
          });
          slice.dispose();
        });
        return inputs.map((_, i) => (pieces[i].length ? joinRows(gpu, shapes[i]!, pieces[i]) : totals[i]));
      },
    };
  };
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
    const rows = (from.parts ?? [from]).map((part) => part.size / row);
    if (fits(gpu, to, rows)) return from.view(to);
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
const reduction: Rule = (op, inputs, attrs: Axes) => {
  const [x] = inputs as [GpuArray];
  const { list, count } = resolveAxes(op.name, x.shape, attrs);
  if (!list.includes(0)) return pieceByPiece(() => [true])(op, inputs, attrs);
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

/**
 * x·Wᵀ with W in parts: each part of W makes some columns of y.
 *
 *     y[.., part] = x·W[part]ᵀ + bias[part]    dx = Σ dy[.., part]·W[part]    dW[part] = dy[.., part]ᵀ·x
 */
const linearRule: Rule = (op, inputs, attrs) => {
  const [x, weight, bias, residual] = inputs as [GpuArray, GpuArray, GpuArray?, GpuArray?];
  if (!weight.parts) return alongRows(0, 3)(op, inputs, attrs);
  if (x.parts || residual?.parts) return undefined;
  const [N] = weight.shape;
  const shape = [...x.shape.slice(0, -1), N];
  const M = sizeOf(shape) / N;
  /** Columns of an [M, N] array, copied from it or to it. */
  const columns = (gpu: Gpu, all: GpuArray, first: number, part: GpuArray, write: boolean) => {
    const n = part.size / M;
    const [inAll, inPart] = [
      { offset: first, strides: denseStrides([M, N]) },
      { offset: 0, strides: denseStrides([M, n]) },
    ];
    if (write) copyStrided(gpu, [M, n], part, inPart, all, inAll);
    else copyStrided(gpu, [M, n], all, inAll, part, inPart);
  };
  const take = (gpu: Gpu, all: GpuArray, first: number, n: number) => {
    const part = gpu.empty([...x.shape.slice(0, -1), n]);
    columns(gpu, all, first, part, false);
    return part;
  };
  return {
    ...op,
    forward(gpu) {
      const y = gpu.empty(shape);
      let first = 0;
      for (const part of weight.parts!) {
        const [n] = part.shape;
        const b = bias && rowsOf(bias, first, first + n);
        const r = residual && take(gpu, residual, first, n);
        const { output } = linear.forward(gpu, [x, part, b, r], {});
        columns(gpu, y, first, output, true);
        for (const array of [b, r, output]) array?.dispose();
        first += n;
      }
      return { output: y, saved: [x, weight] };
    },
    backward(gpu, dy, [x, weight], _, needs) {
      let dx: GpuArray | undefined;
      const dweight: GpuArray[] = [];
      const dbias: GpuArray[] = [];
      let first = 0;
      for (const part of weight.parts!) {
        const [n] = part.shape;
        const slice = take(gpu, dy, first, n);
        const [dxPart, dw, db] = linear.backward!(gpu, slice, [x, part], {}, [...needs.slice(0, 3), false]);
        if (dxPart) dx = addTo(dx, dxPart);
        if (dw) dweight.push(dw);
        if (db) dbias.push(db);
        slice.dispose();
        first += n;
      }
      return [
        dx,
        needs[1] ? joinRows(gpu, weight.shape, dweight) : undefined,
        needs[2] ? joinRows(gpu, [N], dbias) : undefined,
        needs[3] ? dy.view() : undefined,
      ];
    },
  };
};

/** Rows of the first axis are taken from the parts they lie in; the other axes from what is then at hand. */
const sliceRule: Rule = (op, inputs, { ranges }: Parameters<typeof slice.forward>[2]) => {
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
      if (rows.parts) inner = pieceByPiece(() => [true])(slice, [rows], others)!;
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
const concatRule: Rule = (op, inputs, attrs: { axis: number }) => {
  const list = inputs as readonly GpuArray[];
  if (axisOf('concat', list[0].shape, attrs.axis) !== 0) {
    return list.some((x) => x.parts) ? pieceByPiece(() => list.map(() => true))(op, inputs, attrs) : undefined;
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

const ops = (module: Record<string, unknown>): AnyOp[] =>
  Object.values(module).filter((value): value is AnyOp => typeof value === 'object' && 'forward' in value!);

const rules = new Map<string, Rule>([
  [embedding.name, (op) => op], // by itself: one dispatch for each part of the table
  [reshape.name, reshapeRule],
  ...[...ops(unary), ...ops(binary)].map((op): [string, Rule] => [op.name, elementWise]),
  ...[...ops(pooling), ...ops(upsampling)].map((op): [string, Rule] => [op.name, alongRows(0)]),
  [softmax.name, alongAxis],
  [logSoftmax.name, alongAxis],
  [sum.name, reduction],
  [mean.name, reduction],
  [layerNorm.name, pieceByPiece(([x]) => (x!.shape.length > 1 ? [true, false, false] : undefined))],
  [groupNorm.name, alongRows(0)],
  [geglu.name, pieceByPiece(([x]) => (x!.shape.length > 1 ? [true, false, false] : undefined))],
  [linear.name, linearRule],
  [conv2d.name, alongRows(0, 3, 4)],
  [convTranspose2d.name, alongRows(0)],
  [attention.name, pieceByPiece(([, , , bias]) => (bias ? undefined : [true, true, true]))],
  [slice.name, sliceRule],
  [concat.name, concatRule],
]);
