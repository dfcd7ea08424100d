/** Halves end at 65504. Numbers near 6·10⁴ must come out of ops and networks as they do in f32, rounded. */
import { suite } from 'uvu';
import { attention } from '../src/kernels/attention.ts';
import { conv2d } from '../src/kernels/conv2d.ts';
import { convTranspose2d } from '../src/kernels/conv2d-transpose.ts';
import { geglu } from '../src/kernels/geglu.ts';
import { groupNorm } from '../src/kernels/group-norm.ts';
import { layerNorm } from '../src/kernels/layer-norm.ts';
import { linear } from '../src/kernels/linear.ts';
import { mse } from '../src/kernels/loss.ts';
import { matmul } from '../src/kernels/matmul.ts';
import type { Op, Shape } from '../src/kernels/index.ts';
import { avgPool2d } from '../src/kernels/pool2d.ts';
import { max, mean } from '../src/kernels/reduce.ts';
import { logSoftmax, logsumexp, softmax } from '../src/kernels/softmax.ts';
import * as unary from '../src/kernels/unary.ts';
import { upsampleBilinear } from '../src/kernels/upsample.ts';
import { checkOp } from './check-op.ts';
import type { CheckOptions } from './check-op.ts';
import { randoms } from './randoms.ts';

const test = suite('halves near their end');
const LARGE = 6e4;
const all = [-LARGE, LARGE] as const;

/** Forward and backward on halves, native and packed, against the reference in f64. */
const check = (op: Op<any, any>, shapes: readonly (Shape | undefined)[], attrs: object, options: CheckOptions = {}) =>
  checkOp(op, shapes, attrs, { dtype: 'f16', samples: 20, ...options });

/** Normalised numbers are below √n: weights that make 6·10⁴ of them. */
const normed = { 1: [-3e4, 3e4], 2: [-5e3, 5e3] } as const;

/** Rows of small numbers with one large one, at the start where kernels take their origin from, or elsewhere. */
function outliers(rows: number, width: number, at: number): Float32Array {
  const numbers = randoms(rows * width, 7, [-1, 1]);
  for (let row = 0; row < rows; row++) numbers[row * width + at] = LARGE;
  return numbers;
}

test('layerNorm: all large, all large and nearly equal, one large among small ones', async () => {
  const shapes = [[3, 5, 320], [320], [320]];
  const variants = ['thread', 'team'];
  await check(layerNorm, shapes, { eps: 1e-5 }, { ranges: { 0: all, ...normed }, variants });
  await check(layerNorm, shapes, { eps: 1e-5 }, { ranges: { 0: [5e4, LARGE], ...normed }, variants });
  for (const at of [0, 201]) {
    const ranges = { 1: [-3e3, 3e3], 2: [-5e3, 5e3] } as const;
    await check(layerNorm, shapes, { eps: 1e-5 }, { data: { 0: outliers(15, 320, at) }, ranges, variants });
  }
});

test('groupNorm: all large, nearly equal, one large among small ones; also over many pixels', async () => {
  const variants = ['whole', 'staged'];
  for (const silu of [false, true]) {
    const attrs = { groups: 8, eps: 1e-5, silu };
    const shapes = [[2, 5, 6, 32], [32], [32]];
    await check(groupNorm, shapes, attrs, { ranges: { 0: all, ...normed }, variants });
    await check(groupNorm, shapes, attrs, { ranges: { 0: [5e4, LARGE], ...normed }, variants });
    const ranges = { 1: [-3e3, 3e3], 2: [-5e3, 5e3] } as const;
    await check(groupNorm, shapes, attrs, { data: { 0: outliers(8, 240, 1) }, ranges, variants });
  }
  const ranges = { 0: [4e4, LARGE], ...normed } as const;
  await check(groupNorm, [[1, 64, 64, 32], [32], [32]], { groups: 2, eps: 1e-5 }, { ranges, variants, samples: 3 });
});

test('softmax and its kin', async () => {
  for (const [shape, axis] of [
    [[3, 37], -1],
    [[3, 9, 5], 1],
  ] as const) {
    await check(softmax, [shape], { axis }, { ranges: { 0: all } });
    await check(logSoftmax, [shape], { axis }, { ranges: { 0: [-3e4, 3e4] } });
    await check(logsumexp, [shape], { axis }, { ranges: { 0: all } });
  }
});

test('attention: scores to 6·10⁴ and to 10¹⁰, values to 6·10⁴, and a mask of the least half', async () => {
  const heads = 2;
  const shapes = [
    [2, 19, 80],
    [2, 33, 80],
    [2, 33, 80],
  ];
  const variants = ['naive', 'fused'];
  // One key takes all: q and k have no gradient to speak of.
  const constant = [0, 1];
  for (const size of [250, LARGE]) {
    const ranges = { 0: [-size, size], 1: [-size, size], 2: all } as const;
    await check(attention, shapes, { heads }, { ranges, constant, variants });
  }
  await check(attention, shapes, { heads }, { ranges: { 2: [-2e4, 2e4] }, variants });
  const mask = Float32Array.from({ length: 19 * 33 }, (_, i) => (i % 3 ? 0 : -65504));
  const masked = [...shapes.map(([B, T, C]) => [B, heads, T, C / heads]), [19, 33]];
  await check(
    attention,
    masked,
    {},
    { data: { 3: mask }, ranges: { 2: [-2e4, 2e4] }, constant: [3], variants: ['naive'] },
  );
});

