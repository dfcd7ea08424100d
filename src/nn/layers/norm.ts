import { shapeError, wantWhole } from '../../kernels/index.ts';
import { groupNorm, layerNorm } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { onesInit, zerosInit } from '../initializers.ts';
import { Module, parameter } from '../module.ts';
import type { Parameter } from '../module.ts';

/**
 * Zero mean and unit variance over the pixels and channels of each group, then a scale and a shift per channel,
 * then SiLU if asked.
 * @see Wu & He 2018, Group Normalization. https://arxiv.org/abs/1803.08494
 */
export class GroupNorm extends Module {
  weight: Parameter; // [C]
  bias: Parameter; // [C]
  readonly groups: number;
  readonly eps: number;
  readonly silu: boolean;

  constructor(groups: number, channels: number, { eps = 1e-5, silu = false } = {}) {
    super();
    wantWhole('GroupNorm', 'groups', groups, 1);
    if (channels % groups) throw shapeError('GroupNorm', `${channels} channels do not split into ${groups} groups`);
    this.weight = parameter([channels], onesInit);
    this.bias = parameter([channels], zerosInit);
    this.groups = groups;
    this.eps = eps;
    this.silu = silu;
  }

  /** x: [B, H, W, C] → [B, H, W, C] */
  forward(x: Tensor): Tensor {
    if (x.shape.at(-1) !== this.weight.size)
      throw shapeError('GroupNorm', 'channels differ', { x, weight: this.weight });
    return groupNorm(x, this.weight, this.bias, { groups: this.groups, eps: this.eps, silu: this.silu });
  }
}

/**
 * Zero mean and unit variance of each token, then a scale and a shift per channel.
 * @see Ba et al. 2016, Layer Normalization. https://arxiv.org/abs/1607.06450
 */
export class LayerNorm extends Module {
  weight: Parameter; // [C]
  bias: Parameter; // [C]
  readonly eps: number;

  constructor(channels: number, { eps = 1e-5 } = {}) {
    super();
    this.weight = parameter([channels], onesInit);
    this.bias = parameter([channels], zerosInit);
    this.eps = eps;
  }

  /** x: [..., C] → [..., C] */
  forward(x: Tensor): Tensor {
    if (x.shape.at(-1) !== this.weight.size)
      throw shapeError('LayerNorm', 'channels differ', { x, weight: this.weight });
    return layerNorm(x, this.weight, this.bias, { eps: this.eps });
  }
}
