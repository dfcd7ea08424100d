import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CLIPTextModel, outlineOf, UNet2DConditionModel, type StateDict } from '../src/nn/index.ts';
import { layerFinder, parseLoraKey } from '../src/nn/lora-keys.ts';
import { loraMetadata } from '../src/nn/lora-metadata.ts';
import { readLora } from '../src/nn/lora-read.ts';
import { loraTargets, newLora } from '../src/nn/lora.ts';
import { currentGpu, useGpu } from '../src/tensor/index.ts';
import { readSafetensors, writeSafetensors, type HostTensor } from '../src/tensor/io/safetensors.ts';
import { testGpu } from './check-op.ts';
import { randoms } from './randoms.ts';
import { tinyUNet } from './tiny-unet.ts';

const test = suite('lora-read');
test.before(async () => void useGpu(await testGpu()));

const textModel = () =>
  new CLIPTextModel({
    vocab_size: 11,
    hidden_size: 12,
    intermediate_size: 20,
    num_hidden_layers: 2,
    num_attention_heads: 3,
    max_position_embeddings: 6,
  });

const toQ = 'down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q'; // [16, 16]
const toOut = 'mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0'; // [24, 24]
const projIn = 'mid_block.attentions.0.proj_in'; // [24, 24, 1, 1]
const qProj = 'text_model.encoder.layers.1.self_attn.q_proj'; // [12, 12]

const host = (shape: number[], seed: number) => ({
  shape,
  data: randoms(
    shape.reduce((n, d) => n * d, 1),
    seed,
  ),
});
const factors: Record<string, Record<'down' | 'up', HostTensor>> = {
  [`unet.${toQ}`]: { down: host([2, 16], 1), up: host([16, 2], 2) },
  [`unet.${toOut}`]: { down: host([2, 24], 3), up: host([24, 2], 4) },
  [`unet.${projIn}`]: { down: host([2, 24, 1, 1], 5), up: host([24, 2, 1, 1], 6) },
  [`text_encoder.${qProj}`]: { down: host([2, 12], 7), up: host([12, 2], 8) },
};

/** A file of these factors by what `keys` makes of a layer. */
const file = (keys: (layer: string) => { down: string; up: string }): StateDict =>
  Object.fromEntries(
    Object.entries(factors).flatMap(([layer, { down, up }]) => {
      const of = keys(layer);
      return [
        [of.down, down],
        [of.up, up],
      ];
    }),
  );

const flat = (layer: string) =>
  layer
    .replaceAll('.', '_')
    .replace(/^text_encoder_/, 'lora_te_')
    .replace(/^unet_/, 'lora_unet_');
const early = (layer: string) =>
  layer
    .replace(/\.to_out\.0$/, '.processor.to_out_lora')
    .replace(/attn1\.to_q$/, 'attn1.processor.to_q_lora')
    .replace(/self_attn\.q_proj$/, 'self_attn.to_q_lora')
    .replace(/proj_in$/, 'proj_in.lora');

const formats: Record<string, StateDict> = {
  PEFT: file((layer) => ({ down: `${layer}.lora_A.weight`, up: `${layer}.lora_B.weight` })),
  'PEFT with the name of its adapter': file((layer) => ({
    down: `base_model.model.${layer}.lora_A.default.weight`,
    up: `base_model.model.${layer}.lora_B.default.weight`,
  })),
  diffusers: file((layer) => ({ down: `${layer}.lora.down.weight`, up: `${layer}.lora.up.weight` })),
  'diffusers with linear layers': file((layer) => ({
    down: `${layer}.lora_linear_layer.down.weight`,
    up: `${layer}.lora_linear_layer.up.weight`,
  })),
  'diffusers before PEFT': file((layer) => ({ down: `${early(layer)}.down.weight`, up: `${early(layer)}.up.weight` })),
  'kohya on points': file((layer) => ({ down: `${layer}.lora_down.weight`, up: `${layer}.lora_up.weight` })),
  kohya: file((layer) => ({ down: `${flat(layer)}.lora_down.weight`, up: `${flat(layer)}.lora_up.weight` })),
};

for (const [format, tensors] of Object.entries(formats)) {
  test(`keys as in ${format}`, async () => {
    using unet = tinyUNet();
    using text_encoder = textModel();
    const { lora, unused } = readLora(tensors, { unet, text_encoder });
    assert.equal(unused, []);
    assert.equal([...lora.layers.keys()], Object.keys(factors));
    for (const [key, layer] of lora.layers) {
      assert.is(layer.scaling, 1);
      assert.is(layer.rank, 2);
      assert.ok(Object.is(layer.target, loraTargets({ unet, text_encoder }).get(key)));
      const { 'lora_A.weight': down, 'lora_B.weight': up } = await layer.stateDict();
      assert.equal(down.data, factors[key].down.data);
      assert.equal(up.data, factors[key].up.data);
    }
  });
}

