import code from './accumulate.wgsl';
import type { GpuArray } from './array.ts';
import { shapeError } from './errors.ts';
import { spread } from './gpu.ts';

/** sum += term, in place. Only for memory that nobody else looks at. */
export function accumulate(sum: GpuArray, term: GpuArray): void {
  if (sum.size !== term.size) throw shapeError('accumulate', 'gradients of one tensor differ in size', { sum, term });
  if (sum.parts && term.parts) return sum.parts.forEach((part, i) => accumulate(part, term.parts![i]));
  sum.gpu.run(code, 'accumulate', { n: sum.size }, [sum, term], spread(Math.ceil(sum.size / 256)));
}
