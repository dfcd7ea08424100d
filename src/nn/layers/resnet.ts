import type { Tensor } from '../../tensor/index.ts';
import { Module } from '../module.ts';
import { Conv2d } from './conv2d.ts';
import { Linear } from './linear.ts';
import { GroupNorm } from './norm.ts';

/** Groups of the norms, their epsilon, and channels of the time embedding. */
export interface ResnetOptions {
  groups: number;
  eps?: number;
  /** Channels of the time embedding; the VAE has none. */
  temb?: number;
}

/**
 * Two convolutions, each after GroupNorm and SiLU, around which the input is added; the time embedding comes in between.
 *
 *     h = conv1(silu(norm1(x))) + time_emb_proj(silu(temb))
 *     y = conv2(silu(norm2(h))) + conv_shortcut(x)
 */
export class ResnetBlock2D extends Module {
  norm1: GroupNorm;
  conv1: Conv2d;
  time_emb_proj: Linear | undefined;
  norm2: GroupNorm;
  conv2: Conv2d;
  conv_shortcut: Conv2d | undefined;

  constructor(inputs: number, outputs: number, { groups, eps = 1e-5, temb }: ResnetOptions) {
    super();
    this.norm1 = new GroupNorm(groups, inputs, { eps, silu: true });
    this.conv1 = new Conv2d(inputs, outputs, 3, { padding: 1 });
    if (temb) this.time_emb_proj = new Linear(temb, outputs);
    this.norm2 = new GroupNorm(groups, outputs, { eps, silu: true });
    this.conv2 = new Conv2d(outputs, outputs, 3, { padding: 1 });
    if (inputs !== outputs) this.conv_shortcut = new Conv2d(inputs, outputs, 1);
  }

  /** x: [B, H, W, I], temb: [B, D] after SiLU → [B, H, W, O] */
  forward(x: Tensor, temb?: Tensor): Tensor {
    const h = this.conv1.forward(this.norm1.forward(x), { temb: temb && this.time_emb_proj?.forward(temb) });
    const residual = this.conv_shortcut ? this.conv_shortcut.forward(x) : x;
    return this.conv2.forward(this.norm2.forward(h), { residual });
  }
}
