import { createHash } from 'node:crypto';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { AutoencoderKL, CLIPTextModel, outlineOf, UNet2DConditionModel, type Module } from '../src/nn/index.ts';
import { clipKeys, openClipKeys } from '../src/nn/single-file/clip.ts';
import type { KeyMap, KeyRow } from '../src/nn/single-file/rows.ts';
import { unetKeys } from '../src/nn/single-file/unet.ts';
import { vaeKeys } from '../src/nn/single-file/vae.ts';
import { useGpu } from '../src/tensor/index.ts';
import { testGpu } from './check-op.ts';

const test = suite('single-file keys');
test.before(async () => void useGpu(await testGpu()));

const bigG = {
  vocab_size: 49408,
  hidden_size: 1280,
  intermediate_size: 5120,
  num_hidden_layers: 32,
  num_attention_heads: 20,
  max_position_embeddings: 77,
  hidden_act: 'gelu',
  projection_dim: 1280,
} as const;
const sdxl = { use_linear_projection: true, addition_embed_type: 'text_time', addition_time_embed_dim: 256 } as const;
const base = {
  ...sdxl,
  down_block_types: ['DownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D'],
  up_block_types: ['CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'UpBlock2D'],
  block_out_channels: [320, 640, 1280],
  cross_attention_dim: 2048,
  transformer_layers_per_block: [1, 2, 10],
  attention_head_dim: [5, 10, 20],
  projection_class_embeddings_input_dim: 2816,
};
const refiner = {
  ...sdxl,
  down_block_types: ['DownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D'],
  up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'UpBlock2D'],
  block_out_channels: [384, 768, 1536, 1536],
  cross_attention_dim: 1280,
  transformer_layers_per_block: 4,
  attention_head_dim: [6, 12, 24, 24],
  projection_class_embeddings_input_dim: 2560,
};

/** `digest`: of the rows that diffusers' and ldm's own code give for the full-size model. */
const models: { name: string; map: KeyMap; make: () => Module; rows: number; digest: string }[] = [
  {
    name: 'SD 1.5 U-Net',
    map: unetKeys,
    make: () => new UNet2DConditionModel(),
    rows: 686,
    digest: '5ea67e5b898b3454',
  },
  {
    name: 'SDXL U-Net',
    map: unetKeys,
    make: () => new UNet2DConditionModel(base),
    rows: 1680,
    digest: '19a36db201eeadd0',
  },
  {
    name: 'SDXL refiner U-Net',
    map: unetKeys,
    make: () => new UNet2DConditionModel(refiner),
    rows: 1220,
    digest: 'ffb4a9ce88db0dca',
  },
  { name: 'VAE', map: vaeKeys, make: () => new AutoencoderKL(), rows: 248, digest: 'cc93f68b854ca5ba' },
  {
    name: 'OpenCLIP bigG',
    map: openClipKeys,
    make: () => new CLIPTextModel(bigG, { projection: true }),
    rows: 517,
    digest: 'dc450f0062b7c75c',
  },
];

const line = ({ single, diffusers, op }: KeyRow) => {
  const name = typeof op === 'object' ? `rows ${1280 * op.third}:${1280 * (op.third + 1)}` : op;
  return [single, diffusers, ...(name ? [name] : [])].join(' ');
};
const sorted = (rows: KeyRow[]) => rows.map(line).sort();

for (const { name, map, make, rows, digest } of models) {
  test(`${name}: every key of a full-size model is mapped as the original code does, both ways`, () => {
    const keys = [...outlineOf(make).namedParameters().keys()];
    const forth = map.fromDiffusers(keys);
    assert.is(forth.length, rows);
    const text = sorted(forth).join('\n');
    assert.is(createHash('sha256').update(text).digest('hex').slice(0, 16), digest);
    assert.equal(sorted(map.fromSingle([...new Set(forth.map(({ single }) => single))])), sorted(forth));
  });
}

test('other depths map both ways too', () => {
  const config = { down_block_types: ['DownBlock2D'], up_block_types: ['UpBlock2D'], block_out_channels: [32] };
  const make = [
    () => new UNet2DConditionModel({ ...base, layers_per_block: 1 }),
    () => new UNet2DConditionModel({ ...base, layers_per_block: 3 }),
    () => new UNet2DConditionModel({ ...config, norm_num_groups: 4 }),
  ];
  for (const one of make) {
    const keys = [...outlineOf(one).namedParameters().keys()];
    const rows = unetKeys.fromDiffusers(keys);
    assert.is(rows.length, keys.length);
    assert.is(new Set(rows.map(({ single }) => single)).size, keys.length);
    assert.equal(sorted(unetKeys.fromSingle(rows.map(({ single }) => single))), sorted(rows));
  }
});

test("OpenAI's text encoder keeps its keys but for the table of positions; the older form gets its text_model", () => {
  const weight = 'text_model.final_layer_norm.weight';
  const rows = [{ single: weight, diffusers: weight }];
  assert.equal(clipKeys.fromSingle(['text_model.embeddings.position_ids', weight]), rows);
  assert.equal(clipKeys.fromDiffusers(['text_model.embeddings.position_ids', weight]), rows);
  assert.is(clipKeys.fromSingle(['final_layer_norm.weight'])[0].diffusers, weight);
});

test('keys of no map have no row', () => {
  for (const map of [unetKeys, vaeKeys, openClipKeys]) {
    for (const key of [
      'logit_scale',
      'model.weight',
      '',
      'input_blocks.x.0',
      'decoder',
      'transformer.resblocks.0.ln_3.weight',
    ]) {
      assert.equal(map.fromSingle([key]), [], key);
      assert.equal(map.fromDiffusers([key]), [], key);
    }
  }
});

test.run();
