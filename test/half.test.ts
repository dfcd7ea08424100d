import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { castInto, castTo } from '../src/kernels/cast.ts';
import { floatToHalf, halfToFloat } from '../src/kernels/half.ts';
import { halfStorage } from '../src/kernels/half-storage.ts';
import type { Gpu } from '../src/kernels/index.ts';
import { AdamW, Linear, Module, UNet2DConditionModel } from '../src/nn/index.ts';
import { add, concat, linear, mean, mse, mul, slice, sum } from '../src/tensor/functions/index.ts';
import { noGrad, scope, tensor, useGpu, zeros } from '../src/tensor/index.ts';
import { assertNear, testGpu } from './check-op.ts';
import { randoms } from './randoms.ts';
import { collectGarbage } from './garbage.ts';
import { skip } from './skip.ts';

const packed = await testGpu({ force: { f16: 'packed' } });
const native = packed.capabilities.f16 ? await testGpu({ force: { f16: 'native' } }) : undefined;
const gpus = native ? [native, packed] : [packed];
const test = suite('half');
if (!native) skip(test, 'native halves', 'this adapter has no shader-f16');
const onEach = (name: string, run: (gpu: Gpu) => void | Promise<void>) => {
  for (const gpu of gpus) test(`${gpu === packed ? 'packed' : 'native'}: ${name}`, () => (useGpu(gpu), run(gpu)));
};

const half = (v: number) => halfToFloat(floatToHalf(v));
const halves = (n: number, seed = 1) => randoms(n, seed).map(half);

test('halves are stored natively where the adapter can, and packed where it cannot or when told', async () => {
  const { capabilities } = await testGpu({ coreOnly: true });
  assert.is(halfStorage(capabilities), 'packed');
  assert.is(halfStorage({ f16: true, force: {} }), 'native');
  assert.is(halfStorage({ f16: true, force: { f16: 'packed' } }), 'packed');
  assert.is(halfStorage({ f16: false, force: { f16: 'native' } }), 'packed');
});

onEach('arrays of odd sizes are written, read, cleared, copied and viewed whole', async (gpu) => {
  for (const n of [0, 1, 2, 3, 7, 257]) {
    const numbers = randoms(n, n + 1);
    const x = gpu.array([n], numbers, 'f16');
    assert.equal(await x.read(), numbers.map(half), `${n} written`);
    const y = gpu.zeros([n], 'f16');
    assert.equal(await y.read(), new Float32Array(n), `${n} cleared`);
    gpu.copy(x, y);
    const again = halves(n, 77);
    gpu.write(x, again); // behind the copy in the open list
    assert.equal(await y.read(), numbers.map(half), `${n} copied`);
    assert.equal(await x.view([1, n]).read(), again, `${n} viewed`);
  }
});

onEach('an array of halves takes half the memory', async (gpu) => {
  await collectGarbage();
  const { live } = gpu.memory();
  const x = gpu.empty([1024, 1024], 'f16');
  assert.is(gpu.memory().live - live, 2 * 2 ** 20);
  x.dispose();
});

onEach('conversions go between all dtypes', async (gpu) => {
  const x = gpu.array([5], [1.75, -2.5, 3.1, 70000, 0]);
  assert.equal([...(await castTo(x, 'f16').read())], [1.75, -2.5, half(3.1), Infinity, 0]);
  assert.equal([...(await castTo(x, 'i32').read())], [1, -2, 3, 70000, 0]);
  assert.equal([...(await castTo(gpu.array([3], [7, -8, 2049], 'i32'), 'f16').read())], [7, -8, 2048]);
  assert.equal([...(await castTo(gpu.array([3], [7, 8, 9], 'u32'), 'f32').read())], [7, 8, 9]);
  const same = castTo(x, 'f32');
  assert.is(same.storage, x.storage);
  const y = gpu.zeros([5], 'f16');
  castInto(x, y);
  assert.is((await y.read())[2], half(3.1));
});

onEach('tensors: dtype in, dtype out, and gradients of the dtype of their tensor', async () => {
  const x = tensor([1, 2, 3], [3], { dtype: 'f16', requiresGrad: true });
  const w = tensor([0.5, 0.25, -1], [3], { requiresGrad: true });
  const y = mul(x, w.to('f16'));
  assert.is(y.dtype, 'f16');
  assert.is(mul(x, w).dtype, 'f32');
  const loss = mse(add(y, x), zeros([3], 'f16'));
  assert.is(loss.dtype, 'f32');
  loss.backward();
  assert.equal([x.grad!.dtype, w.grad!.dtype], ['f16', 'f32']);
  // loss = mean((w + 1)² x²): dx = 2/3 (w + 1)² x, dw = 2/3 (w + 1) x²
  assertNear(await x.grad!.read(), [1.5, (2 / 3) * 1.25 ** 2 * 2, 0], 2e-3, 'dx');
  assertNear(await w.grad!.read(), [1, (2 / 3) * 1.25 * 4, 0], 2e-3, 'dw');
});

