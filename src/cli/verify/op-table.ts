/** Golden op → how our tensor library says it. `ops` throws Skip for what is not there. */
import { timestepWaves } from '../../nn/layers/time.ts';
import type { Tensor } from '../../tensor/index.ts';
import type { HostTensor } from '../../tensor/io/safetensors.ts';
import { channels, heads, type Layout } from './layout.ts';

type Ops = Record<string, (...args: any[]) => any>;

export interface OpRow {
  /** Operands and results (`y`) that we keep in another order than PyTorch. */
  layouts?: Record<string, Layout>;
  /** Operands that hold integers. */
  integers?: string[];
  run?(x: Record<string, Tensor>, attrs: any, ops: Ops): Tensor;
  /** For what is computed on the host. */
  host?(x: Record<string, HostTensor>, attrs: any): ArrayLike<number>;
}

const unary = (name: string): OpRow => ({ run: ({ x }, _, ops) => ops[name](x) });
const binary = (name: string): OpRow => ({ run: ({ a, b }, _, ops) => ops[name](a, b) });
const loss = (name: string): OpRow => ({ run: ({ x, target }, attrs, ops) => ops[name](x, target, attrs) });
const reduction = (name: string): OpRow => ({
  run: ({ x }, { dim, keepdim, unbiased }, ops) => ops[name](x, { axes: dim ?? undefined, keepdim, unbiased }),
});
const image = (run: OpRow['run']): OpRow => ({ layouts: { x: channels, w: channels, y: channels }, run });

