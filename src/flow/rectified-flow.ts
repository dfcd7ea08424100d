/**
 * Rectified flow: the conventions of this project, stated once.
 *
 *     t = 0 is noise x0, t = 1 is the image x1        path      xt = t·x1 + (1 − t)·x0
 *     the network predicts the velocity               target    dxt/dt = x1 − x0
 *     and sees diffusers' kind of timestep            timestep  1000·(1 − t), not rounded: 1000.0 at pure noise
 *
 * @see Liu et al. 2022, Flow Straight and Fast, §2.1. https://arxiv.org/abs/2209.03003
 */
import type { Tensor } from '../tensor/index.ts';
import { mse } from '../tensor/index.ts';

/** The direction of the flow at z, at one time for the whole batch.   z: [B, …] → [B, …] */
export type Velocity = (z: Tensor, t: number) => Tensor;

/** t ∈ [0, 1] → what the U-Net is told. */
export const timestepOf = (t: number): number => 1000 * (1 - t);

/** What the U-Net is told → t. */
export const timeOf = (timestep: number): number => 1 - timestep / 1000;

/** A point on each path and the velocity there, on the host. */
export interface PathPoints {
  xt: Float32Array; // [B, …]
  target: Float32Array; // [B, …]
  timesteps: Float32Array; // [B]
}

/**
 * Where each of B straight paths is at its own time.   x0, x1: [B, …], t: [B]
 *
 *     xt = t·x1 + (1 − t)·x0        target = x1 − x0
 */
export function pathPoints(x0: Float32Array, x1: Float32Array, t: Float32Array): PathPoints {
  if (x0.length !== x1.length || x0.length % t.length !== 0) {
    throw new RangeError(`pathPoints: x0 has ${x0.length} numbers, x1 ${x1.length}, for ${t.length} times`);
  }
  const size = x0.length / t.length;
  const xt = new Float32Array(x0.length);
  const target = new Float32Array(x0.length);
  for (let i = 0; i < x0.length; i++) {
    const time = t[Math.floor(i / size)];
    xt[i] = time * x1[i] + (1 - time) * x0[i];
    target[i] = x1[i] - x0[i];
  }
  return { xt, target, timesteps: t.map(timestepOf) };
}

/**
 * The flow-matching loss: mean over everything of |v(xt, t) − (x1 − x0)|².
 * @see Liu et al. 2022, eq. 1
 */
export function flowLoss(velocity: Tensor, target: Tensor): Tensor {
  return mse(velocity, target);
}
