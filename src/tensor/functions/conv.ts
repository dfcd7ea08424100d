import { conv2d as conv2dOp } from '../../kernels/conv2d.ts';
import { convTranspose2d as convTranspose2dOp } from '../../kernels/conv2d-transpose.ts';
import type { ConvTransposeAttrs } from '../../kernels/conv2d-transpose.ts';
import type { ConvAttrs } from '../../kernels/conv2d-launch.ts';
import { avgPool2d as avgPool2dOp, maxPool2d as maxPool2dOp } from '../../kernels/pool2d.ts';
import type { PoolAttrs } from '../../kernels/pool2d.ts';
import {
  upsampleBilinear as upsampleBilinearOp,
  upsampleNearest as upsampleNearestOp,
} from '../../kernels/upsample.ts';
import type { BilinearAttrs, ResizeAttrs } from '../../kernels/upsample.ts';
import { apply } from '../tensor.ts';
import type { Tensor } from '../tensor.ts';

/** What a convolution may add to its result in the same pass: residual [B, Ho, Wo, O], temb [B, O] (per image and channel). */
export interface ConvOptions extends ConvAttrs {
  residual?: Tensor;
  temb?: Tensor;
}

/**
 * 2-D convolution. x: [B, H, W, C], weight: [O, kh, kw, C / groups], bias: [O] → [B, Ho, Wo, O].
 * `padding` is one number or [left, right, top, bottom].
 */
export const conv2d = (
  x: Tensor,
  weight: Tensor,
  bias?: Tensor,
  { residual, temb, ...attrs }: ConvOptions = {},
): Tensor => apply(conv2dOp, [x, weight, bias, residual, temb], attrs);

/** Transposed 2-D convolution. x: [B, H, W, I], weight: [I, kh, kw, O / groups], bias: [O] → [B, Ho, Wo, O]. */
export const convTranspose2d = (x: Tensor, weight: Tensor, bias?: Tensor, attrs: ConvTransposeAttrs = {}): Tensor =>
  apply(convTranspose2dOp, [x, weight, bias], attrs);

/** Average of each kernel × kernel window, padding counted as zeros. x: [B, H, W, C] → [B, Ho, Wo, C]. */
export const avgPool2d = (x: Tensor, attrs: PoolAttrs): Tensor => apply(avgPool2dOp, [x], attrs);

/** The largest of each kernel × kernel window. x: [B, H, W, C] → [B, Ho, Wo, C]. */
export const maxPool2d = (x: Tensor, attrs: PoolAttrs): Tensor => apply(maxPool2dOp, [x], attrs);

/** Repeat the nearest pixel, to a `size` [height, width] or `factor` times the size (2). x: [B, H, W, C]. */
export const upsampleNearest = (x: Tensor, attrs: ResizeAttrs = {}): Tensor => apply(upsampleNearestOp, [x], attrs);

/** Interpolate linearly along both axes, to a `size` [height, width] or `factor` times the size (2). x: [B, H, W, C]. */
export const upsampleBilinear = (x: Tensor, attrs: BilinearAttrs = {}): Tensor => apply(upsampleBilinearOp, [x], attrs);
