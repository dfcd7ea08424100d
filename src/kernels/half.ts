/** Half-precision bits ↔ numbers, exact: subnormals, infinities and NaN included; ties round to even. */
const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** IEEE binary16 bits → number. */
export function halfToFloat(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** Number (rounded to f32 first) → IEEE binary16 bits, round to nearest even; 65520 and above become infinity. */
export function floatToHalf(value: number): number {
  float[0] = value;
  const f = bits[0];
  const sign = (f >>> 16) & 0x8000;
  const magnitude = f & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00; // NaN
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // ≥ 65520
  if (magnitude < 0x38800000) {
    // below 2⁻¹⁴: a multiple of 2⁻²⁴
    return sign | roundHalfEven(Math.abs(float[0]) * 2 ** 24);
  }
  const rebased = magnitude - 0x38000000; // exponent bias 127 → 15
  return sign | ((rebased + 0xfff + ((rebased >> 13) & 1)) >> 13);
}

/** All 65,536 halves, for converting arrays; made at first use. */
let table: Float32Array | undefined;

/** f16 bits → f32. */
export function halvesToFloats(halves: Uint16Array): Float32Array<ArrayBuffer> {
  table ??= Float32Array.from({ length: 65536 }, (_, half) => halfToFloat(half));
  const out = new Float32Array(halves.length);
  for (let i = 0; i < out.length; i++) out[i] = table[halves[i]];
  return out;
}

/** f32 → f16 bits. */
export function floatsToHalves(floats: ArrayLike<number>): Uint16Array<ArrayBuffer> {
  const out = new Uint16Array(floats.length);
  for (let i = 0; i < out.length; i++) out[i] = floatToHalf(floats[i]);
  return out;
}

function roundHalfEven(x: number): number {
  const floor = Math.floor(x),
    rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor & 1) ? floor + 1 : floor;
}
