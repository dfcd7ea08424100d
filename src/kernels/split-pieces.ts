/** What the rules for arrays larger than one binding share: taking rows, and putting pieces together. */
import { accumulate } from './accumulate.ts';
import { GpuArray, partition, sizeOf } from './array.ts';
import type { Shape } from './array.ts';
import { copyRange } from './copy.ts';
import type { Gpu } from './gpu.ts';
import type { Op } from './op.ts';

export type AnyOp = Op<any, any>;
export type Operands = readonly (GpuArray | undefined)[];
/** The op for these operands, in parts or not. */
export type Choose = (gpu: Gpu, op: AnyOp, inputs: Operands, attrs: object) => AnyOp;
/** The op for operands some of which are in parts, or undefined when it cannot be. `choose`: for pieces of them. */
export type Rule = (op: AnyOp, inputs: Operands, attrs: any, choose: Choose) => AnyOp | undefined;

/** Rows `from` … `to` of any array: a share of it where that is possible, else a copy. */
export function rowsOf(x: GpuArray, from: number, to: number): GpuArray {
  const row = x.size / x.shape[0];
  const shape = [to - from, ...x.shape.slice(1)];
  let first = 0;
  for (const part of x.parts ?? [x]) {
    if (first === from * row && part.size === sizeOf(shape)) return part.view();
    first += part.size;
  }
  const each = (x.parts?.length ?? 0) / x.shape[0];
  if (to === from + 1 && each > 1) {
    const parts = x.parts!.slice(from * each, to * each).map((part) => part.view());
    return new GpuArray(x.gpu, x.gpu.none.storage, shape, x.dtype, parts);
  }
  const y = x.gpu.empty(shape, x.dtype);
  copyRange(x, from * row, y, 0, y.size);
  return y;
}

/** Are these the shapes of the parts that gpu.empty() would divide an array of `shape` into? Optimisers count on that. */
export function fits(gpu: Gpu, shape: Shape, parts: readonly Shape[]): boolean {
  if (4 * sizeOf(shape) <= gpu.arrayLimit) return parts.length === 1;
  return partition('split', shape, gpu.arrayLimit).join() === parts.join();
}

/** An array of `shape` made of pieces along its first axis, which it takes over. */
export function joinRows(gpu: Gpu, shape: Shape, pieces: readonly GpuArray[]): GpuArray {
  const { dtype } = pieces[0];
  const parts = pieces.flatMap((piece) => piece.parts ?? [piece]);
  if (
    fits(
      gpu,
      shape,
      parts.map((part) => part.shape),
    )
  ) {
    if (pieces.length === 1) return pieces[0];
    const shares = parts.map((part) => part.view());
    for (const piece of pieces) piece.dispose();
    return new GpuArray(gpu, gpu.none.storage, shape, dtype, shares);
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
export function addTo(total: GpuArray | undefined, term: GpuArray): GpuArray {
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

/** All ops of a module. */
export const opsIn = (module: Record<string, unknown>): AnyOp[] =>
  Object.values(module).filter((value): value is AnyOp => typeof value === 'object' && 'forward' in value!);

/**
 * Piece by piece along the first axis. `divided` tells of each operand whether it has that axis; the others are the same for
 * all pieces, and their gradients add up. Arrays of one row that are divided at all are taken part by part.
 */
export function pieceByPiece(divided: (inputs: Operands, attrs: any) => readonly boolean[] | undefined): Rule {
  return (op, inputs, attrs, choose) => {
    const byRows = divided(inputs, attrs);
    if (!byRows || inputs.some((x, i) => x?.parts && !byRows[i])) return undefined;
    // Cut as the operand is with the largest rows; where a row is itself in parts, or makes some, row by row.
    const cut = inputs.reduce((a, b) => ((b?.parts?.length ?? 0) > (a?.parts?.length ?? 0) ? b : a))!;
    const [rows] = cut.shape;
    const heights =
      cut.parts && (rows === 1 || cut.parts.length <= rows)
        ? cut.parts.map(({ shape }) => shape[0])
        : Array<number>(rows).fill(1);
    const take = (x: GpuArray, k: number, from: number) =>
      rows === 1 ? x.parts![k].view() : rowsOf(x, from, from + heights[k]);
    const shapes = inputs.map((x) => x?.shape);
    /** Its op, and where its own begins of what was saved. */
    const pieces: { op: AnyOp; saved: number }[] = [];
    return {
      ...op,
      forward(gpu) {
        const outputs: GpuArray[] = [];
        const saved: (GpuArray | undefined)[] = [];
        let from = 0;
        heights.forEach((height, k) => {
          const operands = inputs.map((x, i) => (x && byRows[i] ? take(x, k, from) : x));
          const inner = choose(gpu, op, operands, attrs);
          pieces.push({ op: inner, saved: saved.length });
          const piece = inner.forward(gpu, operands, attrs);
          const kept = piece.saved ?? [];
          outputs.push(piece.output);
          saved.push(...kept.map((array) => (array === piece.output ? array.view() : array)));
          operands.forEach((x, i) => byRows[i] && !kept.includes(x) && x?.dispose());
          from += height;
        });
        const shape = rows === 1 ? cut.shape : [rows, ...outputs[0].shape.slice(1)];
        return { output: joinRows(gpu, shape, outputs), saved };
      },
      backward(gpu, dy, saved, _, needs) {
        const parts: GpuArray[][] = inputs.map(() => []);
        const totals: (GpuArray | undefined)[] = [];
        let from = 0;
        pieces.forEach((piece, k) => {
          const slice = take(dy, k, from);
          const own = saved.slice(piece.saved, pieces[k + 1]?.saved);
          piece.op.backward!(gpu, slice, own, attrs, needs).forEach((gradient, i) => {
            if (!gradient) return;
            if (!needs[i]) gradient.dispose();
            else if (byRows[i]) parts[i].push(gradient);
            else totals[i] = addTo(totals[i], gradient);
          });
          slice.dispose();
          from += heights[k];
        });
        return inputs.map((_, i) => (parts[i].length ? joinRows(gpu, shapes[i]!, parts[i]) : totals[i]));
      },
    };
  };
}
