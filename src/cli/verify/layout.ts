/** PyTorch keeps channels second, we keep them last: [B, C, H, W] ↔ [B, H, W, C], weights [O, I, kh, kw] ↔ [O, kh, kw, I]. */
import type { HostTensor } from '../../tensor/io/safetensors.ts';

type Host = Pick<HostTensor, 'shape'> & { data: ArrayLike<number> };

/** Axes in the order `axes` gives them, like torch's permute. */
export function permuteHost({ shape, data }: Host, axes: readonly number[]): HostTensor {
  const strides = shape.map((_, i) => shape.slice(i + 1).reduce((n, d) => n * d, 1));
  const outShape = axes.map((axis) => shape[axis]),
    outStrides = axes.map((axis) => strides[axis]);
  const out = new Float32Array(data.length),
    index = axes.map(() => 0);
  for (let i = 0, from = 0; i < out.length; i++) {
    out[i] = data[from];
    for (let axis = axes.length - 1; axis >= 0; axis--) {
      from += outStrides[axis];
      if (++index[axis] < outShape[axis]) break;
      from -= outStrides[axis] * outShape[axis];
      index[axis] = 0;
    }
  }
  return { shape: outShape, data: out };
}

/** Axis 1 goes to the end: [B, C, …] → [B, …, C]. */
export function channelsLast(tensor: Host): HostTensor {
  const rank = tensor.shape.length;
  return permuteHost(tensor, rank < 3 ? tensor.shape.map((_, i) => i) : [0, ...range(2, rank), 1]);
}

/** The last axis goes to place 1: [B, …, C] → [B, C, …]. */
export function channelsSecond(tensor: Host): HostTensor {
  const rank = tensor.shape.length;
  return permuteHost(tensor, rank < 3 ? tensor.shape.map((_, i) => i) : [0, rank - 1, ...range(1, rank - 1)]);
}

/** [B, heads, T, D] → [B, T, heads · D]. */
export function joinHeads(tensor: Host): HostTensor {
  const [B, heads, T, D] = tensor.shape;
  return { shape: [B, T, heads * D], data: permuteHost(tensor, [0, 2, 1, 3]).data };
}

/** [B, T, heads · D] → [B, heads, T, D]. */
export function splitHeads({ shape: [B, T, C], data }: Host, heads: number): HostTensor {
  return permuteHost({ shape: [B, T, heads, C / heads], data }, [0, 2, 1, 3]);
}

/** How PyTorch's layout of an operand becomes ours, and back (`theirs` is the shape that PyTorch has). */
export interface Layout {
  ours(tensor: Host): HostTensor;
  theirs(tensor: Host, theirs: readonly number[]): HostTensor;
}

export const channels: Layout = { ours: channelsLast, theirs: channelsSecond };
export const heads: Layout = { ours: joinHeads, theirs: (tensor, theirs) => splitHeads(tensor, theirs[1]) };

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
