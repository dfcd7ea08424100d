import code from './embedding.wgsl';
import type { GpuArray } from './array.ts';
import { shapeError } from './errors.ts';
import { wantFloats } from './floats.ts';
import { spread } from './gpu.ts';
import { lanes } from './lanes.ts';
import { hostArray } from './op.ts';
import type { Op } from './op.ts';
import { outline } from './outline.ts';

/**
 * Rows of a table by number; a number that the table does not have gives NaN.    table: [rows, width]   ids: i32 [...]
 *
 *     y[n] = table[ids[n]], [..., width]          dtable[r] = Σ dy[n] over all n with ids[n] = r, in order of n
 *
 * @throws when the table is no matrix, has no rows, or ids are not i32
 */
export const embedding: Op<[table: GpuArray, ids: GpuArray]> = {
  name: 'embedding',
  forward(gpu, [table, ids]) {
    check(table, ids);
    const [kernel, width] = lanes(code, table.shape[1]);
    const shape = [...ids.shape, table.shape[1]];
    const groups = spread(Math.ceil((ids.size * width) / 64));
    const y = table.parts ? gpu.zeros(shape, table.dtype) : gpu.empty(shape, table.dtype);
    let first = 0;
    for (const part of table.parts ?? [table]) {
      const uniforms = { count: ids.size, width, rows: part.shape[0], first };
      gpu.run(kernel, 'forward', uniforms, [ids, part, y], groups, { PARTS: table.parts !== undefined });
      first += part.shape[0];
    }
    return { output: y, saved: [outline(table), ids] };
  },
  backward(gpu, dy, [table, ids]) {
    const [rows, columns] = table.shape;
    const [kernel, width] = lanes(code, columns);
    const uniforms = { count: ids.size, width, rows, first: 0 };
    const chain = gpu.empty([2, ids.size], 'u32');
    const dtable = gpu.zeros(table.shape, table.dtype);
    gpu.run(kernel, 'link', uniforms, [ids, chain], spread(Math.ceil(ids.size / 64)));
    const groups = spread(Math.ceil((ids.size * width) / 64));
    for (const part of dtable.parts ?? [dtable]) {
      gpu.run(kernel, 'backward', { ...uniforms, rows: part.shape[0] }, [ids, dy, part, chain], groups);
      uniforms.first += part.shape[0];
    }
    chain.dispose();
    return [dtable];
  },
  reference([table, ids]) {
    const width = table.shape[1];
    return hostArray(
      [...ids.shape, width],
      Array.from(
        { length: ids.data.length * width },
        (_, i) => table.data[ids.data[Math.floor(i / width)] * width + (i % width)],
      ),
    );
  },
};

function check(table: GpuArray, ids: GpuArray): void {
  if (table.shape.length !== 2) throw shapeError('embedding', 'the table must be [rows, width]', { table, ids });
  wantFloats('embedding', { table });
  if (ids.dtype !== 'i32') throw shapeError('embedding', 'ids must be i32', { table, ids });
  if (table.shape[0] === 0 && ids.size > 0) throw shapeError('embedding', 'the table has no rows', { table, ids });
}
