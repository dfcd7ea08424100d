/** Random calls of every differentiable function of tensors, for test/gradient-property.test.ts. */
import * as f from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { randoms } from './randoms.ts';

/** An operand; integers have no gradient. */
export interface Operand {
  shape: number[];
  data: ArrayLike<number>;
  integers?: boolean;
}

/** One call. `label` says what was drawn beside the shapes. */
export interface Call {
  operands: Operand[];
  run: (...operands: Tensor[]) => Tensor | Tensor[];
  label?: unknown;
  /** Largest error over the largest gradient; 5e-5 unless given. */
  tolerance?: number;
}

/** Draws from one seed. */
export class Draw {
  #next: number;
  constructor(seed: number) {
    this.#next = seed;
  }

  /** In [0, 1). */
  unit(): number {
    return randoms(1, ++this.#next, [0, 1])[0];
  }
  /** From low to high, both included. */
  whole(low: number, high: number): number {
    return low + Math.floor(this.unit() * (high - low + 1));
  }
  pick<T>(from: readonly T[]): T {
    return from[this.whole(0, from.length - 1)];
  }
  coin(): boolean {
    return this.unit() < 0.5;
  }
  /** Mostly odd; sometimes a multiple of 4, where kernels take four numbers at once. */
  size(least = 1): number {
    const size = this.pick([1, 3, 3, 5, 5, 7, 9, 11, 2, 4, 8]);
    return size >= least ? size : this.size(least);
  }
  shape(low = 1, high = 4): number[] {
    const shape = Array.from({ length: this.whole(low, high) }, () => this.size());
    return product(shape) <= 500 ? shape : this.shape(low, high);
  }
  floats(shape: number[], low = -2, high = 2): Operand {
    return { shape, data: randoms(product(shape), ++this.#next, [low, high]) };
  }
  /** Numbers that differ by 0.01 at least, for functions that look which one is the largest. */
  distinct(shape: number[]): Operand {
    const n = product(shape);
    const order = this.order(n);
    return { shape, data: order.map((k) => 0.02 * (k - n / 2) + 0.01 * this.unit()) };
  }
  integers(shape: number[], below: number): Operand {
    return { shape, data: randoms(product(shape), ++this.#next, [0, below]).map(Math.floor), integers: true };
  }
  /** 0 … n − 1 in some order. */
  order(n: number): number[] {
    const list = Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = this.whole(0, i);
      [list[i], list[j]] = [list[j], list[i]];
    }
    return list;
  }
  /** A shape that broadcasts to the given one. */
  narrower(shape: readonly number[]): number[] {
    return shape.slice(this.whole(0, shape.length - 1)).map((d) => (this.unit() < 0.3 ? 1 : d));
  }
  /** Some axes, from either end, or undefined for all. */
  axes(rank: number): number[] | undefined {
    if (this.unit() < 0.25) return undefined;
    return this.order(rank)
      .slice(0, this.whole(1, rank))
      .map((axis) => (this.coin() ? axis : axis - rank));
  }
  axis(rank: number): number {
    return this.whole(-rank, rank - 1);
  }
}

export const product = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);

/** `n` counts the calls of a function: what must not be left to chance goes by it. */
type Generator = (r: Draw, n: number) => Call;

const elementwise =
  (fn: (x: Tensor) => Tensor, low = -4, high = 4): Generator =>
  (r) => ({ operands: [r.floats(r.shape(), low, high)], run: fn });

const broadcasting =
  (fn: (a: Tensor, b: Tensor) => Tensor, low = -2, high = 2): Generator =>
  (r) => {
    const shape = r.shape();
    const [a, b] = r.coin() ? [shape, r.narrower(shape)] : [r.narrower(shape), shape];
    return { operands: [r.floats(a, low, high), r.floats(b, low, high)], run: fn };
  };

const extreme =
  (fn: (a: Tensor, b: Tensor) => Tensor): Generator =>
  (r) => {
    const { shape, data } = r.distinct([2, ...r.shape(1, 3)]);
    const half = data.length / 2;
    const part = (k: number) => ({ shape: shape.slice(1), data: Array.from(data).slice(k * half, (k + 1) * half) });
    return { operands: [part(0), part(1)], run: fn };
  };

const reducing =
  (
    fn: (x: Tensor, attrs: { axes?: number[]; keepdim?: boolean }) => Tensor,
    { distinct = false, least = 1 } = {},
  ): Generator =>
  (r) => {
    const shape = r.shape().map((d) => Math.max(d, least));
    const attrs = { axes: r.axes(shape.length), keepdim: r.coin() };
    return { operands: [distinct ? r.distinct(shape) : r.floats(shape)], run: (x) => fn(x, attrs), label: attrs };
  };

const alongAxis =
  (fn: (x: Tensor, attrs: { axis: number }) => Tensor): Generator =>
  (r) => {
    const shape = r.shape();
    const axis = r.axis(shape.length);
    return { operands: [r.floats(shape)], run: (x) => fn(x, { axis }), label: { axis } };
  };

const loss =
  (
    fn: (x: Tensor, y: Tensor, attrs: any) => Tensor,
    attrs: (r: Draw) => object = () => ({}),
    low = -2,
    high = 2,
  ): Generator =>
  (r) => {
    const shape = r.shape();
    const chosen = { reduction: r.pick(['mean', 'sum', 'none']), ...attrs(r) };
    const operands = [r.floats(shape), r.floats(shape, low, high)];
    return { operands, run: (x, y) => fn(x, y, chosen), label: chosen };
  };

const pool =
  (fn: (x: Tensor, attrs: { kernel: number; stride?: number; padding?: number }) => Tensor): Generator =>
  (r) => {
    const kernel = r.whole(1, 3);
    const attrs = { kernel, stride: r.whole(1, 3), padding: r.whole(0, kernel >> 1) };
    const shape = [r.whole(1, 2), r.size(3), r.size(3), r.whole(1, 5)];
    return { operands: [r.distinct(shape)], run: (x) => fn(x, attrs), label: attrs };
  };

const resize =
  (fn: (x: Tensor, attrs: any) => Tensor, corners = false): Generator =>
  (r) => {
    const shape = [r.whole(1, 2), r.whole(1, 6), r.whole(1, 6), r.whole(1, 5)];
    const attrs = {
      ...(r.coin() ? { size: [r.whole(1, 9), r.whole(1, 9)] } : { factor: r.pick([1, 1.5, 2, 3]) }),
      ...(corners ? { alignCorners: r.coin() } : {}),
    };
    return { operands: [r.floats(shape)], run: (x) => fn(x, attrs), label: attrs };
  };

const attending =
  (fn: typeof f.attention): Generator =>
  (r) => {
    const [B, heads, Tq, Tk, D, E] = [r.whole(1, 2), r.whole(1, 3), r.size(), r.size(), r.size(), r.size()];
    const causal = r.coin() && Tq <= Tk;
    const four = fn === f.scaledDotProductAttention || r.coin();
    const shape = (T: number, width: number) => (four ? [B, heads, T, width] : [B, T, heads * width]);
    const attrs = { causal, ...(four ? {} : { heads }), ...(r.coin() ? { scale: 0.3 } : {}) };
    const operands = [r.floats(shape(Tq, D)), r.floats(shape(Tk, D)), r.floats(shape(Tk, E))];
    if (r.coin()) operands.push(r.floats(r.narrower([B, heads, Tq, Tk])));
    return { operands, run: (q, k, v, bias) => fn(q, k, v, { ...attrs, bias }), label: attrs, tolerance: 2e-4 };
  };

/** A call of each function; which functions there are is checked against the exports. */
export const generators: Record<string, Generator> = {
  neg: elementwise(f.neg),
  abs: elementwise(f.abs),
  square: elementwise(f.square),
  sqrt: elementwise(f.sqrt, 0.2, 4),
  rsqrt: elementwise(f.rsqrt, 0.2, 4),
  reciprocal: elementwise(f.reciprocal, 0.3, 4),
  exp: elementwise(f.exp),
  log: elementwise(f.log, 0.2, 4),
  sin: elementwise(f.sin, -9, 9),
  cos: elementwise(f.cos, -9, 9),
  erf: elementwise(f.erf),
  sigmoid: elementwise(f.sigmoid),
  tanh: elementwise(f.tanh),
  relu: elementwise(f.relu),
  leakyRelu: elementwise((x) => f.leakyRelu(x, { slope: 0.2 })),
  silu: elementwise(f.silu),
  quickGelu: elementwise(f.quickGelu),
  gelu: (r, n) => {
    const approximate = n % 2 ? 'tanh' : 'none';
    return { ...elementwise((x) => f.gelu(x, { approximate }))(r, n), label: approximate };
  },
  softplus: elementwise(f.softplus),
  mish: elementwise(f.mish),
  clamp: elementwise((x) => f.clamp(x, { min: -1.3, max: 2 })),

  add: (r, n) => {
    const s = 4 * r.unit() - 2;
    const numbers = [elementwise((x) => f.add(x, s)), elementwise((x) => f.add(s, x))];
    return [broadcasting(f.add), ...numbers][n % 3](r, n);
  },
  sub: (r, n) => {
    const s = 4 * r.unit() - 2;
    const numbers = [elementwise((x) => f.sub(x, s)), elementwise((x) => f.sub(s, x))];
    return [broadcasting(f.sub), ...numbers][n % 3](r, n);
  },
  mul: (r, n) => {
    const s = 4 * r.unit() - 2;
    const numbers = [elementwise((x) => f.mul(x, s)), elementwise((x) => f.mul(s, x))];
    return [broadcasting(f.mul), ...numbers][n % 3](r, n);
  },
  div: (r, n) => {
    const s = r.unit() + 0.5;
    const numbers = [elementwise((x) => f.div(x, s)), elementwise((x) => f.div(s, x), 0.4, 3)];
    return [broadcasting(f.div, 0.4, 3), ...numbers][n % 3](r, n);
  },
  pow: (r, n) => {
    const [whole, any] = [r.whole(2, 4), 3 * r.unit() - 1];
    const numbers = [elementwise((x) => f.pow(x, any), 0.3, 3), elementwise((x) => f.pow(x, whole), -2, 2)];
    return [broadcasting(f.pow, 0.3, 2), ...numbers][n % 3](r, n);
  },
  maximum: extreme(f.maximum),
  minimum: extreme(f.minimum),
  addScaled: broadcasting((x, y) => f.addScaled(x, y, { s: -0.7 })),
  where: (r) => {
    const shape = r.shape();
    const operands = [r.integers(r.narrower(shape), 2), r.floats(shape), r.floats(r.narrower(shape))];
    return { operands, run: f.where };
  },

  sum: reducing(f.sum),
  mean: reducing(f.mean),
  max: reducing(f.max, { distinct: true }),
  min: reducing(f.min, { distinct: true }),
  variance: reducing((x, attrs) => f.variance(x, attrs), { least: 2 }),
  std: reducing((x, attrs) => f.std(x, { ...attrs, unbiased: false }), { least: 3 }),
  norm: (r, n) => {
    const ord = r.pick([1, 2, 3, Infinity]);
    return { ...reducing((x, attrs) => f.norm(x, { ...attrs, ord }), { distinct: true })(r, n), label: { ord } };
  },
  l2Normalize: alongAxis(f.l2Normalize),
  softmax: alongAxis(f.softmax),
  logSoftmax: alongAxis(f.logSoftmax),
  logsumexp: (r, n) => {
    const keepdim = r.coin();
    return alongAxis((x, attrs) => f.logsumexp(x, { ...attrs, keepdim }))(r, n);
  },

  reshape: (r) => {
    const shape = r.shape(2, 4);
    const to = r.pick([[-1], [shape[0], -1], [-1, shape.at(-1)!], [1, ...shape]]);
    return { operands: [r.floats(shape)], run: (x) => f.reshape(x, to), label: to };
  },
  permute: (r) => {
    const shape = r.shape(2, 4);
    const axes = r.order(shape.length);
    return { operands: [r.floats(shape)], run: (x) => f.permute(x, axes), label: axes };
  },
  transpose: (r) => {
    const shape = r.shape(2, 4);
    const [a, b] = [r.axis(shape.length), r.axis(shape.length)];
    return { operands: [r.floats(shape)], run: (x) => f.transpose(x, a, b), label: [a, b] };
  },
  expand: (r) => {
    const shape = r.shape();
    return { operands: [r.floats(r.narrower(shape))], run: (x) => f.expand(x, shape), label: shape };
  },
  concat: (r) => {
    const shape = r.shape(1, 3);
    const axis = r.axis(shape.length);
    const operands = Array.from({ length: r.whole(1, 3) }, () =>
      r.floats(shape.map((d, i) => (i === (axis + shape.length) % shape.length ? r.size() : d))),
    );
    return { operands, run: (...parts) => f.concat(parts, { axis }), label: { axis } };
  },
  stack: (r) => {
    const shape = r.shape(1, 3);
    const axis = r.whole(-shape.length - 1, shape.length);
    const operands = Array.from({ length: r.whole(1, 3) }, () => r.floats(shape));
    return { operands, run: (...parts) => f.stack(parts, { axis }), label: { axis } };
  },
  slice: (r) => {
    const shape = r.shape();
    const ranges = shape.map((d) => {
      const start = r.whole(0, d - 1);
      return r.coin() ? undefined : ([start, r.whole(start + 1, d), r.whole(1, 3)] as const);
    });
    return { operands: [r.floats(shape)], run: (x) => f.slice(x, ranges), label: ranges };
  },
  narrow: (r) => {
    const shape = r.shape();
    const axis = r.axis(shape.length);
    const size = shape.at(axis)!;
    const start = r.whole(0, size - 1);
    const attrs = { axis, start, length: r.whole(1, size - start) };
    return { operands: [r.floats(shape)], run: (x) => f.narrow(x, attrs), label: attrs };
  },
  split: (r) => {
    const shape = r.shape();
    const axis = r.axis(shape.length);
    const first = r.whole(0, shape.at(axis)!);
    const sizes = [first, shape.at(axis)! - first].filter((n) => n > 0);
    return { operands: [r.floats(shape)], run: (x) => f.split(x, sizes, { axis }), label: { axis, sizes } };
  },
  chunk: (r) => {
    const shape = r.shape();
    const [axis, n] = [r.axis(shape.length), r.whole(1, 4)];
    return { operands: [r.floats(shape)], run: (x) => f.chunk(x, n, { axis }), label: { axis, n } };
  },
  flip: (r) => {
    const shape = r.shape();
    const axes = r.axes(shape.length) ?? [];
    return { operands: [r.floats(shape)], run: (x) => f.flip(x, axes), label: axes };
  },
  repeatInterleave: (r) => {
    const shape = r.shape(1, 3);
    const [axis, n] = [r.axis(shape.length), r.whole(1, 4)];
    return { operands: [r.floats(shape)], run: (x) => f.repeatInterleave(x, n, { axis }), label: { axis, n } };
  },
  pad: (r) => {
    const shape = r.shape(1, 3);
    const mode = r.pick(['constant', 'reflect'] as const);
    const most = (d: number) => (mode === 'reflect' ? Math.min(3, d - 1) : 3);
    const pads = shape.map((d) => [r.whole(0, most(d)), r.whole(0, most(d))] as const);
    return { operands: [r.floats(shape)], run: (x) => f.pad(x, pads, { mode, value: 0.7 }), label: { mode, pads } };
  },
  cumsum: alongAxis(f.cumsum),
  tril: (r) => {
    const diagonal = r.whole(-3, 3);
    return { operands: [r.floats(r.shape(2, 4))], run: (x) => f.tril(x, { diagonal }), label: { diagonal } };
  },
  embedding: (r) => {
    const rows = r.size();
    return { operands: [r.floats([rows, r.size()]), r.integers(r.shape(1, 2), rows)], run: f.embedding };
  },
  gather: (r) => {
    const shape = r.shape(1, 3);
    const axis = r.axis(shape.length);
    const index = shape.map((d, i) => (i === (axis + shape.length) % shape.length ? r.size() : d));
    const operands = [r.floats(shape), r.integers(index, shape.at(axis)!)];
    return { operands, run: (x, at) => f.gather(x, at, { axis }), label: { axis } };
  },
  indexSelect: (r) => {
    const shape = r.shape(1, 3);
    const axis = r.axis(shape.length);
    const operands = [r.floats(shape), r.integers([r.size()], shape.at(axis)!)];
    return { operands, run: (x, at) => f.indexSelect(x, at, { axis }), label: { axis } };
  },

  groupNorm: (r) => {
    const groups = r.whole(1, 4);
    const C = groups * r.whole(1, 5);
    const attrs = { groups, eps: 1e-3, silu: r.coin() };
    const affine = r.coin();
    const operands = [r.floats([r.whole(1, 3), r.size(3), ...(r.coin() ? [r.size()] : []), C])];
    if (affine) operands.push(r.floats([C]), r.floats([C]));
    return { operands, run: (x, w, b) => f.groupNorm(x, w, b, attrs), label: attrs, tolerance: 2e-4 };
  },
  layerNorm: (r) => {
    const shape = [...r.shape(1, 2), r.size(3)];
    const axes = r.whole(1, 2);
    const operands = [r.floats(shape)];
    if (r.coin()) operands.push(r.floats(shape.slice(-axes)), r.floats(shape.slice(-axes)));
    const attrs = { eps: 1e-3, axes };
    return { operands, run: (x, w, b) => f.layerNorm(x, w, b, attrs), label: attrs, tolerance: 2e-4 };
  },

  mse: loss(f.mse),
  l1: loss(f.l1),
  huber: loss(f.huber, (r) => ({ delta: 0.3 + r.unit() })),
  smoothL1: loss(f.smoothL1, (r) => ({ beta: 0.3 + r.unit() })),
  pseudoHuber: loss(f.pseudoHuber, (r) => ({ c: 0.05 + r.unit() })),
  bceWithLogits: loss(f.bceWithLogits, () => ({}), 0, 1),
  crossEntropy: (r) => {
    const classes = r.size(2);
    const rows = r.shape(1, 2);
    const attrs = {
      reduction: r.pick(['mean', 'sum', 'none'] as const),
      labelSmoothing: r.pick([0, 0.1]),
      ignoreIndex: 1,
    };
    const labels = r.integers(rows, classes);
    (labels.data as Float32Array)[0] = 0; // one label counts at least
    return {
      operands: [r.floats([...rows, classes]), labels],
      run: (x, y) => f.crossEntropy(x, y, attrs),
      label: attrs,
    };
  },

  matmul: (r) => {
    const [M, N, K] = [r.size(), r.size(), r.size()];
    const batch = r.shape(1, 2).map((d) => Math.min(d, 3));
    const attrs = { transposeA: r.coin(), transposeB: r.coin() };
    const side = (own: number[], turn: boolean) => [
      ...(r.coin() ? r.narrower(batch) : []),
      ...(turn ? own.reverse() : own),
    ];
    const operands = [r.floats(side([M, K], attrs.transposeA)), r.floats(side([K, N], attrs.transposeB))];
    return { operands, run: (a, b) => f.matmul(a, b, attrs), label: attrs };
  },
  linear: (r) => {
    const [K, N] = [r.size(), r.size()];
    const rows = r.shape(1, 2);
    const operands = [r.floats([...rows, K]), r.floats([N, K]), r.floats([N])];
    if (r.coin()) operands.push(r.floats([...rows, N]));
    return { operands, run: (x, w, b, residual) => f.linear(x, w, b, { residual }) };
  },
  geglu: (r) => {
    const [K, N] = [r.size(), r.size()];
    const operands = [r.floats([...r.shape(1, 2), K]), r.floats([2 * N, K])];
    if (r.coin()) operands.push(r.floats([2 * N]));
    return { operands, run: f.geglu };
  },
  attention: attending(f.attention),
  scaledDotProductAttention: attending(f.scaledDotProductAttention),

  conv2d: (r) => {
    const [groups, I, O] = [r.whole(1, 2), r.whole(1, 5), r.whole(1, 5)];
    const [kh, kw] = [r.whole(1, 3), r.whole(1, 3)];
    const sides = [r.whole(0, 2), r.whole(0, 2), r.whole(0, 2), r.whole(0, 2)] as const;
    const attrs = { stride: r.whole(1, 3), dilation: r.whole(1, 2), groups, padding: r.coin() ? sides : r.whole(0, 2) };
    const x = [r.whole(1, 2), r.size(5), r.size(5), I * groups];
    const operands = [r.floats(x), r.floats([O * groups, kh, kw, I])];
    if (r.coin()) operands.push(r.floats([O * groups]));
    return { operands, run: (x, w, b) => f.conv2d(x, w, b, attrs), label: attrs, tolerance: 1e-4 };
  },
  convTranspose2d: (r) => {
    const [groups, I, O, stride] = [r.whole(1, 2), r.whole(1, 4), r.whole(1, 4), r.whole(1, 3)];
    const [kh, kw] = [r.whole(1, 3), r.whole(1, 3)];
    const attrs = { stride, groups, dilation: r.whole(1, 2), outputPadding: r.whole(0, stride - 1) };
    const operands = [
      r.floats([r.whole(1, 2), r.whole(1, 4), r.whole(1, 4), I * groups]),
      r.floats([I * groups, kh, kw, O]),
    ];
    if (r.coin()) operands.push(r.floats([O * groups]));
    return { operands, run: (x, w, b) => f.convTranspose2d(x, w, b, attrs), label: attrs, tolerance: 1e-4 };
  },
  avgPool2d: pool(f.avgPool2d),
  maxPool2d: pool(f.maxPool2d),
  upsampleNearest: resize(f.upsampleNearest),
  upsampleBilinear: resize(f.upsampleBilinear, true),
};

/** What has no gradient, and why. */
export const withoutGradient: Record<string, string> = {
  argmax: 'gives places, which do not move a little',
};
