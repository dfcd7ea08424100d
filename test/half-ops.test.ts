import { suite } from 'uvu';
import { attention } from '../src/kernels/attention.ts';
import { cast } from '../src/kernels/cast.ts';
import { conv2d } from '../src/kernels/conv2d.ts';
import { convTranspose2d } from '../src/kernels/conv2d-transpose.ts';
import { crossEntropy } from '../src/kernels/cross-entropy.ts';
import { embedding } from '../src/kernels/embedding.ts';
import { gather, indexSelect } from '../src/kernels/gather.ts';
import { geglu } from '../src/kernels/geglu.ts';
import { groupNorm } from '../src/kernels/group-norm.ts';
import { layerNorm } from '../src/kernels/layer-norm.ts';
import { linear } from '../src/kernels/linear.ts';
import * as losses from '../src/kernels/loss.ts';
import { matmul } from '../src/kernels/matmul.ts';
import type { DType, Op, Shape } from '../src/kernels/index.ts';
import { avgPool2d, maxPool2d } from '../src/kernels/pool2d.ts';
import { argmax, max, mean, min, sum } from '../src/kernels/reduce.ts';
import { cumsum, tril } from '../src/kernels/scan.ts';
import { concat, expand, flip, pad, permute, reshape, slice } from '../src/kernels/shape.ts';
import { logSoftmax, logsumexp, softmax } from '../src/kernels/softmax.ts';
import { upsampleBilinear, upsampleNearest } from '../src/kernels/upsample.ts';
import { checkOp } from './check-op.ts';
import type { CheckOptions } from './check-op.ts';

const test = suite('ops on halves');

/** Forward and backward with f16 operands: native and packed, against the reference and each other. */
const check = (
  op: Op<any, any>,
  shapes: readonly (Shape | undefined)[],
  attrs: object = {},
  options: CheckOptions = {},
) => checkOp(op, shapes, attrs, { dtype: 'f16', samples: 40, ...options });
/** Each operand in turn is f32 among halves; `makes` says what comes out. */
async function mixed(op: Op<any, any>, shapes: readonly Shape[], attrs: object, makes: (f32: number) => DType) {
  for (let i = 0; i < shapes.length; i++) await check(op, shapes, attrs, { dtypes: { [i]: 'f32' }, makes: makes(i) });
}

test('matmul, in each variant', () =>
  check(
    matmul,
    [
      [35, 13],
      [13, 71],
    ],
    {},
    { variants: ['naive', 'register-tile', 'subgroup-tile', 'workgroup-tile'] },
  ));
test('matmul over batches that broadcast, and over a long axis', async () => {
  await check(
    matmul,
    [
      [2, 1, 6, 7],
      [3, 7, 5],
    ],
    {},
  );
  await check(
    matmul,
    [
      [4, 1500],
      [1500, 6],
    ],
    {},
  );
});
test('linear, with a residual, and with a weight gradient in parts', async () => {
  await check(linear, [[3, 5, 10], [131, 10], [131], [3, 5, 131]]);
  await check(linear, [[1300, 3], [5, 3], [5]]);
});
test('geglu', () => check(geglu, [[3, 7, 10], [22, 10], [22]]));
test('attention, in each variant, also causal and with a bias', async () => {
  const qkv = [
    [2, 9, 12],
    [2, 7, 12],
    [2, 7, 12],
  ];
  await check(attention, qkv, { heads: 3 }, { variants: ['naive', 'fused'] });
  await check(
    attention,
    [
      [1, 2, 7, 5],
      [1, 2, 7, 5],
      [1, 2, 7, 5],
      [2, 7, 7],
    ],
    { causal: true },
  );
});

test('conv2d, in each variant', () =>
  check(
    conv2d,
    [[2, 5, 7, 3], [11, 3, 3, 3], [11], [2, 5, 7, 11], [2, 11]],
    { padding: 1 },
    { variants: ['naive', 'subgroup-tile', 'workgroup-tile', 'winograd'] },
  ));
test('conv2d with a stride, and in groups', async () => {
  await check(conv2d, [[2, 6, 5, 4], [6, 3, 3, 4], [6]], { stride: 2, padding: 1 });
  await check(conv2d, [[1, 4, 5, 6], [9, 3, 3, 2], [9]], { groups: 3, padding: 1 });
  await check(conv2d, [[2, 20, 21, 3], [5, 3, 3, 3], [5]], { padding: 1 });
});
test('convTranspose2d', () => check(convTranspose2d, [[1, 3, 4, 5], [5, 3, 3, 7], [7]], { stride: 2, padding: 1 }));
test('pooling and resizing', async () => {
  await check(avgPool2d, [[1, 5, 7, 3]], { kernel: 3, stride: 2, padding: 1 });
  await check(maxPool2d, [[1, 5, 7, 3]], { kernel: 3, stride: 2, padding: 1 });
  await check(upsampleNearest, [[1, 3, 5, 3]], {});
  await check(upsampleBilinear, [[1, 3, 5, 3]], { size: [7, 8] });
});

