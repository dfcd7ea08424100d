import * as group from '../../kernels/group-norm.ts';
import * as layer from '../../kernels/layer-norm.ts';
import { apply, Tensor } from '../tensor.ts';

/** Group normalisation of x [B, …, C], with weight and bias [C] when given; `silu` follows with x · sigmoid(x). */
export const groupNorm = (
  x: Tensor,
  weight: Tensor | undefined,
  bias: Tensor | undefined,
  { groups, eps = 1e-5, silu = false }: { groups: number; eps?: number; silu?: boolean },
): Tensor => apply(group.groupNorm, [x, weight, bias], { groups, eps, silu });

/** Layer normalisation over the last axis, or over as many of the last axes as `weight` has, or `axes`. */
export const layerNorm = (
  x: Tensor,
  weight?: Tensor,
  bias?: Tensor,
  { eps = 1e-5, axes = weight?.shape.length ?? 1 }: { eps?: number; axes?: number } = {},
): Tensor => apply(layer.layerNorm, [x, weight, bias], { eps, axes });
