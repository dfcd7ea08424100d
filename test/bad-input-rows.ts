import type { Gpu } from '../src/kernels/index.ts';
import { currentGpu, Tensor, tensor } from '../src/tensor/index.ts';

/** A call that is wrong, or nearly: it throws what `wants` matches, or gives a tensor of that shape and these numbers. */
export interface Row {
  what: string;
  call: () => unknown;
  wants: RegExp | { shape: readonly number[]; data: readonly number[] };
}

/** What is tried with one exported function. */
export interface Entry {
  /** A call that works. Each operand in turn is then a freed one, one of another device, and one of integers. */
  good?: { operands: readonly Operand[]; call: (...operands: Tensor[]) => unknown };
  /** The op that complains of operands, where the function is made of other ops. */
  op?: string;
  rows: readonly Row[];
}

/** Shape and dtype of an operand; 'any': its bits are moved without being looked at. */
export interface Operand {
  shape: readonly number[];
  dtype: 'f32' | 'i32' | 'any';
}

export const f32 = (...shape: number[]): Operand => ({ shape, dtype: 'f32' });
export const i32 = (...shape: number[]): Operand => ({ shape, dtype: 'i32' });
export const moved = (...shape: number[]): Operand => ({ shape, dtype: 'any' });

export const refuses = (what: string, call: () => unknown, wants: RegExp): Row => ({ what, call, wants });
export const gives = (
  what: string,
  call: () => unknown,
  shape: readonly number[],
  data: readonly number[] = [],
): Row => ({ what, call, wants: { shape, data } });

/** A tensor of 1, 2, 3, … of a shape. */
export const t = (...shape: number[]): Tensor => tensor(counted(shape), shape);
/** The same in integers, from 0. */
export const ids = (...shape: number[]): Tensor =>
  tensor(
    counted(shape).map((v) => v - 1),
    shape,
    { dtype: 'i32' },
  );

export const make = ({ shape, dtype }: Operand): Tensor =>
  dtype === 'i32'
    ? tensor(
        counted(shape).map(() => 0),
        shape,
        { dtype },
      )
    : t(...shape);

export const counted = (shape: readonly number[]): number[] =>
  Array.from({ length: shape.reduce((n, d) => n * d, 1) }, (_, i) => i + 1);

/** The tensor that a call gave, or the first of several. */
export const tensorOf = (result: unknown): Tensor | undefined =>
  result instanceof Tensor ? result : Array.isArray(result) ? tensorOf(result[0]) : undefined;

/** Zeros of that kind on another device. */
export const elsewhere = (gpu: Gpu, { shape, dtype }: Operand): Tensor =>
  new Tensor(gpu.zeros(shape, dtype === 'i32' ? 'i32' : 'f32'));

export const idle = (): Promise<void> => currentGpu().idle();