export const opTable: Record<string, OpRow> = {
  matmul: {
    run: ({ a, b }, { transpose_a, transpose_b }, ops) =>
      ops.matmul(a, b, { transposeA: transpose_a, transposeB: transpose_b }),
  },
  linear: { run: ({ x, w, b }, _, ops) => ops.linear(x, w, b) },
  geglu: { run: ({ x, w, b }, _, ops) => ops.geglu(x, w, b) },
  conv2d: image(({ x, w, b }, { stride = 1, padding = 0, dilation = 1, groups = 1, pre_pad: pre }, ops) => {
    const sides = pre?.map((zeros: number) => zeros + padding);
    return ops.conv2d(x, w, b, { stride, padding: sides ?? padding, dilation, groups });
  }),
  conv_transpose2d: image(({ x, w, b }, { output_padding: outputPadding = 0, ...attrs }, ops) =>
    ops.convTranspose2d(x, w, b, { ...attrs, outputPadding }),
  ),

  group_norm: {
    layouts: { x: channels, y: channels },
    run: ({ x, w, b }, { groups, eps }, ops) => ops.groupNorm(x, w, b, { groups, eps }),
  },
  layer_norm: {
    run: ({ x, w, b }, { normalized_shape: axes, eps }, ops) => ops.layerNorm(x, w, b, { eps, axes: axes.length }),
  },
  l2_normalize: { run: ({ x }, { dim }, ops) => ops.l2Normalize(x, { axis: dim }) },

  ...Object.fromEntries(
    [
      'silu',
      'relu',
      'sigmoid',
      'tanh',
      'softplus',
      'mish',
      'erf',
      'exp',
      'sin',
      'cos',
      'abs',
      'neg',
      'square',
      'log',
      'sqrt',
      'rsqrt',
      'reciprocal',
    ].map((name) => [name, unary(name)]),
  ),
  quick_gelu: unary('quickGelu'),
  gelu: { run: ({ x }, { approximate }, ops) => ops.gelu(x, { approximate }) },
  leaky_relu: { run: ({ x }, { slope }, ops) => ops.leakyRelu(x, { slope }) },
  pow_scalar: { run: ({ x }, { exponent }, ops) => ops.pow(x, exponent) },
  clamp: { run: ({ x }, { min, max }, ops) => ops.clamp(x, { min, max }) },

  ...Object.fromEntries(['add', 'sub', 'mul', 'div', 'pow', 'maximum', 'minimum'].map((name) => [name, binary(name)])),
  where: { integers: ['cond'], run: ({ cond, a, b }, _, ops) => ops.where(cond, a, b) },

  ...Object.fromEntries(['sum', 'mean', 'std', 'max', 'min'].map((name) => [name, reduction(name)])),
  var: reduction('variance'),
  argmax: { run: ({ x }, { dim }, ops) => ops.argmax(x, { axis: dim }) },
  norm: { run: ({ x }, { ord, dim, keepdim }, ops) => ops.norm(x, { ord, axes: dim ?? undefined, keepdim }) },
  cumsum: { run: ({ x }, { dim }, ops) => ops.cumsum(x, { axis: dim }) },
  softmax: { run: ({ x }, { dim }, ops) => ops.softmax(x, { axis: dim }) },
  log_softmax: { run: ({ x }, { dim }, ops) => ops.logSoftmax(x, { axis: dim }) },
  logsumexp: { run: ({ x }, { dim, keepdim }, ops) => ops.logsumexp(x, { axis: dim, keepdim }) },

  sdpa: {
    layouts: { q: heads, k: heads, v: heads, y: heads },
    run: ({ q, k, v, bias }, { causal, scale, heads }, ops) => ops.attention(q, k, v, { heads, causal, scale, bias }),
  },
  attention: {
    run: ({ x, ctx = x, wq, wk, wv, wo, bo }, { heads }, ops) => {
      const [q, k, v] = [ops.linear(x, wq), ops.linear(ctx, wk), ops.linear(ctx, wv)];
      return ops.linear(ops.attention(q, k, v, { heads }), wo, bo);
    },
  },
  resblock: {
    layouts: { x: channels, y: channels, c1w: channels, c2w: channels, sw: channels },
    run: (p, { groups, eps }, ops) => {
      const norm = (t: Tensor, w: Tensor, b: Tensor) => ops.groupNorm(t, w, b, { groups, eps, silu: true });
      const time = ops.linear(ops.silu(p.temb), p.tw, p.tb);
      const h = ops.conv2d(norm(p.x, p.n1w, p.n1b), p.c1w, p.c1b, { padding: 1, temb: time });
      const residual = ops.conv2d(p.x, p.sw, p.sb);
      return ops.conv2d(norm(h, p.n2w, p.n2b), p.c2w, p.c2b, { padding: 1, residual });
    },
  },

  upsample_nearest: image(({ x }, { scale, size }, ops) => ops.upsampleNearest(x, { factor: scale, size })),
  interpolate_bilinear: image(({ x }, { size, align_corners: alignCorners }, ops) =>
    ops.upsampleBilinear(x, { size, alignCorners }),
  ),
  avg_pool2d: image(({ x }, { kernel, stride, padding = 0 }, ops) => ops.avgPool2d(x, { kernel, stride, padding })),
  max_pool2d: image(({ x }, { kernel, stride, padding = 0 }, ops) => ops.maxPool2d(x, { kernel, stride, padding })),
  pad: {
    run: ({ x }, { pad, mode, value }, ops) =>
      // torch's list begins with the last axis
      ops.pad(
        x,
        x.shape.map((_, i) => [0, 1].map((side) => pad[2 * (x.shape.length - 1 - i) + side] ?? 0)),
        { mode, value },
      ),
  },

  embedding: { integers: ['ids'], run: ({ ids, w }, _, ops) => ops.embedding(w, ids) },
  timestep_embedding: {
    host: ({ t }, { dim, flip_sin_to_cos: flipSinToCos, downscale_freq_shift: freqShift }) =>
      timestepWaves([...t.data], dim, { flipSinToCos, freqShift }),
  },

  mse: loss('mse'),
  l1: loss('l1'),
  huber: loss('huber'),
  smooth_l1: loss('smoothL1'),
  pseudo_huber: loss('pseudoHuber'),
  bce_with_logits: loss('bceWithLogits'),
  cross_entropy: {
    layouts: { x: channels },
    integers: ['labels'],
    run: ({ x, labels }, { reduction, label_smoothing: labelSmoothing, ignore_index: ignoreIndex }, ops) =>
      ops.crossEntropy(x, labels, { reduction, labelSmoothing, ignoreIndex }),
  },

  cat: {
    run: (x, { order, dim }, ops) =>
      ops.concat(
        order.map((name: string) => x[name]),
        { axis: dim },
      ),
  },
  stack: {
    run: (x, { order, dim }, ops) =>
      ops.stack(
        order.map((name: string) => x[name]),
        { axis: dim },
      ),
  },
  chunk: { run: ({ x }, { n, dim, take }, ops) => ops.chunk(x, n, { axis: dim })[take] },
  slice: { run: ({ x }, { slices }, ops) => ops.slice(x, slices) },
  permute_reshape: { run: ({ x }, { perm, shape }, ops) => ops.reshape(ops.permute(x, perm), shape) },
  expand_mul: { run: ({ x, y }, { shape }, ops) => ops.mul(ops.expand(x, shape), y) },
  flip: { run: ({ x }, { dims }, ops) => ops.flip(x, dims) },
  gather: { integers: ['idx'], run: ({ x, idx }, { dim }, ops) => ops.gather(x, idx, { axis: dim }) },
  index_select: { integers: ['idx'], run: ({ x, idx }, { dim }, ops) => ops.indexSelect(x, idx, { axis: dim }) },
  repeat_interleave: { run: ({ x }, { repeats, dim }, ops) => ops.repeatInterleave(x, repeats, { axis: dim }) },
  tril: { run: ({ x }, { diagonal }, ops) => ops.tril(x, { diagonal }) },
};
