import type { GpuArray } from './array.ts';
import { compositeBackward, compositeForward } from './attention-composite.ts';
import { fits, fusedBackward, fusedForward } from './attention-fused.ts';
import type { FusedKernel } from './attention-fused.ts';
import { attentionSizes } from './attention-layout.ts';
import type { AttentionAttrs, AttentionSizes } from './attention-layout.ts';
import type { Capabilities } from './device.ts';
import { wantFloats } from './floats.ts';
import { hostArray } from './op.ts';
import type { Op } from './op.ts';

/** Scores that are cheaper stored than computed twice, where no lanes hold them. */
const FEW_SCORES = 2 ** 22;
/** Heads of more channels than this pay for stored scores at any number: they are stored by blocks of queries. */
const WIDE = 160;

/**
 * 'subgroup' and 'workgroup' never store the scores; 'naive' does, in matrix products, which software adapters without SIMD
 * lanes of a known width do faster while the scores are few. So do all software adapters for wide heads, such as the one of
 * 512 channels in a VAE: 4 s of processor time in place of 48 for 4096 pixels.
 */
export function pickAttention(
  s: AttentionSizes,
  { family, subgroups, subgroupSize, force }: Capabilities,
): FusedKernel | 'naive' {
  const possible = {
    subgroup: subgroups && subgroupSize === 8 && fits(s, 'subgroup', subgroupSize),
    workgroup: fits(s, 'workgroup', 0),
    naive: true,
  };
  const wanted = force.attention as keyof typeof possible | undefined;
  if (wanted && possible[wanted]) return wanted;
  if (family === 'cpu' && possible.subgroup) return 'subgroup';
  const wide = Math.max(s.dim, s.vdim) > WIDE;
  const few = s.batch * s.heads * s.queries * s.keys <= FEW_SCORES;
  return possible.workgroup && !(family === 'cpu' && (wide || few)) ? 'workgroup' : 'naive';
}

/**
 * Scaled dot-product attention, every head by itself.
 *
 *     P = softmax(q·kᵀ·scale + bias)     y = P·v
 *     dv = Pᵀ·dy     dS = P ∘ (dy·vᵀ − Σ dy ∘ y)     dq = scale · dS·k     dk = scale · dSᵀ·q     dbias = dS
 *
 * q: [B, Tq, heads·D]   k: [B, Tk, heads·D]   v: [B, Tk, heads·E]   y: [B, Tq, heads·E], or all as [B, heads, T, D].
 * bias: broadcastable to [B, heads, Tq, Tk]; −∞ hides a key.
 *
 * @throws when heads do not divide the last axis, batches, heads or tokens do not fit, or there are no keys
 * @see Vaswani et al. 2017, Attention Is All You Need, §3.2. https://arxiv.org/abs/1706.03762
 * @see Dao et al. 2022, FlashAttention, §3 and appendix B. https://arxiv.org/abs/2205.14135
 */
export const attention: Op<[q: GpuArray, k: GpuArray, v: GpuArray, bias?: GpuArray], AttentionAttrs> = {
  name: 'attention',
  forward(gpu, [q, k, v, bias], attrs) {
    wantFloats('attention', { q, k, v, bias });
    const s = attentionSizes(q, k, v, bias, attrs);
    const inputs = { q, k, v, bias };
    const kernel = pickAttention(s, gpu.capabilities);
    if (kernel === 'naive') {
      const output = compositeForward(gpu, inputs, s);
      return { output, saved: [q, k, v, bias] };
    }
    const { y, logSumExp } = fusedForward(gpu, kernel, inputs, s);
    return { output: y, saved: [q, k, v, bias, y, logSumExp] };
  },
  backward(gpu, dy, [q, k, v, bias, y, logSumExp], attrs, needs) {
    const s = attentionSizes(q, k, v, bias, attrs);
    const inputs = { q, k, v, bias };
    const kernel = pickAttention(s, gpu.capabilities);
    if (kernel === 'naive' || !logSumExp || (bias && needs[3])) return compositeBackward(gpu, dy, inputs, s, needs);
    return fusedBackward(gpu, kernel, dy, { ...inputs, y, logSumExp }, s, needs);
  },
  reference([q, k, v, bias], attrs) {
    const s = attentionSizes(q, k, v, bias, attrs);
    const y = hostArray(s.shape);
    for (let b = 0; b < s.batch; b++) {
      for (let h = 0; h < s.heads; h++) {
        for (let i = 0; i < s.queries; i++) {
          const qAt = b * s.q.batch + h * s.q.head + i * s.q.token;
          const scores: number[] = [];
          for (let j = 0; j < s.keys && !(s.causal && j > i); j++) {
            const kAt = b * s.k.batch + h * s.k.head + j * s.k.token;
            let dot = 0;
            for (let d = 0; d < s.dim; d++) dot += q.data[qAt + d] * k.data[kAt + d];
            const at = b * s.bias.batch + h * s.bias.head + i * s.bias.query + j * s.bias.key;
            scores.push(dot * s.scale + (bias?.data[at] ?? 0));
          }
          const top = Math.max(...scores);
          const total = scores.reduce((sum, score) => sum + Math.exp(score - top), 0);
          for (const [j, score] of scores.entries()) {
            const p = Math.exp(score - top) / total;
            const vAt = b * s.v.batch + h * s.v.head + j * s.v.token;
            const yAt = b * s.y.batch + h * s.y.head + i * s.y.token;
            for (let d = 0; d < s.vdim; d++) y.data[yAt + d] += p * v.data[vAt + d];
          }
        }
      }
    }
    return y;
  },
};