test('the first files of diffusers name no network: they are of the U-Net', () => {
  using unet = tinyUNet();
  const { lora } = readLora(
    {
      [`${toQ.replace('to_q', 'processor.to_q_lora')}.down.weight`]: host([2, 16], 1),
      [`${toQ.replace('to_q', 'processor.to_q_lora')}.up.weight`]: host([16, 2], 1),
    },
    { unet },
  );
  assert.equal([...lora.layers.keys()], [`unet.${toQ}`]);
});

test('alpha of kohya, of PEFT in the header, and by layer: α / r, or α / √r', () => {
  using unet = tinyUNet();
  const tensors = {
    [`unet.${toQ}.lora_A.weight`]: host([4, 16], 1),
    [`unet.${toQ}.lora_B.weight`]: host([16, 4], 1),
    [`unet.${toOut}.lora_A.weight`]: host([2, 24], 1),
    [`unet.${toOut}.lora_B.weight`]: host([24, 2], 1),
  };
  const scalings = (alphas: StateDict, config?: object) => {
    const metadata = config && { lora_adapter_metadata: JSON.stringify(config) };
    const { lora } = readLora({ ...tensors, ...alphas }, { unet }, { metadata });
    return [...lora.layers.values()].map(({ scaling }) => scaling);
  };
  assert.equal(scalings({}), [1, 1]);
  assert.equal(scalings({ [`unet.${toQ}.alpha`]: { shape: [], data: Float32Array.of(1) } }), [0.25, 1]);
  assert.equal(scalings({ [`${flat(`unet.${toOut}`)}.alpha`]: { shape: [1], data: Float32Array.of(3) } }), [1, 1.5]);
  assert.equal(scalings({}, { 'unet.lora_alpha': 8 }), [2, 4]);
  assert.equal(scalings({}, { 'unet.lora_alpha': 8, 'unet.alpha_pattern': { 'to_out.0': 1 } }), [2, 0.5]);
  assert.equal(scalings({}, { 'unet.lora_alpha': 8, 'unet.use_rslora': true }), [4, 8 / Math.SQRT2]);
  assert.equal(scalings({}, { 'text_encoder.lora_alpha': 8 }), [1, 1]);
  assert.throws(() => scalings({}, { 'unet.use_dora': true }), /unet\.use_dora is set, and DoRA is not supported/);
  assert.throws(
    () => readLora(tensors, { unet }, { name: 'a.safetensors', metadata: { lora_adapter_metadata: '{' } }),
    /a\.safetensors: lora_adapter_metadata in the header is not JSON/,
  );
});

test('a trained LoRA is written with PEFT’s keys and read back to the bit, alphas with it', async () => {
  using unet = tinyUNet();
  using text_encoder = textModel();
  using lora = newLora({ unet, text_encoder }, { rank: 3, alpha: 5, layers: /to_k|k_proj|conv2|proj_out/, seed: 4 });
  const state = await lora.stateDict();
  assert.equal(state['unet.mid_block.resnets.0.conv2.lora_A.weight'].shape, [3, 24, 3, 3]);
  assert.equal(state['unet.mid_block.resnets.0.conv2.lora_B.weight'].shape, [24, 3, 1, 1]);
  const { tensors, metadata } = readSafetensors(writeSafetensors(state, loraMetadata(lora)));
  const back = readLora(tensors, { unet, text_encoder }, { metadata }).lora;
  const again = await back.stateDict();
  for (const [key, { data }] of Object.entries(state)) assert.equal(again[key].data, data, key);
  assert.equal(
    [...back.layers].map(([key, { scaling }]) => [key, scaling]).sort(),
    [...lora.layers].map(([key]) => [key, 5 / 3]).sort(),
  );
});

test('every layer of Stable Diffusion 1.5 is found by its flat name', () => {
  const targets = outlineOf(() => loraTargets({ unet: new UNet2DConditionModel(), text_encoder: new CLIPTextModel() }));
  const find = layerFinder(targets.keys());
  for (const key of targets.keys()) assert.is(find(parseLoraKey(`${flat(key)}.lora_up.weight`)!), key);
  assert.is([...targets.keys()].filter((key) => /\.attn[12]\.to_/.test(key)).length, 128);
  for (const [key, layer] of [
    ['input_blocks_4_1_transformer_blocks_0_attn1_to_q', 'down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q'],
    ['input_blocks_3_0_op', 'down_blocks.0.downsamplers.0.conv'],
    ['middle_block_1_proj_in', 'mid_block.attentions.0.proj_in'],
    [
      'output_blocks_5_1_transformer_blocks_0_ff_net_0_proj',
      'up_blocks.1.attentions.2.transformer_blocks.0.ff.net.0.proj',
    ],
    ['output_blocks_2_0_skip_connection', 'up_blocks.0.resnets.2.conv_shortcut'],
  ])
    assert.is(find(parseLoraKey(`lora_unet_${key}.alpha`)!), `unet.${layer}`); // as in files for SDXL
  const first = 'lora_te1_text_model_encoder_layers_11_mlp_fc1.alpha'; // of SDXL, whose first encoder is the same
  assert.is(find(parseLoraKey(first)!), 'text_encoder.text_model.encoder.layers.11.mlp.fc1');
});

