import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { currentGpu, noGrad, scope, tensor, useGpu } from '../src/tensor/index.ts';
import { readSafetensors, writeSafetensors } from '../src/tensor/io/safetensors.ts';
import { normal } from '../src/tensor/random.ts';
import {
  AutoencoderKL,
  CLIPTextModel,
  Conv2d,
  Linear,
  Module,
  observe,
  outlineOf,
  residualEnds,
  StateDictError,
  timestepWaves,
  UNet2DConditionModel,
  type StateDict,
  type UNetConfig,
} from '../src/nn/index.ts';
import { assertClose, testGpu } from './check-op.ts';
import { collectGarbage } from './garbage.ts';

const test = suite('nn-module');
test.before(async () => void useGpu(await testGpu()));

class Small extends Module {
  first = new Linear(3, 2);
  absent: Linear | undefined;
  layers = [new Conv2d(2, 3, 3), undefined, new Linear(2, 1, { bias: false })];
  note = 'not a parameter';

  forward(): undefined {}
}

const config: Partial<UNetConfig> = {
  down_block_types: ['CrossAttnDownBlock2D', 'DownBlock2D'],
  up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D'],
  block_out_channels: [8, 16],
  layers_per_block: 1,
  norm_num_groups: 4,
  cross_attention_dim: 6,
  attention_head_dim: 2,
};

test('keys are the paths of fields, in the order of declaration', () => {
  using model = new Small();
  assert.equal(
    [...model.namedParameters().keys()],
    ['first.weight', 'first.bias', 'layers.0.weight', 'layers.0.bias', 'layers.2.weight'],
  );
  assert.equal([...model.namedModules().keys()], ['first', 'layers.0', 'layers.2']);
  assert.is(model.parameterCount, 6 + 2 + 54 + 3 + 2);
});

test('the first weights depend on seed and key only, within the bounds of PyTorch', async () => {
  using one = new Small().initialize(7),
    two = new Small().initialize(7),
    other = new Small().initialize(8);
  const a = await one.stateDict(),
    b = await two.stateDict(),
    c = await other.stateDict();
  assert.equal(a, b);
  assert.not.equal(a, c);
  for (const [key, { data }] of Object.entries(a)) {
    const bound = 1 / Math.sqrt(key.startsWith('layers.0') ? 18 : key.startsWith('first') ? 3 : 2);
    assert.ok(
      data.every((x) => Math.abs(x) <= bound),
      key,
    );
  }
  assert.ok(Math.max(...a['layers.0.weight'].data.map(Math.abs)) > 0.2);
});

test('with zero ends a U-Net begins by saying nothing', async () => {
  using model = new UNet2DConditionModel(config).initialize(1, { zero: residualEnds });
  const out = scope(() =>
    noGrad(() => model.forward(tensor(normal(1, 'x', 256), [1, 8, 8, 4]), 500, tensor(normal(1, 'c', 18), [1, 3, 6]))),
  );
  assert.equal([...(await out.read())], Array(256).fill(0));
});

test('convolution weights are [O, I, kh, kw] in a checkpoint and [O, kh, kw, I] here', async () => {
  using conv = new Conv2d(2, 1, 3);
  const data = Float32Array.from({ length: 18 }, (_, i) => i);
  conv.loadStateDict({ weight: { shape: [1, 2, 3, 3], data }, bias: { shape: [1], data: Float32Array.of(5) } });
  assert.equal(conv.weight.shape, [1, 3, 3, 2]);
  assert.equal([...(await conv.weight.read())].slice(0, 6), [0, 9, 1, 10, 2, 11]);
  assert.equal((await conv.stateDict()).weight, { shape: [1, 2, 3, 3], data });
});

test('a network comes back from a file to the bit', async () => {
  using model = new UNet2DConditionModel(config).initialize(1),
    copy = new UNet2DConditionModel(config);
  const { tensors } = readSafetensors(writeSafetensors(await model.stateDict()));
  assert.equal(copy.loadStateDict(new Map(Object.entries(tensors))), { missing: [], unexpected: [] });
  const run = (m: UNet2DConditionModel) =>
    scope(() =>
      noGrad(() => m.forward(tensor(normal(1, 'x', 256), [1, 8, 8, 4]), 500, tensor(normal(1, 'c', 18), [1, 3, 6]))),
    );
  assert.equal(await run(copy).read(), await run(model).read());
  using third = new UNet2DConditionModel(config).copyFrom(model);
  assert.equal(await run(third).read(), await run(model).read());
});

