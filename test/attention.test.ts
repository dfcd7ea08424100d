import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { attention, pickAttention } from '../src/kernels/attention.ts';
import type { GpuArray } from '../src/kernels/index.ts';
import { checkOp, testGpu } from './check-op.ts';

const variants = ['naive', 'subgroup', 'workgroup'];
const test = suite('attention');

test('agrees with its reference, forwards and backwards', async () => {
  await checkOp(
    attention,
    [
      [2, 9, 12],
      [2, 7, 12],
      [2, 7, 12],
    ],
    { heads: 3 },
    { variants, core: true },
  );
  await checkOp(
    attention,
    [
      [2, 3, 10, 8],
      [2, 3, 10, 8],
      [2, 3, 10, 8],
    ],
    {},
    { variants },
  );
});
test('heads of values may differ in size from those of keys', () =>
  checkOp(
    attention,
    [
      [2, 2, 7, 6],
      [2, 2, 5, 6],
      [2, 2, 5, 12],
    ],
    { scale: 0.3 },
    { variants },
  ));
test('causal: a query sees itself and what came before', async () => {
  await checkOp(
    attention,
    [
      [1, 12, 12],
      [1, 12, 12],
      [1, 12, 12],
    ],
    { heads: 3, causal: true },
    { variants },
  );
  await checkOp(
    attention,
    [
      [1, 70, 6],
      [1, 70, 6],
      [1, 70, 6],
    ],
    { heads: 2, causal: true },
    { variants, samples: 60 },
  );
});
test('a bias broadcasts, and has a gradient', async () => {
  for (const bias of [[2, 1, 6, 9], [1, 2, 1, 9], [6, 9], [2, 2, 6, 9], [9]]) {
    await checkOp(attention, [[2, 2, 6, 8], [2, 2, 9, 8], [2, 2, 9, 8], bias], {}, { variants });
  }
  await checkOp(
    attention,
    [
      [1, 19, 8],
      [1, 35, 8],
      [1, 35, 8],
      [1, 1, 19, 35],
    ],
    { heads: 2 },
    { variants, constant: [3], samples: 50 },
  );
});
test('more keys and queries than a tile holds', () =>
  checkOp(
    attention,
    [
      [1, 37, 24],
      [1, 101, 24],
      [1, 101, 24],
    ],
    { heads: 2 },
    { variants, samples: 40 },
  ));
test('many keys', () =>
  checkOp(
    attention,
    [
      [1, 5, 18],
      [1, 531, 18],
      [1, 531, 18],
    ],
    { heads: 2 },
    { variants, samples: 12 },
  ));
test('wide heads', async () => {
  await checkOp(
    attention,
    [
      [1, 3, 70],
      [1, 5, 70],
      [1, 5, 70],
    ],
    { heads: 1 },
    { variants, samples: 60 },
  );
});
test('heads as wide as those of a VAE', () =>
  checkOp(
    attention,
    [
      [1, 5, 512],
      [1, 6, 512],
      [1, 6, 512],
    ],
    {},
    { variants, samples: 20 },
  ));
test('the scores are never stored, forwards and backwards', async () => {
  const gpu = await testGpu();
  const T = 1024,
    scores = T * T * 4;
  for (const variant of ['subgroup', 'workgroup']) {
    gpu.capabilities.force.attention = variant;
    using q = gpu.zeros([1, T, 8]);
    await gpu.trim();
    gpu.resetPeak();
    const before = gpu.memory().peak;
    const { output, saved } = attention.forward(gpu, [q, q, q], {});
    const gradients = attention.backward!(gpu, output, saved as GpuArray[], {}, [true, true, true]);
    await gpu.idle();
    assert.ok(gpu.memory().peak - before < scores / 8, `${variant}: ${gpu.memory().peak - before} bytes`);
    for (const array of new Set([...gradients, ...saved!])) if (array !== q) array?.dispose();
    output.dispose();
  }
  delete gpu.capabilities.force.attention;
});
test('stored scores that exceed one binding are stored by blocks of queries', async () => {
  const device = { limits: { maxStorageBufferBindingSize: 64 * 1024 } };
  const options = { variants: ['naive'], device, samples: 12 };
  const [q, k] = [
    [1, 61, 64],
    [1, 70, 64],
  ]; // 8 heads: 137 kB of scores
  await checkOp(attention, [q, k, k], { heads: 8 }, options);
  await checkOp(attention, [q, q, q], { heads: 8, causal: true }, options);
  await checkOp(attention, [q, k, k, [1, 1, 61, 70]], { heads: 8 }, { ...options, constant: [3] });
});
test('on software adapters wide heads go through stored scores', () => {
  const cpu = { family: 'cpu', subgroups: true, subgroupSize: 8, force: {} } as any;
  const sizes = (heads: number, tokens: number, dim: number) =>
    ({ batch: 1, heads, queries: tokens, keys: tokens, dim, vdim: dim }) as any;
  assert.is(pickAttention(sizes(8, 4096, 40), cpu), 'subgroup');
  assert.is(pickAttention(sizes(1, 4096, 512), cpu), 'naive');
  assert.is(pickAttention(sizes(1, 16384, 512), cpu), 'naive');
  assert.is(pickAttention(sizes(8, 4096, 40), { ...cpu, subgroupSize: 4 }), 'workgroup');
  assert.is(pickAttention(sizes(1, 4096, 512), { ...cpu, family: 'gpu', subgroupSize: 32 }), 'workgroup');
});

test('sharp scores stay exact', () =>
  checkOp(
    attention,
    [
      [1, 2, 9, 16],
      [1, 2, 40, 16],
      [1, 2, 40, 16],
    ],
    {},
    { variants, ranges: { 0: [-10, 10], 1: [-10, 10] }, tolerance: 1e-4, samples: 60 },
  ));
test('a bias of −∞ hides a key', async () => {
  const gpu = await testGpu();
  using q = gpu.array([1, 1, 2], [1, 2]);
  using k = gpu.array([1, 2, 2], [1, 2, 3, 4]);
  using v = gpu.array([1, 2, 2], [5, 6, 7, 8]);
  using bias = gpu.array([2], [0, -Infinity]);
  const { output, saved } = attention.forward(gpu, [q, k, v, bias], {});
  assert.equal([...(await output.read())], [5, 6]);
  for (const array of new Set([output, ...saved!]))
    if (array !== q && array !== k && array !== v && array !== bias) array?.dispose();
});
test('operands that do not fit are an error that names them', async () => {
  const gpu = await testGpu();
  using q = gpu.zeros([2, 4, 10]);
  using k = gpu.zeros([2, 6, 12]);
  using bias = gpu.zeros([3, 1, 1, 1]);
  assert.throws(
    () => attention.forward(gpu, [q, k, k], { heads: 2 }),
    /attention: sizes of a head of q and k differ \(5 ≠ 6\)/,
  );
  assert.throws(() => attention.forward(gpu, [q, q, q], { heads: 3 }), /3 heads do not divide/);
  assert.throws(
    () => attention.forward(gpu, [q, q, q, bias], { heads: 2 }),
    /bias does not broadcast to \[2, 2, 4, 4\]/,
  );
});
test.run();
