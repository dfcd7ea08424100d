import type { GpuArray } from './array.ts';
import { shapeError } from './errors.ts';
import { wantFloats } from './floats.ts';
import { gemm } from './gemm.ts';
import code from './geglu.wgsl';
import { spread } from './gpu.ts';
import { linear, linearBackward, linearSizes } from './linear.ts';
import type { Described } from './linear.ts';
import { hostArray } from './op.ts';
import type { Op } from './op.ts';
import { outline } from './outline.ts';
import { gelu } from './unary.ts';

/**
 * The gated layer of a transformer's feed-forward: half of a linear layer's outputs open the gates of the other half.
 *
 *     h, g = halves of x·Wᵀ + bias     y = h · gelu(g)
 *
 * x: [.., K]   W: [2N, K]   bias: [2N]   y: [.., N]; gelu is the exact one, g · Φ(g).
 *
 * @throws when W has an odd number of rows, or sizes do not fit
 * @see Shazeer 2020, GLU Variants Improve Transformer. https://arxiv.org/abs/2002.05202
 */
export const geglu: Op<[x: GpuArray, weight: GpuArray, bias?: GpuArray], object> = {
  name: 'geglu',
  forward(gpu, [x, weight, bias]) {
    wantFloats('geglu', { x, weight, bias });
    const { M, N, K, shape } = sizes(x, weight, bias);
    const a = { array: x, row: K, col: 1 },
      b = { array: weight, row: 1, col: K };
    const z = gemm(gpu, { M, N, K, a, b, bias, shape: [M, N], dtype: x.dtype }, gpu.capabilities.force.geglu).y;
    const y = gpu.empty([...shape.slice(0, -1), N / 2], x.dtype);
    gpu.run(code, 'forward', { rows: M, size: N / 2 }, [z, y], spread(M));
    return { output: y, saved: [x, weight, z, bias && outline(bias)] };
  },
  backward(gpu, dy, [x, weight, z, bias], _, needs) {
    const [M, N] = z.shape;
    using dz = gpu.empty(z.shape, z.dtype);
    gpu.run(code, 'backward', { rows: M, size: N / 2 }, [z, dy, dz], spread(M));
    return linearBackward(gpu, dz, x, weight, bias, needs, gpu.capabilities.force.geglu);
  },
  reference([x, weight, bias], attrs) {
    const { M, N, shape } = sizes(x, weight, bias);
    const z = linear.reference([x, weight, bias, undefined], attrs);
    const gates = gelu.reference([z], {}).data;
    const y = hostArray([...shape.slice(0, -1), N / 2]);
    for (let m = 0; m < M; m++) {
      for (let n = 0; n < N / 2; n++) y.data[(m * N) / 2 + n] = z.data[m * N + n] * gates[m * N + N / 2 + n];
    }
    return y;
  },
};

function sizes(x: Described, weight: Described, bias?: Described) {
  const found = linearSizes('geglu', x, weight, bias);
  if (found.N % 2) throw shapeError('geglu', 'weight has an odd number of rows', { x: x.shape, weight: weight.shape });
  return found;
}
