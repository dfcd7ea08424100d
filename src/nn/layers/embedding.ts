import { shapeError } from '../../kernels/index.ts';
import { embedding } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { gaussian } from '../initializers.ts';
import type { Initializer } from '../initializers.ts';
import { Module, parameter } from '../module.ts';
import type { Parameter } from '../module.ts';

/** A table of vectors, looked up by number. */
export class Embedding extends Module {
  weight: Parameter; // [rows, C]

  constructor(rows: number, channels: number, init: Initializer = gaussian(1)) {
    super();
    this.weight = parameter([rows, channels], init);
  }

  /** ids: [...] i32 → [..., C] */
  forward(ids: Tensor): Tensor {
    if (ids.dtype !== 'i32')
      throw shapeError('Embedding', 'ids must be i32', { ids }, "make them with tensor(ids, shape, { dtype: 'i32' })");
    return embedding(this.weight, ids);
  }
}