/** [rows, 2n] whose second half is the first with changes of up to 3000: against weights ±w sums rise and fall again. */
function paired(rows: number, width: number): Float32Array {
  const half = width / 2;
  const first = randoms(rows * half, 3, [3e4, 5.7e4]);
  const change = randoms(rows * half, 4, [-3e3, 3e3]);
  return Float32Array.from({ length: rows * width }, (_, i) => {
    const [row, k] = [Math.floor(i / width), i % width];
    const at = row * half + (k % half);
    return first[at] + (k < half ? 0 : change[at]);
  });
}
/** [outputs, width]: +w, then −w, in each row another w. */
const rising = (outputs: number, width: number, w: number): Float32Array =>
  Float32Array.from({ length: outputs * width }, (_, i) => {
    const own = w * (1 + Math.floor(i / width) / outputs);
    return i % width < width / 2 ? own : -own;
  });

test('sums that go far beyond 65504 on their way', async () => {
  const constant = [1]; // the gradient of the weights is a sum of large numbers, and may be too large indeed
  const x = { 0: paired(35, 64), 1: rising(24, 64, 0.5) };
  await check(linear, [[35, 64], [24, 64], [24], [35, 24]], {}, { data: x, ranges: { 3: [-2e4, 2e4] }, constant });
  const variants = ['naive', 'register-tile', 'subgroup-tile', 'workgroup-tile'];
  const columns = rising(24, 64, 0.5);
  const turned = Float32Array.from({ length: 64 * 24 }, (_, i) => columns[(i % 24) * 64 + Math.floor(i / 24)]);
  await check(
    matmul,
    [
      [35, 64],
      [64, 24],
    ],
    {},
    { data: { 0: x[0], 1: turned }, constant, variants },
  );
  const long = { 0: paired(4, 1500), 1: rising(6, 1500, 0.05) };
  await check(
    linear,
    [
      [4, 1500],
      [6, 1500],
    ],
    {},
    { data: long, constant },
  );

  const weights = rising(11, 9 * 16, 0.1);
  // Each place of the kernel has both signs, so that sums rise and fall within it.
  const signs = Float32Array.from(weights, (v, i) => (i % 16 < 8 ? Math.abs(v) : -Math.abs(v)));
  const pictures = { 0: paired(2 * 6 * 7, 16), 1: signs };
  const shapes = [[2, 6, 7, 16], [11, 3, 3, 16], [11], [2, 6, 7, 11], [2, 11]];
  const convs = ['naive', 'subgroup-tile', 'workgroup-tile', 'winograd'];
  const ranges = { 3: [-2e4, 2e4], 4: [-1e3, 1e3] } as const;
  await check(conv2d, shapes, { padding: 1 }, { data: pictures, ranges, constant, variants: convs });
  await check(conv2d, shapes.slice(0, 3), { padding: 1, stride: 2 }, { data: pictures, constant });
  const up = { 0: pictures[0], 1: Float32Array.from(weights, (_, i) => (i < 8 * 99 ? 0.1 : -0.1)) };
  await check(
    convTranspose2d,
    [
      [2, 6, 7, 16],
      [16, 3, 3, 11],
    ],
    { stride: 2, padding: 1 },
    { data: up, constant },
  );
});

test('geglu: values of 10⁴ behind an open and a closed gate', async () => {
  const data = { 0: paired(21, 64), 1: Float32Array.from([...rising(11, 64, 0.2), ...rising(11, 64, 2e-4)]) };
  await check(geglu, [[3, 7, 64], [22, 64], [22]], {}, { data, constant: [1] });
});

test('means, pools and resizing', async () => {
  await check(mean, [[3, 4100]], { axes: [1] }, { ranges: { 0: [5e4, LARGE] } });
  await check(mean, [[40, 6, 30]], { axes: [0, 2] }, { ranges: { 0: all } });
  await check(max, [[3, 37]], { axes: [1] }, { ranges: { 0: all } });
  await check(avgPool2d, [[1, 6, 7, 3]], { kernel: 3, stride: 2, padding: 1 }, { ranges: { 0: [5e4, LARGE] } });
  await check(upsampleBilinear, [[1, 3, 5, 3]], { size: [7, 8] }, { ranges: { 0: all } });
  await check(
    mse,
    [
      [7, 9],
      [7, 9],
    ],
    { reduction: 'mean' },
    { ranges: { 0: all, 1: all }, makes: 'f32' },
  );
});

for (const name of [
  'sigmoid',
  'tanh',
  'erf',
  'relu',
  'silu',
  'quickGelu',
  'gelu',
  'geluTanh',
  'softplus',
  'mish',
] as const)
  test(`${name} of large numbers`, async () => {
    // Where tanh is nearly 1, its gradient comes from what was rounded to a half.
    for (const ranges of [{ 0: all }, { 0: [-100, 100] as const }])
      await check(unary[name], [[3, 37]], {}, { ranges, gradTolerance: 5e-3 });
  });

test.run();
