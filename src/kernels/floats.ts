import type { GpuArray } from './array.ts';
import { shapeError } from './errors.ts';

/** @throws when an operand is not f32: kernels would take its bits for those of other numbers */
export function wantFloats(op: string, operands: Readonly<Record<string, GpuArray | undefined>>): void {
  for (const [name, array] of Object.entries(operands)) {
    if (array && array.dtype !== 'f32') throw shapeError(op, `${name} must be f32, not ${array.dtype}`, operands);
  }
}