onEach('gradients that meet are added up in halves', async () => {
  const x = tensor(halves(7), [7], { dtype: 'f16', requiresGrad: true });
  sum(concat([mul(x, 2), mul(x, x), slice(x, [[1, 4]])])).backward();
  const want = [...halves(7)].map((v, i) => 2 + 2 * v + (i >= 1 && i < 4 ? 1 : 0));
  assertNear(await x.grad!.read(), want, 2e-3, 'dx');
});

const config = {
  in_channels: 4,
  out_channels: 4,
  down_block_types: ['CrossAttnDownBlock2D', 'DownBlock2D'],
  up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D'],
  block_out_channels: [32, 64],
  layers_per_block: 1,
  norm_num_groups: 8,
  cross_attention_dim: 24,
  attention_head_dim: 4,
};

onEach('a U-Net of halves is the U-Net of f32 within 2e-3, in about half the memory', async (gpu) => {
  await collectGarbage();
  const before = gpu.memory().live;
  using unet = new UNet2DConditionModel(config).initialize(1);
  const weights = gpu.memory().live - before;
  const run = async (dtype: 'f32' | 'f16') => {
    const [sample, text] = [randoms(2 * 24 * 24 * 4, 1), randoms(2 * 7 * 24, 2)];
    await gpu.trim();
    gpu.resetPeak();
    const { live } = gpu.memory();
    using out = scope(() =>
      noGrad(() => unet.forward(tensor(sample, [2, 24, 24, 4], { dtype }), 500, tensor(text, [2, 7, 24], { dtype }))),
    );
    assert.is(out.dtype, dtype);
    return { numbers: await out.read(), bytes: gpu.memory().peak - live };
  };
  const full = await run('f32');
  unet.to('f16');
  const halfWeights = gpu.memory().live - before;
  assert.ok(halfWeights < 0.6 * weights, `weights: ${halfWeights} of ${weights} bytes`);
  const light = await run('f16');
  assert.ok(light.bytes < 0.6 * full.bytes, `activations: ${light.bytes} of ${full.bytes} bytes`);
  assertNear(light.numbers, full.numbers, 2e-3, 'f16 against f32');
});

onEach('a model of halves takes weights from files and from models of f32', async () => {
  using model = new Linear(3, 5).initialize(1);
  const state = await model.stateDict();
  using loaded = new Linear(3, 5).to('f16');
  loaded.loadStateDict(state);
  using copied = new Linear(3, 5).to('f16').copyFrom(model);
  const want = state.weight.data.map(half);
  assert.equal((await loaded.stateDict()).weight.data, want);
  assert.equal((await copied.stateDict()).weight.data, want);
  using back = new Linear(3, 5).copyFrom(copied);
  assert.equal((await back.stateDict()).weight.data, want);
});

onEach('an f32 model can be trained through a pass in halves', async () => {
  const weight = tensor(randoms(15, 1), [5, 3], { requiresGrad: true });
  const [x, target] = [tensor(randoms(24, 2), [8, 3], { dtype: 'f16' }), zeros([8, 5])];
  const optimizer = new AdamW(new Map([['weight', weight]]), { lr: 0.1 });
  const step = async () => {
    using loss = scope(() => mse(linear(x, weight.to('f16')), target));
    const value = await loss.item();
    loss.backward();
    optimizer.step();
    return value;
  };
  const first = await step();
  for (let i = 0; i < 10; i++) await step();
  assert.ok((await step()) < first / 2);
});

onEach('what halves cannot do is refused with the way out', async (gpu) => {
  const x = gpu.zeros([4], 'f16');
  assert.throws(() => x.view([4], 'f32'), /view: f16 and f32 differ in size[^]*castTo\(\)/);
  assert.throws(() => gpu.copy(x, gpu.zeros([4])), /copy: numbers differ in size[^]*castInto\(\)/);
  const code = `// pairs
@group(0) @binding(0) var<storage, read_write> pairs: array<vec2f>;
@compute @workgroup_size(1) fn clear() { pairs[0] = vec2f(); }`;
  assert.throws(() => gpu.run(code, 'clear', {}, [x], [1]), /kernel "\/\/ pairs" cannot hold f16 in "pairs"/);
  assert.throws(
    () => mul(tensor([1], [1], { dtype: 'i32' }), 2),
    /mulScalar: x must be f32 or f16, not i32[^]*to\('f32'\)/,
  );
  assert.throws(() => mean(x as never), /not a Tensor/);

  using model: Module = new Linear(3, 2).initialize(1).to('f16').requiresGrad(true);
  const optimizer = new AdamW(model.namedParameters(), { lr: 0.1 });
  sum((model as Linear).forward(tensor(halves(6), [2, 3], { dtype: 'f16' }))).backward();
  assert.throws(() => optimizer.step(), /optimizer: weight is f16[^]*train in f32/);
  const computed = mul((model as Linear).weight, 2);
  assert.throws(() => computed.convert('f32'), /only a leaf can change its dtype[^]*use to\(\)/);
});

test.run();