test('groupNorm, in each variant, vectorised and not', async () => {
  const variants = ['whole', 'staged'];
  await check(groupNorm, [[2, 5, 6, 32], [32], [32]], { groups: 8, eps: 1e-5, silu: true }, { variants });
  await check(groupNorm, [[1, 61, 10], [10], [10]], { groups: 2, eps: 1e-5 }, { variants });
});
test('layerNorm, in each variant, vectorised and not', async () => {
  const variants = ['thread', 'team'];
  await check(layerNorm, [[2, 5, 40], [40], [40]], { eps: 1e-5 }, { variants });
  await check(layerNorm, [[37, 9], [9], [9]], { eps: 1e-5 });
});
test('softmax and its kin, along the last axis and another', async () => {
  for (const [shape, axis] of [
    [[3, 37], -1],
    [[3, 40], -1],
    [[3, 9, 5], 1],
  ] as const) {
    for (const op of [softmax, logSoftmax, logsumexp]) await check(op, [shape], { axis });
  }
});
test('reductions', async () => {
  for (const op of [sum, mean, max, min]) {
    await check(op, [[3, 4, 5]], { axes: [1] });
    await check(op, [[3, 7, 3]], { axes: [0, 2], keepdim: true });
  }
  await check(sum, [[3, 1001]], {});
  await check(argmax, [[3, 37]], { axis: -1 }, { makes: 'i32' });
});

test('losses are f32, and their gradients halves', async () => {
  const attrs = { delta: 0.8, beta: 0.5, c: 0.03 };
  for (const op of Object.values(losses).filter((value) => typeof value === 'object')) {
    for (const reduction of ['none', 'mean', 'sum'])
      await check(
        op as Op<any, any>,
        [
          [7, 9],
          [7, 9],
        ],
        { ...attrs, reduction },
        { makes: 'f32', ranges: { 1: [0, 1] } },
      );
  }
  await check(
    crossEntropy,
    [[6, 9], [6]],
    { reduction: 'mean', labelSmoothing: 0.1 },
    { ints: { 1: [0, 9] }, makes: 'f32' },
  );
});

test('shapes: views, permutations, slices, odd places of words', async () => {
  await check(reshape, [[3, 5]], { shape: [5, 3] });
  for (const axes of [
    [2, 0, 1],
    [1, 0, 2],
    [0, 2, 1],
  ])
    await check(permute, [[3, 5, 7]], { axes });
  await check(permute, [[3, 5, 16]], { axes: [1, 0, 2] });
  await check(slice, [[5, 7]], {
    ranges: [
      [1, 4],
      [1, 6],
    ],
  });
  await check(slice, [[5, 7]], {
    ranges: [
      [0, null, 2],
      [0, 7, 3],
    ],
  });
  for (const width of [4, 8, 10]) await check(slice, [[5, 3, width]], { ranges: [[1], [2]] });
  await check(flip, [[3, 7]], { axes: [1] });
  await check(expand, [[5, 1]], { shape: [3, 5, 7] });
  await check(pad, [[3, 5]], {
    pads: [
      [1, 0],
      [0, 2],
    ],
    value: 0,
  });
  await check(pad, [[3, 5]], {
    pads: [
      [0, 1],
      [2, 1],
    ],
    value: 1.5,
  });
  await check(cumsum, [[3, 9]], { axis: -1 });
  await check(tril, [[2, 5, 7]], { diagonal: 1 });
});
test('concat, where neighbours share a word', async () => {
  await check(
    concat,
    [
      [3, 1],
      [3, 3],
      [3, 5],
    ],
    { axis: 1 },
  );
  await check(concat, [[3], [5], [1]], { axis: 0 });
  await check(
    concat,
    [
      [2, 8],
      [2, 16],
    ],
    { axis: 1 },
  );
});
test('lookups', async () => {
  await check(
    embedding,
    [
      [7, 12],
      [2, 9],
    ],
    {},
    { ints: { 1: [0, 7] } },
  );
  await check(embedding, [[30, 5], [40]], {}, { ints: { 1: [3, 9] } });
  await check(
    gather,
    [
      [3, 6],
      [3, 4],
    ],
    { axis: 1 },
    { ints: { 1: [0, 6] } },
  );
  await check(indexSelect, [[5, 3, 7], [4]], { axis: 0 }, { ints: { 1: [0, 5] } });
});

test('cast rounds one way and is exact the other', async () => {
  await check(cast, [[3, 37]], { dtype: 'f32' }, { makes: 'f32' });
  await check(cast, [[3, 37]], { dtype: 'f16' }, { dtypes: { 0: 'f32' }, constant: [0] });
  await check(cast, [[3, 37]], { dtype: 'i32' }, { makes: 'i32', constant: [0], ranges: { 0: [-90, 90] } });
});

test('f32 among halves: layers give what x is, joined equals give f32', async () => {
  await mixed(linear, [[3, 5, 10], [13, 10], [13], [3, 5, 13]], {}, (f32) => (f32 === 0 ? 'f32' : 'f16'));
  await mixed(conv2d, [[1, 4, 5, 3], [5, 3, 3, 3], [5], [1, 4, 5, 5], [1, 5]], { padding: 1 }, (f32) =>
    f32 === 0 ? 'f32' : 'f16',
  );
  await mixed(groupNorm, [[1, 11, 8], [8], [8]], { groups: 2, eps: 1e-5 }, (f32) => (f32 === 0 ? 'f32' : 'f16'));
  await mixed(layerNorm, [[5, 9], [9], [9]], { eps: 1e-5 }, (f32) => (f32 === 0 ? 'f32' : 'f16'));
  await mixed(
    attention,
    [
      [1, 9, 12],
      [1, 7, 12],
      [1, 7, 12],
    ],
    { heads: 3 },
    (f32) => (f32 === 0 ? 'f32' : 'f16'),
  );
  await mixed(
    matmul,
    [
      [5, 7],
      [7, 3],
    ],
    {},
    () => 'f32',
  );
  await mixed(
    concat,
    [
      [3, 5],
      [3, 3],
    ],
    { axis: 1 },
    () => 'f32',
  );
  await mixed(
    losses.mse,
    [
      [7, 9],
      [7, 9],
    ],
    { reduction: 'mean' },
    () => 'f32',
  );
});

test.run();