const refused = (tensors: StateDict, pattern: RegExp, models = { unet: tinyUNet() }) =>
  assert.throws(
    () => readLora(tensors, models, { name: 'logo.safetensors' }),
    (error: Error) => {
      if (error.name === 'LoraError' && pattern.test(error.message)) return true;
      throw new Error(`${error.message}\n  is not ${pattern}`);
    },
  );

test('a LoRA for another model: every layer that does not fit, both sides, and every key that is unknown', () => {
  const lines = [
    'logo\\.safetensors: made for another model',
    `  wrong: unet\\.${toQ}  file: down \\[4, 2048\\] up \\[640, 4\\]  model: \\[16, 16\\]`,
    `  wrong: unet\\.${projIn}  has only ${flat(`unet.${projIn}`)}\\.lora_up\\.weight`,
    '  unknown: lora_unet_input_blocks_9_1_proj_in\\.lora_down\\.weight  \\[4, 640\\]',
    '  unknown: conv_in\\.weight  \\[3\\]',
    '  2 layers of the file are among the \\d+ of unet',
  ];
  refused(
    {
      [`unet.${toQ}.lora_A.weight`]: host([4, 2048], 1),
      [`unet.${toQ}.lora_B.weight`]: host([640, 4], 1),
      [`${flat(`unet.${projIn}`)}.lora_up.weight`]: host([24, 4, 1, 1], 1),
      'lora_unet_input_blocks_9_1_proj_in.lora_down.weight': host([4, 640], 1),
      'conv_in.weight': host([3], 1),
    },
    new RegExp(`^${lines.join('\\n')}$`),
  );
  refused({}, /0 layers of the file/);
});

test('a long list is cut', () => {
  const many = Array.from({ length: 40 }, (_, i) => [`lora_unet_x_${i}.lora_up.weight`, host([1, 1], 1)] as const);
  refused(Object.fromEntries(many), /x_11\.lora_up\.weight {2}\[1, 1\]\n {2}… and 28 more unknown\n/);
});

test('factors whose rank differs, whose kernel differs, or whose alpha is no number are refused', () => {
  const down = `unet.${projIn}.lora_A.weight`,
    up = `unet.${projIn}.lora_B.weight`;
  refused(
    { [down]: host([3, 24], 1), [up]: host([24, 2], 1) },
    /down \[3, 24\] up \[24, 2\] {2}model: \[24, 24, 1, 1\]/,
  );
  refused({ [down]: host([2, 24, 3, 3], 1), [up]: host([24, 2], 1) }, /down \[2, 24, 3, 3\]/);
  refused({ [down]: host([48], 1), [up]: host([24, 2], 1) }, /down \[48\]/);
  refused({ [down]: host([0, 24], 1), [up]: host([24, 0], 1) }, /down \[0, 24\]/);
  const good = { [down]: host([2, 24], 1), [up]: host([24, 2], 1) };
  refused(
    { ...good, [`unet.${projIn}.alpha`]: { shape: [], data: Float32Array.of(NaN) } },
    /proj_in {2}alpha \/ rank is NaN/,
  );
  refused({ ...good, [`unet.${projIn}.alpha`]: { shape: [0], data: new Float32Array() } }, /alpha \/ rank is NaN/);
});

test('factors for a network that was not given are asked for, or left out when they may be', () => {
  const unet = tinyUNet();
  refused(
    formats.kohya,
    /^logo\.safetensors: wants more networks\n {2}no text_encoder was given: 2 tensors, such as lora_te_text_model/,
    { unet },
  );
  const { lora, unused } = readLora(formats.kohya, { unet }, { strict: false });
  assert.is(lora.layers.size, 3);
  assert.is(unused.length, 2);
});

test('other kinds of changes are refused by name', () => {
  for (const [key, kind] of [
    ['lora_unet_mid_block_attentions_0_proj_in.hada_w1_a', 'LoHa'],
    ['lora_unet_mid_block_attentions_0_proj_in.lokr_w2_b', 'LoKr'],
    ['lora_unet_mid_block_attentions_0_proj_in.lokr_w1', 'LoKr'],
    ['lora_unet_mid_block_resnets_0_conv1.lora_mid.weight', 'LoCon with a Tucker core'],
    ['lora_unet_mid_block_attentions_0_proj_in.dora_scale', 'DoRA'],
    [`unet.${toQ}.lora_magnitude_vector.weight`, 'DoRA'],
    [`unet.${toQ}.lora_B.bias`, 'LoRA with biases'],
    ['lora_unet_mid_block_attentions_0_proj_in.oft_blocks', 'OFT'],
    ['lora_unet_mid_block_attentions_0_norm.w_norm', 'whole weights of LyCORIS'],
  ]) {
    refused(
      { ...formats.kohya, [key]: host([2, 2], 1) },
      new RegExp(`^logo\\.safetensors: ${kind} is not supported\\n  ${kind}: 1 tensors, such as ${key}\\n`),
    );
  }
});

test.after(() => currentGpu().idle());
test.run();
