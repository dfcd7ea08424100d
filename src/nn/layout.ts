import type { HostTensor } from '../tensor/io/safetensors.ts';

/** 'conv': checkpoints hold convolution weights as [O, I, kh, kw], we keep [O, kh, kw, I]. */
export type Layout = 'same' | 'conv';

/** The shape that checkpoints give to our shape. */
export function checkpointShape(shape: readonly number[], layout: Layout): readonly number[] {
  if (layout === 'same') return shape;
  const [O, kh, kw, I] = shape;
  return [O, I, kh, kw];
}

/** Numbers, or bits of halves. */
type Numbers = Float32Array | Uint16Array;

/** Does a tensor of a checkpoint fill our shape? It may differ in trailing ones. */
export const fits = (shape: readonly number[], ours: readonly number[], layout: Layout): boolean =>
  sameShape(shape, checkpointShape(ours, layout));

/** @returns the numbers in our order, or undefined when the shapes do not agree */
export function fromCheckpoint<T extends Numbers>(
  { shape, data }: { shape: readonly number[]; data: T },
  ours: readonly number[],
  layout: Layout,
): T | undefined {
  if (!fits(shape, ours, layout)) return undefined;
  if (layout === 'same') return data;
  const [O, kh, kw, I] = ours;
  return swapInner(data, O, I, kh * kw);
}

/** Our numbers as checkpoints hold them. */
export function toCheckpoint(data: Float32Array, shape: readonly number[], layout: Layout): HostTensor {
  if (layout === 'same') return { shape: [...shape], data };
  const [O, kh, kw, I] = shape;
  return { shape: [...checkpointShape(shape, layout)], data: swapInner(data, O, kh * kw, I) };
}

/** [O, rows, cols] → [O, cols, rows] */
function swapInner<T extends Numbers>(data: T, O: number, rows: number, cols: number): T {
  if (rows === 1 || cols === 1) return data;
  const out = new (data.constructor as new (n: number) => T)(data.length);
  for (let o = 0; o < O; o++) {
    const base = o * rows * cols;
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < cols; c++) out[base + c * rows + r] = data[base + r * cols + c];
    }
  }
  return out;
}

/** Equal but for trailing ones: [512, 512] and [512, 512, 1, 1] hold the same. */
function sameShape(a: readonly number[], b: readonly number[]): boolean {
  const length = Math.max(a.length, b.length);
  for (let i = 0; i < length; i++) if ((a[i] ?? 1) !== (b[i] ?? 1)) return false;
  return true;
}
