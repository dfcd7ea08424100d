import { wantWhole } from '../../kernels/errors.ts';

/**
 * PyTorch's CPU generator: the Mersenne Twister mt19937 and the exact rules by which `torch.randn` & co. use it, so
 * that a seed gives here what `torch.Generator('cpu').manual_seed(seed)` gives there.
 *
 * The integers and uniforms are PyTorch's to the bit. Normals agree to about 1e-6: PyTorch takes logarithm and sine in
 * f32 with AVX2 approximations, we take them in float64 and round once.
 * @see aten/src/ATen/native/cpu/DistributionTemplates.h and ATen/core/DistributionsHelper.h in PyTorch
 */
export class TorchGenerator {
  private state = new Uint32Array(624);
  private next = 624;
  private cachedNormal: number | undefined;

  constructor(seed: number | bigint = 0) {
    this.manualSeed(seed);
  }

  /** Like `torch.manual_seed`: mt19937 takes the low 32 bits. */
  manualSeed(seed: number | bigint): this {
    const state = this.state;
    state[0] = Number(BigInt.asUintN(32, BigInt(seed)));
    for (let i = 1; i < 624; i++) {
      const last = state[i - 1] ^ (state[i - 1] >>> 30);
      state[i] = Math.imul(1812433253, last) + i;
    }
    this.next = 624;
    this.cachedNormal = undefined;
    return this;
  }

  /** The next 32 random bits. */
  random(): number {
    if (this.next === 624) this.refill();
    let y = this.state[this.next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /** `torch.rand(count)`, f32: 24 of 32 bits. */
  rand(count: number): Float32Array {
    wantWhole('rand', 'count', count, 0);
    return Float32Array.from({ length: count }, () => this.uniform24());
  }

  /** `torch.randn(count)`, f32. Mind that PyTorch uses another rule below 16 elements. */
  randn(count: number): Float32Array {
    wantWhole('randn', 'count', count, 0);
    const out = new Float32Array(count);
    if (count < 16) {
      for (let i = 0; i < count; i++) out[i] = this.normal();
      return out;
    }
    for (let i = 0; i < count; i++) out[i] = this.uniform24();
    for (let i = 0; i + 16 <= count; i += 16) boxMuller16(out, i);
    if (count % 16) {
      // the last 16 are drawn again
      for (let i = count - 16; i < count; i++) out[i] = this.uniform24();
      boxMuller16(out, count - 16);
    }
    return out;
  }

  /** `torch.randint(low, high, [count])` for ranges up to 2³². */
  randint(low: number, high: number, count: number): Int32Array {
    wantWhole('randint', 'count', count, 0);
    const range = high - low;
    if (!(range > 0 && range <= 2 ** 32)) throw new RangeError(`randint: bad range [${low}, ${high})`);
    return Int32Array.from({ length: count }, () => low + (this.random() % range));
  }

  /** `torch.randperm(n)`. */
  randperm(n: number): Uint32Array {
    wantWhole('randperm', 'n', n, 0);
    const order = Uint32Array.from({ length: n }, (_, i) => i);
    for (let i = 0; i < n - 1; i++) {
      const j = i + (this.random() % (n - i));
      const kept = order[i];
      order[i] = order[j];
      order[j] = kept;
    }
    return order;
  }

  private uniform24(): number {
    return (this.random() & 0xffffff) * 2 ** -24;
  }

  /** 53 of 64 bits; the first word is the high one. */
  private uniform53(): number {
    const high = this.random() & 0x1fffff;
    return (high * 2 ** 32 + this.random()) * 2 ** -53;
  }

  /** Scalar Box–Muller in float64; the sine half is kept for the next call, also across calls of `randn`. */
  private normal(): number {
    if (this.cachedNormal !== undefined) {
      const cached = this.cachedNormal;
      this.cachedNormal = undefined;
      return cached;
    }
    const angle = 2 * Math.PI * this.uniform53();
    const radius = Math.sqrt(-2 * Math.log1p(-this.uniform53()));
    this.cachedNormal = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  private refill(): void {
    const state = this.state;
    for (let i = 0; i < 624; i++) {
      const mixed = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
      state[i] = state[(i + 397) % 624] ^ (mixed >>> 1) ^ (mixed & 1 ? 0x9908b0df : 0);
    }
    this.next = 0;
  }
}

/** Sixteen uniforms → sixteen normals: element j is paired with j + 8. */
function boxMuller16(data: Float32Array, at: number): void {
  for (let j = at; j < at + 8; j++) {
    const radius = Math.sqrt(-2 * Math.log(1 - data[j]));
    const angle = 2 * Math.PI * data[j + 8];
    data[j] = radius * Math.cos(angle);
    data[j + 8] = radius * Math.sin(angle);
  }
}
