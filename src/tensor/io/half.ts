/** 16-bit floating-point numbers of files: halves as the GPU has them, and bfloat16, which files alone have. */
export { floatsToHalves, floatToHalf, halfToFloat, halvesToFloats } from '../../kernels/half.ts';

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** bfloat16 bits → number: the upper half of an f32. */
export function bfloatToFloat(bfloat: number): number {
  bits[0] = bfloat << 16;
  return float[0];
}

/** Number → bfloat16 bits, round to nearest even. */
export function floatToBfloat(value: number): number {
  float[0] = value;
  const f = bits[0];
  if ((f & 0x7fffffff) > 0x7f800000) return (f >>> 16) | 0x40; // NaN stays NaN
  return ((f + 0x7fff + ((f >>> 16) & 1)) >>> 16) & 0xffff;
}

/** bfloat16 bits → f32. */
export function bfloatsToFloats(bfloats: Uint16Array): Float32Array<ArrayBuffer> {
  const out = new Uint32Array(bfloats.length);
  for (let i = 0; i < out.length; i++) out[i] = bfloats[i] << 16;
  return new Float32Array(out.buffer);
}

/** f32 → bfloat16 bits. */
export function floatsToBfloats(floats: Float32Array): Uint16Array<ArrayBuffer> {
  const out = new Uint16Array(floats.length);
  for (let i = 0; i < out.length; i++) out[i] = floatToBfloat(floats[i]);
  return out;
}
