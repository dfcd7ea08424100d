import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { outlineOf, UNet2DConditionModel, type UNetConfig } from '../src/nn/index.ts';
import { StackedUNet, type StackedUNetPart } from '../src/nn/models/stacked-unet.ts';
import { mean, noGrad, scope, square, tensor, useGpu, type Tensor } from '../src/tensor/index.ts';
import { testGpu } from './check-op.ts';
import { randoms } from './randoms.ts';

const test = suite('nn-stacked-unet');
test.before(async () => void useGpu(await testGpu()));

const config: Partial<UNetConfig> = {
  down_block_types: ['CrossAttnDownBlock2D', 'DownBlock2D'],
  up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D'],
  block_out_channels: [8, 16],
  layers_per_block: 1,
  norm_num_groups: 4,
  cross_attention_dim: 6,
  attention_head_dim: 2,
};
const parts: StackedUNetPart[] = ['firstDown', 'firstUp', 'between', 'secondDown', 'secondUp'];
const inputs = (): [Tensor, number[], Tensor] => [
  tensor(randoms(2 * 7 * 6 * 4, 1, [-1, 1]), [2, 7, 6, 4]),
  [1000, 300],
  tensor(randoms(2 * 5 * 6, 2, [-1, 1]), [2, 5, 6]),
];
const numbers = async (t: Tensor) => (await t.read()) as Float32Array;

test('InstaFlow-1.7B has 1.719 G parameters: two U-Nets less the layers between them', () => {
  const count = (drop?: StackedUNetPart[]) => outlineOf(() => new StackedUNet({ drop })).parameterCount;
  const one = outlineOf(() => new UNet2DConditionModel()).parameterCount;
  assert.is(one, 859_520_964);
  assert.is(count([]), 2 * one);
  assert.is(count(), 2 * one - 11_840 - 11_524 - 640);
  assert.is(count(), 1_719_017_924);
  const [down, up] = ['down_blocks', 'up_blocks'].map((part) => {
    const keys = [...outlineOf(() => new UNet2DConditionModel()).namedParameters()];
    return keys.filter(([key]) => key.startsWith(part)).reduce((n, [, p]) => n + p.size, 0);
  });
  assert.is(count(['firstDown', 'secondUp']), 2 * one - down - up);
});

test('with nothing left out it is one U-Net after the other, time and text to both', async () => {
  using unet = new UNet2DConditionModel(config).initialize(1);
  using stacked = new StackedUNet({ ...config, drop: [] }).copyUNet(unet);
  const [x, times, text] = inputs();
  const want = noGrad(() => unet.forward(unet.forward(x, times, text), times, text));
  assert.equal(await numbers(noGrad(() => stacked.forward(x, times, text))), await numbers(want));
});

test('without the layers between, the features of the first go into the second as they are', async () => {
  using stacked = new StackedUNet(config).initialize(3);
  const keys = [...stacked.namedParameters().keys()];
  for (const gone of ['unets.0.conv_norm_out.weight', 'unets.0.conv_out.weight', 'unets.1.conv_in.weight']) {
    assert.not(keys.includes(gone), gone);
    assert.ok(keys.includes(gone.replace(/\d/, (n) => `${1 - Number(n)}`)));
  }
  const [first, second] = stacked.unets;
  const [x, times, text] = inputs();
  const waves = stacked.timeWaves(times);
  const call = <I extends readonly Tensor[]>(layer: (...inputs: I) => Tensor, ...inputs: I) => layer(...inputs);
  const middle = noGrad(() => first.forward(x, waves, text, call));
  assert.equal(middle.shape, [2, 7, 6, 8]);
  const want = noGrad(() => second.forward(middle, waves, text, call));
  assert.equal(await numbers(noGrad(() => stacked.forward(x, times, text))), await numbers(want));
});

for (const drop of [...parts.map((part) => [part]), parts]) {
  test(`without ${drop.join(', ')} the velocity keeps its shape and gradients reach every parameter`, async () => {
    using whole = new UNet2DConditionModel(config);
    const known = [...whole.namedParameters().keys()];
    using stacked = new StackedUNet({ ...config, drop }).initialize(5).requiresGrad(true);
    const [x, times, text] = inputs();
    const y = scope(() => {
      const y = stacked.forward(x, times, text);
      mean(square(y)).backward();
      return y;
    });
    assert.equal(y.shape, [2, 7, 6, 4]);
    assert.ok((await numbers(y)).every(Number.isFinite));
    for (const [key, p] of stacked.namedParameters()) {
      assert.ok(known.includes(key.replace(/^unets\.[01]\./, '')), key);
      assert.ok(p.grad, `no gradient reached ${key}`);
    }
  });
}

test('checkpoints change no gradient', async () => {
  const results: Float32Array[] = [];
  for (const gradientCheckpointing of [false, true]) {
    using stacked = new StackedUNet(config).initialize(7).requiresGrad(true);
    stacked.gradientCheckpointing = gradientCheckpointing;
    scope(() => mean(square(stacked.forward(...inputs()))).backward());
    results.push(await numbers(stacked.namedParameters().get('unets.0.conv_in.weight')!.grad!));
  }
  assert.equal(results[1], results[0]);
});

test('a network that also wants text_time is refused, as is a part that there is not', () => {
  const sdxl = {
    ...config,
    addition_embed_type: 'text_time',
    addition_time_embed_dim: 4,
    projection_class_embeddings_input_dim: 30,
  } as const;
  assert.throws(() => outlineOf(() => new StackedUNet(sdxl)), /text_time is not supported/);
  const odd = { ...config, drop: ['between', 'middle'] as StackedUNetPart[] };
  assert.throws(() => outlineOf(() => new StackedUNet(odd)), /no part middle to drop\n {2}known: firstDown firstUp/);
});

test.run();
