/**
 * Random numbers that are the same on every machine: a counter-based generator, so that number `i` of a stream can be
 * computed without the ones before it, in any order and on any thread.
 *
 *     word i of (seed, stream) = Threefry2x32-20(key = [seed, stream], counter = [i / 2, seed / 2³²])[i mod 2]
 *
 * Only u32 additions, rotations and xors, so JavaScript and WGSL agree to the bit. The Gaussian step is done in JavaScript and
 * rounded once, correctly.
 * @see Salmon et al. 2011, Parallel Random Numbers: As Easy as 1, 2, 3. https://doi.org/10.1145/2063384.2063405
 */
import { wantWhole } from '../kernels/errors.ts';
import { boxMuller } from './random/gaussian.ts';

export { TorchGenerator } from './random/torch-generator.ts';

/** A stream of one seed: a number below 2³², or a name ('latents', 'time', …) that is hashed to one. */
export type Stream = number | string;

const rotations = [13, 15, 26, 6, 17, 29, 16, 24];

/** Threefry2x32-20: two u32 of key and two of counter → two u32, written to `out`. */
export function threefry(k0: number, k1: number, c0: number, c1: number, out: Uint32Array): void {
  const keys = [k0 | 0, k1 | 0, k0 ^ k1 ^ 0x1bd11bda];
  let x = (c0 + keys[0]) | 0;
  let y = (c1 + keys[1]) | 0;
  for (let round = 0; round < 20; round++) {
    const r = rotations[round & 7];
    x = (x + y) | 0;
    y = ((y << r) | (y >>> (32 - r))) ^ x;
    if ((round & 3) === 3) {
      const step = (round >> 2) + 1; // a key word is injected after every fourth round
      x = (x + keys[step % 3]) | 0;
      y = (y + keys[(step + 1) % 3] + step) | 0;
    }
  }
  out[0] = x;
  out[1] = y;
}

/** FNV-1a over UTF-8: names → u32. */
export function fnv1a32(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

/** Words `start … start + count − 1` of a stream. A stream has 2³³ of them. */
export function words(seed: number, stream: Stream, start: number, count: number): Uint32Array {
  checkSeed(seed);
  wantWhole('random', 'count', count, 0);
  wantWhole('random', 'start', start, 0);
  const key = typeof stream === 'string' ? fnv1a32(stream) : stream;
  const high = Math.floor(seed / 2 ** 32);
  const out = new Uint32Array(count),
    pair = new Uint32Array(2);
  for (let i = 0; i < count;) {
    const at = start + i;
    threefry(seed, key, Math.floor(at / 2), high, pair);
    if (at % 2 === 0) out[i++] = pair[0];
    if (i < count) out[i++] = pair[1];
  }
  return out;
}

/** Word number `counter` of (seed, stream): an integer in [0, 2³²). */
export function uniformU32(seed: number, stream: Stream, counter: number): number {
  return words(seed, stream, counter, 1)[0];
}

/** `count` numbers in [0, 1), multiples of 2⁻²⁴ and so exact in f32. */
export function uniform(seed: number, stream: Stream, count: number, start = 0): Float32Array {
  return Float32Array.from(words(seed, stream, start, count), (word) => (word >>> 8) * 2 ** -24);
}

/**
 * `count` numbers from N(0, 1): Box–Muller on word pairs, correctly rounded, at most 6.66 in size.
 * @see random/gaussian.ts
 */
export function normal(seed: number, stream: Stream, count: number, start = 0): Float32Array {
  wantWhole('random', 'count', count, 0);
  const first = start - (start % 2);
  const raw = words(seed, stream, first, 2 * Math.ceil((start + count - first) / 2));
  const out = new Float32Array(raw.length);
  for (let i = 0; i < raw.length; i += 2) boxMuller(raw[i], raw[i + 1], out, i);
  return out.subarray(start - first, start - first + count);
}

/** `count` integers in [low, high); the bias is below (high − low) / 2³². */
export function randint(seed: number, stream: Stream, count: number, low: number, high: number, start = 0): Int32Array {
  wantWhole('randint', 'low', low, -(2 ** 31));
  wantWhole('randint', 'high', high, -(2 ** 31));
  if (!(high > low)) throw new RangeError(`randint: nothing to draw from [${low}, ${high})`);
  return Int32Array.from(words(seed, stream, start, count), (word) => low + Math.floor(word * 2 ** -32 * (high - low)));
}

/** The numbers 0 … n − 1 in an order that depends on the seed and the epoch only (Fisher–Yates). */
export function permutation(seed: number, epoch: number, n: number): Uint32Array {
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  const raw = words(seed, fnv1a32('permutation') ^ epoch, 0, n);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(raw[i] * 2 ** -32 * (i + 1));
    const kept = order[i];
    order[i] = order[j];
    order[j] = kept;
  }
  return order;
}

function checkSeed(seed: number): void {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new RangeError(`a seed must be a whole number from 0 to 2^53 - 1, not ${seed}`);
  }
}
