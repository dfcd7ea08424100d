import { shapeError, wantWhole } from '../../kernels/index.ts';
import { linear, reshape } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { Module } from '../module.ts';
import { Attention } from './attention.ts';
import { Conv2d } from './conv2d.ts';
import { FeedForward } from './feed-forward.ts';
import { Linear } from './linear.ts';
import { GroupNorm, LayerNorm } from './norm.ts';

/** Self-attention, cross-attention, feed-forward; each normalises its input and adds to it. */
export class BasicTransformerBlock extends Module {
  norm1: LayerNorm;
  attn1: Attention;
  norm2: LayerNorm;
  attn2: Attention;
  norm3: LayerNorm;
  ff: FeedForward;

  constructor(channels: number, { heads, context }: { heads: number; context: number }) {
    super();
    this.norm1 = new LayerNorm(channels);
    this.attn1 = new Attention(channels, { heads });
    this.norm2 = new LayerNorm(channels);
    this.attn2 = new Attention(channels, { heads, context });
    this.norm3 = new LayerNorm(channels);
    this.ff = new FeedForward(channels);
  }

  /** x: [B, N, C], context: [B, T, D] → [B, N, C] */
  forward(x: Tensor, context: Tensor): Tensor {
    x = this.attn1.forward(this.norm1.forward(x), { residual: x });
    x = this.attn2.forward(this.norm2.forward(x), { context, residual: x });
    return this.ff.forward(this.norm3.forward(x), { residual: x });
  }
}

/** Sizes of the attention inside. */
export interface TransformerOptions {
  heads: number;
  /** Channels of the text. */
  context: number;
  groups: number;
  layers?: number;
  /** Project with linear layers, not with 1×1 convolutions: other shapes in the checkpoint, the same sums. */
  useLinear?: boolean;
}

/** Transformer blocks over the pixels of an image, which read the text; the result is added to the image. */
export class Transformer2DModel extends Module {
  norm: GroupNorm;
  proj_in: Linear | Conv2d;
  transformer_blocks: BasicTransformerBlock[];
  proj_out: Linear | Conv2d;

  constructor(channels: number, { heads, context, groups, layers = 1, useLinear = false }: TransformerOptions) {
    super();
    wantWhole('Transformer2DModel', 'heads', heads, 1);
    if (channels % heads)
      throw shapeError('Transformer2DModel', `${channels} channels do not split into ${heads} heads`);
    const project = () => (useLinear ? new Linear(channels, channels) : new Conv2d(channels, channels, 1));
    this.norm = new GroupNorm(groups, channels, { eps: 1e-6 });
    this.proj_in = project();
    this.transformer_blocks = Array.from(
      { length: layers },
      () => new BasicTransformerBlock(channels, { heads, context }),
    );
    this.proj_out = project();
  }

  /** x: [B, H, W, C], context: [B, T, D] → [B, H, W, C] */
  forward(x: Tensor, context: Tensor): Tensor {
    const [B, H, W, C] = x.shape;
    const pixels = reshape(x, [B, H * W, C]);
    let h = perPixel(this.proj_in, reshape(this.norm.forward(x), [B, H * W, C]));
    for (const block of this.transformer_blocks) h = block.forward(h, context);
    return reshape(perPixel(this.proj_out, h, pixels), [B, H, W, C]);
  }
}

/** Channels last, a 1×1 convolution is a linear layer on pixels.   x: [..., I] → [..., O], plus `residual` */
export function perPixel({ weight, bias, adapter }: Linear | Conv2d, x: Tensor, residual?: Tensor): Tensor {
  const matrix = weight.shape.length === 2 ? weight : reshape(weight, [weight.shape[0], weight.shape[3]]);
  return linear(x, matrix, bias, { residual: adapter ? adapter(x, residual) : residual });
}
