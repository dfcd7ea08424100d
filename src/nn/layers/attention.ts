import { shapeError, wantWhole } from '../../kernels/index.ts';
import { attention, reshape } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { Module } from '../module.ts';
import { Linear } from './linear.ts';
import { GroupNorm } from './norm.ts';

/**
 * Multi-head attention: every token of `x` looks at every token of `context`, or of `x` itself.
 *
 *     to_out( softmax(q kᵀ / √D) v ),   q = to_q(x),  k = to_k(context),  v = to_v(context)   per head
 *
 * @see Vaswani et al. 2017, Attention Is All You Need, §3.2. https://arxiv.org/abs/1706.03762
 */
export class Attention extends Module {
  group_norm: GroupNorm | undefined;
  to_q: Linear;
  to_k: Linear;
  to_v: Linear;
  to_out: [Linear];
  readonly heads: number;

  /** `groups`: normalise x first, as the VAE does. `context`: channels of the context, those of x if left out. */
  constructor(
    channels: number,
    options: { heads: number; headDim?: number; context?: number; bias?: boolean; groups?: number },
  ) {
    super();
    const { heads, context = channels, bias = false, groups } = options;
    wantWhole('Attention', 'heads', heads, 1);
    const inner = heads * (options.headDim ?? Math.floor(channels / heads));
    if (groups) this.group_norm = new GroupNorm(groups, channels, { eps: 1e-6 });
    this.to_q = new Linear(channels, inner, { bias });
    this.to_k = new Linear(context, inner, { bias });
    this.to_v = new Linear(context, inner, { bias });
    this.to_out = [new Linear(inner, channels)];
    this.heads = heads;
  }

  /** x: [B, N, C], context: [B, M, D] → [B, N, C], plus `residual` [B, N, C] */
  forward(x: Tensor, { context = x, residual }: { context?: Tensor; residual?: Tensor } = {}): Tensor {
    if (context.shape[0] !== x.shape[0]) throw shapeError('Attention', 'batch sizes differ', { x, context });
    const q = this.to_q.forward(x);
    const k = this.to_k.forward(context);
    const v = this.to_v.forward(context);
    return this.to_out[0].forward(attention(q, k, v, { heads: this.heads }), { residual });
  }

  /** Self-attention among the pixels of an image, added to it: [B, H, W, C] → [B, H, W, C] */
  forwardImage(x: Tensor): Tensor {
    const [B, H, W, C] = x.shape;
    const tokens = reshape(x, [B, H * W, C]);
    const normal = this.group_norm ? reshape(this.group_norm.forward(x), [B, H * W, C]) : tokens;
    return reshape(this.forward(normal, { residual: tokens }), [B, H, W, C]);
  }
}
