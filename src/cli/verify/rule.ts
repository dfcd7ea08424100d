/**
 * The number rule "u32-v1" of the golden data: weights and inputs from a seed, a name and an index.
 *
 *     h = fnv1a32(seed | name),   u(i) = mix(h + (i + 1) · 0x9E3779B9) in [−1, 1),   value = f32(b + a · u)
 */
import { fnv1a32 } from '../../tensor/random.ts';

/** How a case names the weights it was made with. */
export interface Weights {
  rule?: string;
  seed: string;
  gain?: number;
  /** The first expression found in a name multiplies a and b. */
  scale_rules?: [string, number][];
}

/** u of element `i` (row-major) of the tensor with this hash. */
export function ruleUniform(hash: number, i: number): number {
  let z = (hash + Math.imul(i + 1, 0x9e3779b9)) | 0;
  z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
  z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
  z ^= z >>> 15;
  return (z >>> 8) * 2 ** -23 - 1;
}

export function ruleHash(seed: string, name: string): number {
  return fnv1a32(`${seed}|${name}`);
}

/** `count` numbers b + a·u, rounded once. */
export function affine(count: number, seed: string, name: string, a = 1, b = 0): Float32Array {
  const numbers = new Float32Array(count);
  let step = ruleHash(seed, name);
  for (let i = 0; i < count; i++) {
    let z = (step = (step + 0x9e3779b9) | 0); // as ruleUniform(), without a call for each of a billion numbers
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    z ^= z >>> 15;
    numbers[i] = b + a * ((z >>> 8) * 2 ** -23 - 1);
  }
  return numbers;
}

/** `count` integers in [low, high). */
export function integers(count: number, seed: string, name: string, low: number, high: number): Float32Array {
  const hash = ruleHash(seed, name);
  return Float32Array.from(
    { length: count },
    (_, i) => low + Math.floor(((ruleUniform(hash, i) + 1) / 2) * (high - low)),
  );
}

/** A parameter by its state-dict key, in the checkpoint's own layout. */
export function parameter(name: string, shape: readonly number[], weights: Weights): Float32Array {
  let [a, b] = parameterScale(name, shape, weights.gain ?? 1);
  const factor = weights.scale_rules?.find(([expression]) => new RegExp(expression).test(name))?.[1] ?? 1;
  a *= factor;
  b *= factor;
  return affine(
    shape.reduce((n, d) => n * d, 1),
    weights.seed,
    name,
    a,
    b,
  );
}

/** a and b of a parameter; the first row that matches wins. */
export function parameterScale(name: string, shape: readonly number[], gain = 1): [a: number, b: number] {
  if (/(token|position)_embedding\.weight$/.test(name)) return [0.05, 0];
  if (/(^|\.)lin\d+\.model\.1\.weight$/.test(name)) return [0.9 / shape[1], 1 / shape[1]];
  if (shape.length === 1 && name.endsWith('bias')) return [0.1, 0];
  if (shape.length === 1 && name.endsWith('weight')) return [0.1, 1];
  if (shape.length >= 2) return [gain * Math.sqrt(3 / shape.slice(1).reduce((n, d) => n * d, 1)), 0];
  throw new Error(`the number rule has no row for ${name} [${shape}]`);
}
