import { attention as attentionOp } from '../../kernels/attention.ts';
import type { AttentionAttrs } from '../../kernels/attention-layout.ts';
import { geglu as gegluOp } from '../../kernels/geglu.ts';
import { linear as linearOp } from '../../kernels/linear.ts';
import { matmul as matmulOp } from '../../kernels/matmul.ts';
import { apply } from '../tensor.ts';
import type { Tensor } from '../tensor.ts';

/**
 * Matrix product over the last two axes; the axes before them broadcast.   a: [.., M, K]   b: [.., K, N]   → [.., M, N]
 *
 * With `transposeA` a is [.., K, M], with `transposeB` b is [.., N, K]; neither is copied.
 */
export const matmul = (a: Tensor, b: Tensor, attrs: { transposeA?: boolean; transposeB?: boolean } = {}): Tensor =>
  apply(matmulOp, [a, b], attrs);

/** x·Wᵀ + bias + residual.   x: [.., K]   weight: [N, K]   bias: [N]   residual: [.., N]   → [.., N] */
export const linear = (x: Tensor, weight: Tensor, bias?: Tensor, { residual }: { residual?: Tensor } = {}): Tensor =>
  apply(linearOp, [x, weight, bias, residual], {});

/** h · gelu(g), where h and g are the halves of x·Wᵀ + bias.   x: [.., K]   weight: [2N, K]   bias: [2N]   → [.., N] */
export const geglu = (x: Tensor, weight: Tensor, bias?: Tensor): Tensor => apply(gegluOp, [x, weight, bias], {});

/** Heads, causality, scale and bias of an attention. */
export interface AttentionOptions extends AttentionAttrs {
  /** Added to the scores, broadcastable to [B, heads, Tq, Tk]; −∞ hides a key. */
  bias?: Tensor;
}

/**
 * softmax(q·kᵀ·scale + bias)·v for every head.   q: [B, Tq, heads·D]   k: [B, Tk, heads·D]   v: [B, Tk, heads·E]
 * → [B, Tq, heads·E]. Operands of four axes are [B, heads, T, D]. `scale` is 1/√D when not given.
 */
export const attention = (q: Tensor, k: Tensor, v: Tensor, { bias, ...attrs }: AttentionOptions = {}): Tensor =>
  apply(attentionOp, [q, k, v, bias], attrs);

/** PyTorch's order of axes: q: [B, heads, Tq, D]   k: [B, heads, Tk, D]   v: [B, heads, Tk, E] → [B, heads, Tq, E] */
export const scaledDotProductAttention = (
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: Omit<AttentionOptions, 'heads'> = {},
): Tensor => attention(q, k, v, options);
