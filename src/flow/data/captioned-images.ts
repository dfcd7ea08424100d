/** Images with captions, in memory: what every data set turns into. */
export interface CaptionedImages {
  size: number; // H = W, in pixels
  channels: 3;
  images: Float32Array; // [N, H, W, 3] in [-1, 1]
  captions: string[][]; // [N], the most specific caption first; at least one each
  ids: string[]; // [N], unique
  attribution: string; // who made them, under which licence; '' when the user knows best
}

/** 0 … 255 → -1 … 1 */
export function fromBytes(bytes: Uint8Array): Float32Array {
  return Float32Array.from(bytes, (value) => value / 127.5 - 1);
}

/** -1 … 1 → 0 … 255, rounded; what lies outside is clipped. */
export function toBytes(values: Float32Array): Uint8ClampedArray {
  return Uint8ClampedArray.from(values, (value) => (value + 1) * 127.5);
}
