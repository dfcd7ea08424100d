/** Flows whose velocity is known in closed form, v = E[x1 − x0 | xt]: solvers can be tested on them without training. */
import { add, matmul, mul, softmax, sub, tensor } from '../tensor/index.ts';
import type { Tensor } from '../tensor/index.ts';
import type { Velocity } from './rectified-flow.ts';

/**
 * From N(0, 1) to N(mean, deviation²) in every coordinate. The path from z is  z ↦ mean + deviation · z.
 *
 *     v(z, t) = mean + (t s² − (1 − t)) / (t² s² + (1 − t)²) · (z − t mean)
 */
export const gaussianVelocity =
  (mean: number, deviation: number): Velocity =>
  (z, t) => {
    const slope = (t * deviation ** 2 - (1 - t)) / (t ** 2 * deviation ** 2 + (1 - t) ** 2);
    return add(mul(z, slope), mean - slope * t * mean);
  };

/**
 * From N(0, I) to a finite set of points x₁ … x_M.   points: [M, D], z: [B, D]
 *
 *     v(z, t) = (Σ wᵢ xᵢ − z) / (1 − t)        w = softmax(−|z − t xᵢ|² / 2(1 − t)²),   t < 1
 */
export function pointsVelocity(points: Float32Array, dimensions: number): Velocity {
  const count = points.length / dimensions;
  const norms = Float32Array.from({ length: count }, (_, i) =>
    points.subarray(i * dimensions, (i + 1) * dimensions).reduce((sum, x) => sum + x * x, 0),
  );
  const x = tensor(points, [count, dimensions]);
  const squares = tensor(norms, [count]);
  return (z: Tensor, t: number): Tensor => {
    const rest = 1 - t;
    // |z|² is the same for all points and falls out of the softmax.
    const scores = sub(mul(matmul(z, x, { transposeB: true }), t / rest ** 2), mul(squares, t ** 2 / (2 * rest ** 2)));
    return mul(sub(matmul(softmax(scores), x), z), 1 / rest);
  };
}
