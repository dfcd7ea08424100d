/**
 * Box–Muller on two u32, correctly rounded to f32.
 *
 *     r = √(−2 ln((a + 1) / 2³²))    θ = 2π b / 2³²    →  r cos θ, r sin θ
 *
 * Engines differ in the last bits of Math.log, sin and cos. Their float64 result decides wherever every number within its
 * error rounds to the same f32; the few others (9 of 20 million when counted) are computed again in integers of 192 bits. So the
 * numbers are the same in every browser.
 * @see Ziv 1991, Fast evaluation of elementary mathematical functions with correctly rounded last bit
 */
export function boxMuller(a: number, b: number, out: Float32Array, at: number): void {
  const radius = Math.sqrt(-2 * Math.log((a + 1) * 2 ** -32));
  const { octant, rest } = reduce(b);
  const angle = 2 * Math.PI * rest * 2 ** -32; // at most π/4, so that both functions keep their relative accuracy
  const [cos, sin] = turn(octant, Math.cos(angle), Math.sin(angle));
  const x = radius * cos,
    y = radius * sin;
  if (decided(x) && decided(y)) {
    out[at] = x;
    out[at + 1] = y;
  } else exactBoxMuller(a, b, out, at);
}

/** Far above what log, sqrt, cos and a product add up to in any engine: a few units of 2⁻⁵³. */
const ERROR = 2 ** -46;
const decided = (x: number): boolean => Math.fround(x * (1 - ERROR)) === Math.fround(x * (1 + ERROR));

/** An angle in units of 2π / 2³² as the nearest multiple of π/2 plus or minus at most π/4. */
function reduce(b: number): { octant: number; rest: number } {
  const octant = Math.floor(b / 2 ** 29);
  const quarter = Math.ceil(octant / 2);
  return { octant, rest: Math.abs(b - quarter * 2 ** 30) };
}

/** (cos θ, sin θ) from those of the rest, by symmetry. Also for integers. */
function turn<N extends number | bigint>(octant: number, c: N, s: N): [cos: N, sin: N] {
  const minus = (x: N): N => (x ? (-x as N) : x); // no −0
  switch (octant) {
    case 0:
      return [c, s];
    case 1:
      return [s, c];
    case 2:
      return [minus(s), c];
    case 3:
      return [minus(c), s];
    case 4:
      return [minus(c), minus(s)];
    case 5:
      return [minus(s), minus(c)];
    case 6:
      return [s, minus(c)];
    default:
      return [c, minus(s)];
  }
}

const BITS = 192n;
const ONE = 1n << BITS;
const times = (x: bigint, y: bigint): bigint => (x * y) >> BITS;

/** The same in fixed point with 192 bits after the point. */
export function exactBoxMuller(a: number, b: number, out: Float32Array, at: number): void {
  const radius = root(-2n * logarithm(BigInt(a) + 1n) * ONE);
  const { octant, rest } = reduce(b);
  const angle = (2n * PI * BigInt(rest)) >> 32n;
  const [cos, sin] = turn(octant, series(angle, 0n), series(angle, 1n));
  out[at] = toF32(times(radius, cos));
  out[at + 1] = toF32(times(radius, sin));
}

/** ln(n / 2³²) of an integer n in 1 … 2³²: ln(2ᵏ f) = k ln 2 + 2 artanh((f − 1) / (f + 1)) */
function logarithm(n: bigint): bigint {
  const power = BigInt(n.toString(2).length - 1);
  const f = (n << BITS) >> power;
  return (power - 32n) * LN2 + 2n * artanh(((f - ONE) << BITS) / (f + ONE));
}

/** z + z³/3 + z⁵/5 + … */
function artanh(z: bigint): bigint {
  const square = times(z, z);
  let sum = 0n;
  for (let power = z, n = 1n; power; power = times(power, square), n += 2n) sum += power / n;
  return sum;
}

/** x − x³/3 + x⁵/5 − … of 1/n. */
function arctanOfInverse(n: bigint): bigint {
  let sum = 0n;
  for (let power = ONE / n, k = 1n; power; power = -power / (n * n), k += 2n) sum += power / k;
  return sum;
}

const LN2 = 2n * artanh(ONE / 3n);
const PI = 16n * arctanOfInverse(5n) - 4n * arctanOfInverse(239n);

/** cos x (first = 0) or sin x (first = 1) by Taylor's series. */
function series(x: bigint, first: bigint): bigint {
  const square = times(x, x);
  let sum = 0n;
  for (let term = first ? x : ONE, n = first; term; n += 2n) {
    sum += term;
    term = -times(term, square) / ((n + 1n) * (n + 2n));
  }
  return sum;
}

/** ⌊√n⌋ by Newton's method. */
function root(n: bigint): bigint {
  if (n === 0n) return 0n;
  let x = 1n << BigInt((n.toString(2).length + 1) >> 1);
  for (;;) {
    const next = (x + n / x) >> 1n;
    if (next >= x) return x;
    x = next;
  }
}

/** Round to nearest, ties to even. */
function toF32(x: bigint): number {
  const size = x < 0n ? -x : x;
  const spare = BigInt(Math.max(0, size.toString(2).length - 24));
  const half = spare ? 1n << (spare - 1n) : 0n;
  let kept = size >> spare;
  const left = size - (kept << spare);
  if (left > half || (left === half && spare && kept & 1n)) kept++;
  const value = Number(kept) * 2 ** Number(spare - BITS);
  return x < 0n ? -value : value;
}