test('weights that do not fit are refused with every key, and nothing is changed', async () => {
  using model = new Small().initialize(1);
  const before: StateDict = await model.stateDict();
  const { 'first.bias': _, ...state }: StateDict = {
    ...before,
    'first.weight': { shape: [3, 2], data: new Float32Array(6) },
    extra: { shape: [1], data: new Float32Array(1) },
  };
  try {
    model.loadStateDict(state);
    assert.unreachable();
  } catch (error) {
    assert.instance(error, StateDictError);
    for (const part of ['missing: first.bias', 'unexpected: extra', 'first.weight  file [3, 2]  model [2, 3]']) {
      assert.ok((error as Error).message.includes(part), `${part}\n${(error as Error).message}`);
    }
  }
  assert.equal(await model.stateDict(), before);
  const { 'first.weight': __, ...rest } = state;
  assert.equal(model.loadStateDict(rest, { strict: false }), {
    missing: ['first.weight', 'first.bias'],
    unexpected: ['extra'],
  });
});

test('tables that follow from the configuration may be in a file, and 1×1 convolutions may be matrices', () => {
  using conv = new Conv2d(2, 2, 1);
  conv.loadStateDict({
    weight: { shape: [2, 2], data: Float32Array.of(1, 2, 3, 4) },
    bias: { shape: [2], data: new Float32Array(2) },
    'embeddings.position_ids': { shape: [1, 77], data: new Float32Array(77) },
  });
});

test('a module that is disposed of gives all its memory back', async () => {
  await collectGarbage();
  const before = currentGpu().memory().live;
  const model = new UNet2DConditionModel(config).initialize(3);
  assert.ok(currentGpu().memory().live > before);
  model.dispose();
  assert.is(currentGpu().memory().live, before);
});

test('a full-size network can be looked at without its memory', async () => {
  await collectGarbage();
  const before = currentGpu().memory().live;
  const unet = outlineOf(() => new UNet2DConditionModel());
  assert.is(unet.parameterCount, 859520964);
  assert.is(unet.namedParameters().size, 686);
  assert.is(outlineOf(() => new CLIPTextModel()).parameterCount, 123060480);
  assert.is(outlineOf(() => new AutoencoderKL()).parameterCount, 83653863);
  assert.ok(currentGpu().memory().live - before < 1e6);
});

test('configurations that we do not have are refused by name', () => {
  for (const [wrong, words] of [
    [{ act_fn: 'relu' }, /act_fn/],
    [{ down_block_types: ['KDownBlock2D'], up_block_types: ['UpBlock2D'], block_out_channels: [8] }, /KDownBlock2D/],
    [{ block_out_channels: [8, 16] }, /down_block_types/],
    [{ class_embed_type: 'timestep' }, /class_embed_type/],
    [{ ...config, attention_head_dim: [2] }, /attention_head_dim has 1 values for 2/],
    [{ ...config, norm_num_groups: 3 }, /groups/],
  ] as [any, RegExp][]) {
    assert.throws(() => outlineOf(() => new UNet2DConditionModel(wrong)), words);
  }
  assert.throws(() => outlineOf(() => new CLIPTextModel({ hidden_act: 'relu' as any })), /hidden_act/);
});

test('wrong shapes are named where they enter', () => {
  using model = new UNet2DConditionModel(config);
  const x = tensor(new Float32Array(256), [1, 8, 8, 4]),
    text = tensor(new Float32Array(18), [1, 3, 6]);
  assert.throws(() => model.forward(tensor(new Float32Array(192), [1, 8, 8, 3]), 1, text), /images with 4 channels/);
  assert.throws(
    () => model.forward(x, 1, tensor(new Float32Array(21), [1, 3, 7])),
    /one text per image with 6 channels/,
  );
  assert.throws(() => model.forward(x, [1, 2], text), /one time per image/);
  assert.throws(() => new Linear(3, 2).forward(x), /last axis differs \(4 ≠ 3\)/);
});

test('every block can be observed, and is left as it was', () => {
  using model = new UNet2DConditionModel(config).initialize(1);
  const seen = new Map<string, readonly number[]>();
  scope(() =>
    noGrad(() =>
      observe(
        model,
        (key, output) => seen.set(key, output.shape),
        () =>
          model.forward(tensor(new Float32Array(256), [1, 8, 8, 4]), 1, tensor(new Float32Array(18), [1, 3, 6])).shape,
      ),
    ),
  );
  assert.equal(seen.get('mid_block'), [1, 4, 4, 16]);
  assert.equal(seen.get('up_blocks.1.resnets.0'), [1, 8, 8, 8]);
  assert.not(Object.hasOwn(model.mid_block, 'forward'));
});

test('time waves are diffusers’: cos first when flipped, an odd last channel zero', () => {
  assertClose(timestepWaves([3], 4), [Math.sin(3), Math.sin(0.03), Math.cos(3), Math.cos(0.03)], 1e-7, 'plain');
  assertClose(
    timestepWaves([3], 5, { flipSinToCos: true }),
    [Math.cos(3), Math.cos(0.03), Math.sin(3), Math.sin(0.03), 0],
    1e-7,
    'flipped',
  );
  assertClose(
    timestepWaves([3], 4, { freqShift: 1 }),
    [Math.sin(3), Math.sin(0.0003), Math.cos(3), Math.cos(0.0003)],
    1e-7,
    'shifted',
  );
});

test.after(() => currentGpu().idle());
test.run();
