import type { GpuArray, Shape } from './array.ts';
import { sizeOf } from './array.ts';
import { castTo } from './cast.ts';
import { shapeError } from './errors.ts';
import { wantFloats } from './floats.ts';
import { gemm } from './gemm.ts';
import type { Gpu } from './gpu.ts';
import { hostArray } from './op.ts';
import type { Op } from './op.ts';
import { outline } from './outline.ts';
import { sumMiddle } from './sum-middle.ts';

export type Described = { shape: Shape };

/** Rows and sizes of x·Wᵀ. @throws when the operands do not fit */
export function linearSizes(op: string, x: Described, weight: Described, bias?: Described, residual?: Described) {
  const K = x.shape.at(-1) ?? 0;
  const [N, inner] = weight.shape;
  const operands = { x: x.shape, weight: weight.shape, bias: bias?.shape, residual: residual?.shape };
  if (weight.shape.length !== 2) throw shapeError(op, 'weight is not a matrix [N, K]', operands);
  if (K !== inner || !x.shape.length) {
    throw shapeError(
      op,
      `inner sizes differ (${K} ≠ ${inner})`,
      operands,
      K === N ? 'weight is [outputs, inputs]' : '',
    );
  }
  if (bias && (bias.shape.length !== 1 || bias.shape[0] !== N)) throw shapeError(op, `bias is not [${N}]`, operands);
  const shape = [...x.shape.slice(0, -1), N];
  if (residual && residual.shape.join() !== shape.join())
    throw shapeError(op, `residual is not [${shape.join(', ')}]`, operands);
  return { M: sizeOf(x.shape.slice(0, -1)), N, K, shape };
}

/**
 * A fully connected layer, with an optional addend for skip connections.
 *
 *     y  = x·Wᵀ + bias + residual      x: [.., K]   W: [N, K]   bias: [N]   residual, y: [.., N]
 *     dx = dy·W     dW = dyᵀ·x     dbias = Σ dy over rows     dresidual = dy
 *
 * @throws when inner sizes differ, W is no matrix, or an addend has another shape
 */
export const linear: Op<[x: GpuArray, weight: GpuArray, bias?: GpuArray, residual?: GpuArray], object> = {
  name: 'linear',
  forward(gpu, [x, weight, bias, residual]) {
    wantFloats('linear', { x, weight, bias, residual });
    const { M, N, K, shape } = linearSizes('linear', x, weight, bias, residual);
    const a = { array: x, row: K, col: 1 },
      b = { array: weight, row: 1, col: K };
    return {
      output: gemm(gpu, { M, N, K, a, b, bias, residual, shape, dtype: x.dtype }, gpu.capabilities.force.linear).y,
      saved: [x, weight, bias && outline(bias), residual && outline(residual)],
    };
  },
  backward(gpu, dy, [x, weight, bias, residual], _, needs) {
    const [dx, dw, dbias] = linearBackward(gpu, dy, x, weight, bias, needs, gpu.capabilities.force.linear);
    return [dx, dw, dbias, needs[3] ? castTo(dy, residual.dtype) : undefined];
  },
  reference([x, weight, bias, residual]) {
    const { M, N, K, shape } = linearSizes('linear', x, weight, bias, residual);
    const y = hostArray(shape);
    for (let m = 0; m < M; m++) {
      for (let n = 0; n < N; n++) {
        let sum = (bias?.data[n] ?? 0) + (residual?.data[m * N + n] ?? 0);
        for (let k = 0; k < K; k++) sum += x.data[m * K + k] * weight.data[n * K + k];
        y.data[m * N + n] = sum;
      }
    }
    return y;
  },
};

/** Gradients of x, weight and bias; that of the bias falls out of the weight's, as the row sums of dyᵀ. */
export function linearBackward(
  gpu: Gpu,
  dy: GpuArray,
  x: GpuArray,
  weight: GpuArray,
  bias: GpuArray | undefined,
  needs: readonly boolean[],
  force?: string,
) {
  const { M, N, K } = linearSizes('linear', x, weight);
  const rows = { array: dy, row: N, col: 1 },
    columns = { array: dy, row: 1, col: N };
  const dx = needs[0]
    ? gemm(gpu, { M, N: K, K: N, a: rows, b: { array: weight, row: K, col: 1 }, shape: x.shape, dtype: x.dtype }, force)
        .y
    : undefined;
  const b = { array: x, row: K, col: 1 };
  const like = { shape: weight.shape, dtype: weight.dtype, sumsDtype: bias?.dtype };
  const dw = needs[1] ? gemm(gpu, { M: N, N: K, K: M, a: columns, b, ...like, rowSums: needs[2] }, force) : undefined;
  const dbias = needs[2] ? (dw?.sums ?? sumMiddle(gpu, dy, [1, M, N], { shape: [N], dtype: bias?.dtype })) : undefined;
  return [dx, dw?.y, dbias];
}
