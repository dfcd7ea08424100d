import type { GpuArray, Shape } from './array.ts';
import { shapeError } from './errors.ts';

/** Distances between batches, heads and tokens of an operand, in elements; the numbers of one head lie densely. */
export interface Strides {
  batch: number;
  head: number;
  token: number;
}

/** Heads, causality and scale of an attention. */
export interface AttentionAttrs {
  /** Heads side by side in the last axis of [B, T, heads·D]; operands of four axes, [B, heads, T, D], say it themselves. */
  heads?: number;
  /** Query i sees the keys 0 … i only. */
  causal?: boolean;
  /** 1/√D when not given. */
  scale?: number;
}

export interface AttentionSizes {
  batch: number;
  heads: number;
  queries: number;
  keys: number;
  /** Size of one head of q and k, and of v. */
  dim: number;
  vdim: number;
  scale: number;
  causal: boolean;
  q: Strides;
  k: Strides;
  v: Strides;
  y: Strides;
  bias: { batch: number; head: number; query: number; key: number };
  /** Shape of the output. */
  shape: Shape;
}

type Operand = { shape: Shape };

/** Sizes and strides of the operands. @throws when they do not fit */
export function attentionSizes(
  q: Operand,
  k: Operand,
  v: Operand,
  bias: Operand | undefined,
  attrs: AttentionAttrs,
): AttentionSizes {
  const operands = { q: q.shape, k: k.shape, v: v.shape, bias: bias?.shape };
  const fail = (what: string, fix = '') => shapeError('attention', what, operands, fix);
  const rank = q.shape.length;
  if ((rank !== 3 && rank !== 4) || k.shape.length !== rank || v.shape.length !== rank) {
    throw fail('q, k and v are not all [B, T, heads·D] or all [B, heads, T, D]');
  }
  const four = rank === 4;
  const heads = four ? q.shape[1] : (attrs.heads ?? 1);
  if (!Number.isInteger(heads) || heads < 1) throw fail(`heads is ${heads}, must be a whole number of at least 1`);
  if (four && attrs.heads !== undefined && attrs.heads !== heads)
    throw fail(`heads is ${attrs.heads}, but the operands have ${heads}`);
  const view = ({ shape }: Operand) => {
    const [batch, tokens, width] = [shape[0], shape[rank - 2], shape[rank - 1]];
    const dim = four ? width : width / heads;
    const strides = four
      ? { batch: heads * tokens * dim, head: tokens * dim, token: dim }
      : { batch: tokens * width, head: dim, token: width };
    return { batch, tokens, dim, strides, heads: four ? shape[1] : heads };
  };
  const [Q, K, V] = [view(q), view(k), view(v)];
  for (const { dim } of [Q, K, V]) if (!Number.isInteger(dim)) throw fail(`${heads} heads do not divide the last axis`);
  if (K.heads !== heads || V.heads !== heads) throw fail('numbers of heads differ');
  if (Q.batch !== K.batch || Q.batch !== V.batch) throw fail('batches differ');
  if (Q.dim !== K.dim) throw fail(`sizes of a head of q and k differ (${Q.dim} ≠ ${K.dim})`);
  if (K.tokens !== V.tokens) throw fail(`numbers of keys and values differ (${K.tokens} ≠ ${V.tokens})`);
  if (Q.dim === 0) throw fail('a head of q has no numbers');
  if (K.tokens === 0 && Q.batch * Q.tokens > 0) throw fail('there are no keys to look at');
  const full = [Q.batch, heads, Q.tokens, K.tokens];
  const padded = [...Array(4 - Math.min(4, bias?.shape.length ?? 4)).fill(1), ...(bias?.shape ?? [])] as number[];
  if (bias && (padded.length !== 4 || padded.some((d, i) => d !== 1 && d !== full[i]))) {
    throw fail(`bias does not broadcast to [${full.join(', ')}]`, 'its axes are [B, heads, queries, keys]');
  }
  const [b, h, i, j] = [3, 2, 1, 0].map((n) =>
    padded[3 - n] === 1 ? 0 : padded.slice(4 - n).reduce((p, d) => p * d, 1),
  );
  const shape = four ? [Q.batch, heads, Q.tokens, V.dim] : [Q.batch, Q.tokens, heads * V.dim];
  return {
    batch: Q.batch,
    heads,
    queries: Q.tokens,
    keys: K.tokens,
    dim: Q.dim,
    vdim: V.dim,
    scale: attrs.scale ?? 1 / Math.sqrt(Q.dim),
    causal: attrs.causal ?? false,
    q: Q.strides,
    k: K.strides,
    v: V.strides,
    y: view({ shape }).strides,
    bias: { batch: b, head: h, query: i, key: j },
    shape,
  };
}

export type AttentionInputs = { q: GpuArray; k: GpuArray; v: GpuArray; bias?: GpuArray };
