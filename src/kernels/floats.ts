import type { DType, GpuArray } from './array.ts';
import { shapeError } from './errors.ts';

/** @throws when an operand is neither f32 nor f16: kernels would take its bits for those of other numbers */
export function wantFloats(op: string, operands: Readonly<Record<string, GpuArray | undefined>>): void {
  for (const [name, array] of Object.entries(operands)) {
    if (array && array.dtype !== 'f32' && array.dtype !== 'f16')
      throw shapeError(op, `${name} must be f32 or f16, not ${array.dtype}`, operands, "convert with to('f32')");
  }
}

/** What an op of equal operands makes: f32 when one of them is, else f16. */
export const widest = (...operands: readonly GpuArray[]): DType =>
  operands.length > 0 && operands.every((x) => x.dtype === 'f16') ? 'f16' : 'f32';
