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
 */
export const embedding: Op<[table: GpuArray, ids: GpuArray]> = {
  name: 'embedding',
  forward(gpu, [table, ids]) {
    check(table, ids);
    const [rows, columns] = table.shape;
    const [kernel, width] = lanes(code, columns);
    const y = gpu.empty([...ids.shape, columns], table.dtype);
    const uniforms = { count: ids.size, width, rows };
    gpu.run(kernel, 'forward', uniforms, [ids, table, y], spread(Math.ceil((ids.size * width) / 64)));
    return { output: y, saved: [outline(table), ids] };
  },
  backward(gpu, dy, [table, ids]) {
    const [rows, columns] = table.shape;
    const [kernel, width] = lanes(code, columns);
    const uniforms = { count: ids.size, width, rows };
    const chain = gpu.empty([2, ids.size], 'u32');
    const dtable = gpu.zeros(table.shape, table.dtype);
    gpu.run(kernel, 'link', uniforms, [ids, chain], spread(Math.ceil(ids.size / 64)));
    gpu.run(kernel, 'backward', uniforms, [ids, dy, dtable, chain], spread(Math.ceil((ids.size * width) / 64)));
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
