import { crossEntropy as crossEntropyOp } from '../../kernels/cross-entropy.ts';
import * as ops from '../../kernels/loss.ts';
import type { Reduction } from '../../kernels/loss.ts';
import { apply, Tensor } from '../tensor.ts';

interface Options {
  /** 'mean' (the default) or 'sum' over everything, or 'none': each loss by itself */
  reduction?: Reduction;
}

/** (x − target)² */
export const mse = (x: Tensor, target: Tensor, { reduction = 'mean' }: Options = {}): Tensor =>
  apply(ops.mse, [x, target], { reduction });

/** |x − target| */
export const l1 = (x: Tensor, target: Tensor, { reduction = 'mean' }: Options = {}): Tensor =>
  apply(ops.l1, [x, target], { reduction });

/** d² / 2 where |d| ≤ delta, else delta · (|d| − delta / 2) */
export const huber = (
  x: Tensor,
  target: Tensor,
  { reduction = 'mean', delta = 1 }: Options & { delta?: number } = {},
): Tensor => apply(ops.huber, [x, target], { reduction, delta });

/** d² / 2 beta where |d| < beta, else |d| − beta / 2 */
export const smoothL1 = (
  x: Tensor,
  target: Tensor,
  { reduction = 'mean', beta = 1 }: Options & { beta?: number } = {},
): Tensor => apply(ops.smoothL1, [x, target], { reduction, beta });

/** √(d² + c²) − c: near d² / 2c for small differences, |d| for large ones */
export const pseudoHuber = (
  x: Tensor,
  target: Tensor,
  { reduction = 'mean', c = 0.03 }: Options & { c?: number } = {},
): Tensor => apply(ops.pseudoHuber, [x, target], { reduction, c });

/** Cross entropy of σ(x) against targets in [0, 1] */
export const bceWithLogits = (x: Tensor, target: Tensor, { reduction = 'mean' }: Options = {}): Tensor =>
  apply(ops.bceWithLogits, [x, target], { reduction });

/** −ln softmax(x)[label] over the last axis.   x: [..., classes]   labels: i32 [...]. The mean is over labels that count. */
export const crossEntropy = (
  x: Tensor,
  labels: Tensor,
  {
    reduction = 'mean',
    ignoreIndex = -100,
    labelSmoothing = 0,
  }: Options & { ignoreIndex?: number; labelSmoothing?: number } = {},
): Tensor => apply(crossEntropyOp, [x, labels], { reduction, ignoreIndex, labelSmoothing });
