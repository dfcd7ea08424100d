import { chunk, geglu, gelu, mul } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { Module } from '../module.ts';
import { Linear } from './linear.ts';

/**
 * h · gelu(g),  [h, g] = proj(x)
 * @see Shazeer 2020, GLU Variants Improve Transformer. https://arxiv.org/abs/2002.05202
 */
export class GEGLU extends Module {
  proj: Linear;

  constructor(inputs: number, outputs: number) {
    super();
    this.proj = new Linear(inputs, 2 * outputs);
  }

  /** x: [B, N, I] → [B, N, O] */
  forward(x: Tensor): Tensor {
    const { weight, bias, adapter } = this.proj;
    if (!adapter) return geglu(x, weight, bias);
    const [h, g] = chunk(this.proj.forward(x), 2);
    return mul(h, gelu(g));
  }
}

/** Two linear layers around a gate, four times as wide inside. */
export class FeedForward extends Module {
  net: [GEGLU, undefined, Linear]; // net.1 is a dropout, which holds nothing

  constructor(channels: number) {
    super();
    this.net = [new GEGLU(channels, 4 * channels), undefined, new Linear(4 * channels, channels)];
  }

  /** x: [B, N, C] → [B, N, C], plus `residual` */
  forward(x: Tensor, { residual }: { residual?: Tensor } = {}): Tensor {
    return this.net[2].forward(this.net[0].forward(x), { residual });
  }
}
