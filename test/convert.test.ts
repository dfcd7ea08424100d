import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { convertModel } from '../src/flow/recipe/convert-model.ts';
import { openModelParts } from '../src/flow/recipe/model-parts.ts';
import { openModule, readJson, writeJson } from '../src/flow/recipe/model-folder.ts';
import {
  AutoencoderKL,
  CLIPTextModel,
  outlineOf,
  UNet2DConditionModel,
  type Module,
  type StateDict,
} from '../src/nn/index.ts';
import { loadWeights } from '../src/nn/load.ts';
import { inferConfig } from '../src/nn/single-file/configs.ts';
import type { Family, PartName } from '../src/nn/single-file/model.ts';
import { useGpu } from '../src/tensor/index.ts';
import { writeTensors } from '../src/tensor/io/files-node.ts';
import { findWeights, openWeights } from '../src/tensor/io/weights-node.ts';
import type { Dtype } from '../src/tensor/io/safetensors.ts';
import { byteLength, type WeightSource } from '../src/tensor/io/weights.ts';
import { testGpu } from './check-op.ts';
import { refuses } from './refuses.ts';
import { torchFile, type SavedTensor } from './torch-writer.ts';

const test = suite('convert');
const folder = await mkdtemp(join(tmpdir(), 'rectiflow-test-'));
test.before(async () => void useGpu(await testGpu()));
test.after(() => rm(folder, { recursive: true }));
const at = (...names: string[]) => join(folder, ...names);

const unet = {
  block_out_channels: [16, 24],
  layers_per_block: 2,
  down_block_types: ['CrossAttnDownBlock2D', 'DownBlock2D'],
  up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D'],
  cross_attention_dim: 12,
  attention_head_dim: 2,
  norm_num_groups: 4,
};
const xl = {
  use_linear_projection: true,
  addition_embed_type: 'text_time' as const,
  addition_time_embed_dim: 8,
  projection_class_embeddings_input_dim: 60,
};
const vae = { block_out_channels: [8, 16], layers_per_block: 1, norm_num_groups: 4 };
const clip = {
  vocab_size: 50,
  hidden_size: 12,
  intermediate_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  max_position_embeddings: 7,
  projection_dim: 12,
};
type Made = Module & { config: object };
const text2 = () => new CLIPTextModel({ ...clip, hidden_act: 'gelu' }, { projection: true });
const families: Record<Family, Partial<Record<PartName, () => Made>>> = {
  sd1: {
    unet: () => new UNet2DConditionModel(unet),
    vae: () => new AutoencoderKL(vae),
    text_encoder: () => new CLIPTextModel(clip),
  },
  sdxl: {
    unet: () => new UNet2DConditionModel({ ...unet, ...xl }),
    vae: () => new AutoencoderKL(vae),
    text_encoder: () => new CLIPTextModel(clip),
    text_encoder_2: text2,
  },
  'sdxl-refiner': {
    unet: () => new UNet2DConditionModel({ ...unet, ...xl }),
    vae: () => new AutoencoderKL(vae),
    text_encoder_2: text2,
  },
};

/** A diffusers folder of generated weights, by `write`. */
async function makeFolder(
  name: string,
  family: Family,
  write: (folder: string, part: string, state: StateDict) => Promise<void> = asSafetensors('F32'),
): Promise<string> {
  await mkdir(at(name, 'scheduler'), { recursive: true });
  await writeJson(at(name, 'model_index.json'), { _class_name: 'StableDiffusionPipeline' });
  await writeJson(at(name, 'scheduler', 'scheduler_config.json'), { _class_name: 'DDIMScheduler' });
  for (const [part, make] of Object.entries(families[family])) {
    using model = make().initialize(part.length);
    await mkdir(at(name, part));
    await writeJson(at(name, part, 'config.json'), model.config);
    await write(at(name, part), part, await model.stateDict());
    if (!part.startsWith('text')) continue;
    await mkdir(at(name, part.replace('text_encoder', 'tokenizer')));
    await writeFile(at(name, part.replace('text_encoder', 'tokenizer'), 'vocab.json'), '{}');
  }
  return at(name);
}

const stemOf = (part: string) => (part.startsWith('text') ? 'model' : 'diffusion_pytorch_model');

const asSafetensors = (dtype: Dtype) => async (folder: string, part: string, state: StateDict) => {
  for (const tensor of Object.values(state)) tensor.dtype = dtype;
  await writeTensors(join(folder, `${stemOf(part)}.safetensors`), state, { format: 'pt' });
};

const saved = (state: StateDict, rename = (key: string) => key): Record<string, SavedTensor> =>
  Object.fromEntries(
    Object.entries(state).map(([key, { shape, data }]) => [
      rename(key),
      { dtype: 'F32', shape, bytes: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) },
    ]),
  );

const asBin = (rename?: (key: string) => string) => async (folder: string, part: string, state: StateDict) => {
  const name = part.startsWith('text') ? 'pytorch_model' : 'diffusion_pytorch_model';
  await writeFile(join(folder, `${name}.bin`), torchFile(saved(state, rename)));
};

/** Every tensor of a source, bit for bit. */
async function bits(source: WeightSource): Promise<Record<string, string>> {
  const all: Record<string, string> = {};
  for (const key of [...source.entries.keys()].sort()) {
    const { dtype, shape } = source.entries.get(key)!;
    all[key] = `${dtype} [${shape}] ${Buffer.from(await source.read(key)).toString('base64')}`;
  }
  await source.close();
  return all;
}
const partBits = async (model: string, part: string) => bits(await openWeights(await findWeights(join(model, part))));

async function sameModels(a: string, b: string, family: Family): Promise<void> {
  for (const part of Object.keys(families[family]))
    assert.equal(await partBits(a, part), await partBits(b, part), part);
}

for (const family of Object.keys(families) as Family[]) {
  test(`${family}: folder → single file → folder → single file, bit for bit`, async () => {
    const original = await makeFolder(family, family);
    const single = at(`${family}.safetensors`);
    const done = await convertModel(original, single);
    assert.match(done.what, new RegExp(`a diffusers folder \\(${family}\\) → a single file`));
    assert.equal([done.left, done.lacking], [[], []]);
    const back = await convertModel(single, at(`${family}-back`), { config: original });
    assert.equal([back.left, back.lacking], [[], []]);
    await sameModels(original, at(`${family}-back`), family);
    assert.equal(
      await readJson(at(`${family}-back`, 'unet', 'config.json')),
      await readJson(at(family, 'unet', 'config.json')),
    );
    assert.is(
      (await readJson(at(`${family}-back`, 'scheduler', 'scheduler_config.json')))._class_name,
      'DDIMScheduler',
    );
    await convertModel(at(`${family}-back`), at(`${family}-again.safetensors`));
    assert.equal(await readFile(at(`${family}-again.safetensors`)), await readFile(single));
    for (const [part, make] of Object.entries(families[family])) {
      using opened = await openModule(at(`${family}-back`), part, () => make());
      using first = make().initialize(part.length);
      assert.equal(await opened.stateDict(), await first.stateDict(), part);
    }
  });
}

test('a model is opened by its parts from a folder and from a single file alike', async () => {
  for (const family of Object.keys(families) as Family[]) {
    for (const path of [at(family), at(`${family}.safetensors`)]) {
      const model = await openModelParts(path);
      assert.is(model.family, family);
      assert.equal(Object.keys(model.sources).sort(), Object.keys(families[family]).sort());
      for (const [part, make] of Object.entries(families[family]) as [PartName, () => Made][]) {
        using loaded = make();
        using first = make().initialize(part.length);
        await loadWeights(loaded, model.sources[part]!);
        assert.equal(await loaded.stateDict(), await first.stateDict(), part);
      }
      const { block_out_channels: channels, cross_attention_dim: text } = await model.config('unet');
      assert.equal([channels, text], [unet.block_out_channels, unet.cross_attention_dim]);
      await model.close();
    }
  }
  await refuses(openModelParts(at('none')), /no such file or folder/);
  await refuses(openModelParts(at('sd1', 'unet')), /is not a whole model\n {2}missing: unet, vae/);
  await refuses(
    openModelParts(at('sd1', 'vae', 'diffusion_pytorch_model.safetensors')),
    /not a whole model in one file/,
  );
});

test('the matrices of a single file are fused, turned and reshaped', async () => {
  const { entries, close } = await openWeights(at('sdxl.safetensors'));
  const shape = (key: string) => entries.get(key)?.shape;
  assert.equal(shape('conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_weight'), [36, 12]);
  assert.equal(shape('conditioner.embedders.1.model.text_projection'), [12, 12]);
  assert.equal(shape('first_stage_model.decoder.mid.attn_1.q.weight'), [16, 16, 1, 1]);
  assert.equal(shape('conditioner.embedders.0.transformer.text_model.final_layer_norm.bias'), [12]);
  assert.equal(shape('model.diffusion_model.label_emb.0.0.weight'), [64, 60]);
  await close();
});

test('a .bin set, with the old names of the VAE, becomes the same safetensors and the same single file', async () => {
  const old: Record<string, string> = { to_q: 'query', to_k: 'key', to_v: 'value', 'to_out.0': 'proj_attn' };
  const rename = (key: string) =>
    key.includes('coder.mid_block.attentions') ? key.replace(/to_(q|k|v|out\.0)/, (name) => old[name]) : key;
  const bin = await makeFolder('bin', 'sd1', asBin(rename));
  await convertModel(bin, at('bin-safe'));
  await sameModels(at('sd1'), at('bin-safe'), 'sd1');
  assert.equal((await readdir(at('bin-safe', 'vae'))).sort(), ['config.json', 'diffusion_pytorch_model.safetensors']);
  await convertModel(bin, at('bin.safetensors'));
  assert.equal(
    await bits(await openWeights(at('bin.safetensors'))),
    await bits(await openWeights(at('sd1.safetensors'))),
  );
  using model = await openModule(bin, 'vae', () => new AutoencoderKL(vae));
  using want = new AutoencoderKL(vae).initialize(3);
  assert.equal(await model.stateDict(), await want.stateDict());
});

test('a .ckpt with its weights under state_dict becomes a folder; what has no place there is named', async () => {
  const source = await openWeights(at('sd1.safetensors'));
  const tensors: Record<string, SavedTensor> = {};
  for (const [key, { dtype, shape }] of source.entries) tensors[key] = { dtype, shape, bytes: await source.read(key) };
  await source.close();
  const one = { dtype: 'F32' as const, shape: [1], bytes: new Uint8Array(4) };
  const ids = { dtype: 'I64' as const, shape: [1, 7], bytes: new Uint8Array(56) };
  const positions = 'cond_stage_model.transformer.text_model.embeddings.position_ids';
  await writeFile(
    at('sd1.ckpt'),
    torchFile({ ...tensors, 'model_ema.decay': one, [positions]: ids }, { under: 'state_dict' }),
  );
  const { left, lacking } = await convertModel(at('sd1.ckpt'), at('ckpt'));
  assert.equal(left, ['model_ema.decay', positions]);
  assert.equal(lacking, ['tokenizer/']);
  await sameModels(at('sd1'), at('ckpt'), 'sd1');
  assert.is((await readJson(at('ckpt', 'scheduler', 'scheduler_config.json')))._class_name, 'PNDMScheduler');
  assert.equal((await readJson(at('ckpt', 'model_index.json'))).unet, ['diffusers', 'UNet2DConditionModel']);
  await convertModel(at('sd1.ckpt'), at('ckpt.safetensors'));
  const same = await bits(await openWeights(at('ckpt.safetensors')));
  assert.is(Object.keys(same).length, Object.keys(tensors).length + 2);
  assert.is(same[positions], `I64 [1,7] ${Buffer.alloc(56).toString('base64')}`);
});

test('f16 → f32 → f16 loses nothing; numbers beyond f16 are told of', async () => {
  await makeFolder('half', 'sd1', asSafetensors('F16'));
  await convertModel(at('half'), at('half-32'), { dtype: 'F32' });
  await convertModel(at('half-32'), at('half-16'), { dtype: 'F16' });
  await sameModels(at('half'), at('half-16'), 'sd1');
  await writeTensors(at('large.safetensors'), {
    fine: { shape: [1], data: Float32Array.of(65504) },
    beyond: { shape: [2], data: Float32Array.of(1, 1e6) },
  });
  const to = (dtype: 'F16' | 'BF16') =>
    convertModel(at('large.safetensors'), at(`large-${dtype}.safetensors`), { dtype });
  assert.equal((await to('F16')).infinite, ['beyond']);
  assert.equal((await to('BF16')).infinite, []);
});

test('one file ↔ shards, in a folder of one part too', async () => {
  const size = 20_000;
  await convertModel(at('sd1', 'unet'), at('part'), { maxShardSize: size });
  const names = await readdir(at('part'));
  assert.ok(
    names.includes('diffusion_pytorch_model.safetensors.index.json') && names.includes('config.json'),
    names.join(),
  );
  for (const name of names.filter((name) => name.endsWith('.safetensors'))) {
    const { entries, close } = await openWeights(at('part', name));
    const bytes = [...entries.values()].reduce((sum, info) => sum + byteLength(info), 0);
    assert.ok(entries.size === 1 || bytes <= size, `${name} has ${bytes} bytes`);
    await close();
  }
  await convertModel(at('part'), at('part.safetensors'));
  const whole = await partBits(at('sd1'), 'unet');
  assert.equal(await bits(await openWeights(at('part.safetensors'))), whole);
  await convertModel(at('part', 'diffusion_pytorch_model.safetensors.index.json'), at('indexed.safetensors'));
  assert.equal(await bits(await openWeights(at('indexed.safetensors'))), whole);
});

test('configurations that follow from shapes are those of the published models', () => {
  const entriesOf = (make: () => Module): WeightSource => {
    const rows = [...outlineOf(make).namedParameters()];
    const entries = new Map(rows.map(([key, p]) => [key, { dtype: 'F32' as const, shape: p.checkpointShape }]));
    return {
      name: 'outline',
      entries,
      metadata: {},
      read: () => Promise.reject(new Error('was read')),
      close: async () => {},
    };
  };
  const sd15 = new Map(Object.entries(outlineOf(() => new UNet2DConditionModel()).config));
  const found = inferConfig(
    'unet',
    entriesOf(() => new UNet2DConditionModel()),
    'sd1',
  );
  for (const [field, value] of Object.entries(found)) {
    if (field === '_class_name') continue;
    const want = field === 'transformer_layers_per_block' ? [1, 1, 1, 1] : sd15.get(field);
    assert.equal(value, want, field);
  }
  const refiner = {
    block_out_channels: [384, 768, 1536, 1536],
    down_block_types: ['DownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D'],
    up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'UpBlock2D'],
    cross_attention_dim: 1280,
    transformer_layers_per_block: 4,
    attention_head_dim: [6, 12, 24, 24],
    use_linear_projection: true,
    addition_embed_type: 'text_time' as const,
    addition_time_embed_dim: 256,
    projection_class_embeddings_input_dim: 2560,
  };
  const source = entriesOf(() => new UNet2DConditionModel(refiner));
  const config = inferConfig('unet', source, 'sdxl-refiner');
  assert.equal(config.attention_head_dim, refiner.attention_head_dim);
  assert.equal(config.up_block_types, refiner.up_block_types);
  assert.equal(entriesOf(() => new UNet2DConditionModel(config)).entries, source.entries);
  const {
    _class_name: _,
    sample_size,
    ...vaeConfig
  } = inferConfig(
    'vae',
    entriesOf(() => new AutoencoderKL()),
    'sdxl',
  ) as any;
  assert.is(sample_size, 1024);
  assert.is(vaeConfig.scaling_factor, 0.13025);
  assert.equal(vaeConfig.block_out_channels, [128, 256, 512, 512]);
  const text = inferConfig(
    'text_encoder',
    entriesOf(() => new CLIPTextModel()),
    'sd1',
  ) as any;
  assert.equal(
    [text.hidden_size, text.num_attention_heads, text.num_hidden_layers, text.intermediate_size, text.hidden_act],
    [768, 12, 12, 3072, 'quick_gelu'],
  );
});

test('what cannot be converted is said, and nothing is left behind', async () => {
  const before = (await readdir(folder)).sort();
  const to = at('never.safetensors');
  for (const [from, out, message] of [
    [at('none'), to, /none: no such file or folder/],
    [at('sd1'), at('sd1'), /input and output are the same/],
    [at('sd1'), at('x.ckpt'), /\.ckpt is not written\n {2}give a name that ends in \.safetensors/],
    [at('sd1'), at('sd1.safetensors'), /is there already\n {2}replace it with --overwrite/],
    [at('sd1'), at('no', 'such', 'x.safetensors'), /there is no folder .*such/],
    [at('sd1', 'scheduler'), to, /no weights\n {2}it has: scheduler_config\.json/],
    ['test/data/torch/evil.pt', to, /refused: its pickle asks for posix\.system/],
  ] as [string, string, RegExp][]) {
    await refuses(convertModel(from, out), message);
  }
  await writeTensors(at('sd2.safetensors'), {
    'model.diffusion_model.out.2.bias': { shape: [4], data: new Float32Array(4) },
    'cond_stage_model.model.ln_final.bias': { shape: [4], data: new Float32Array(4) },
  });
  await refuses(
    convertModel(at('sd2.safetensors'), at('sd2')),
    /a Stable Diffusion 2 checkpoint, which is not read here/,
  );
  await rm(at('sd2.safetensors'));
  await makeFolder('lame', 'sdxl');
  await rm(at('lame', 'vae'), { recursive: true });
  await refuses(convertModel(at('lame'), to), /a single file needs vae\n {2}found: text_encoder, text_encoder_2, unet/);
  await rm(at('lame'), { recursive: true });
  assert.equal((await readdir(folder)).sort(), before);
});

test('the command says what it did, and what it left out', () => {
  const run = (...argv: string[]) => spawnSync(process.execPath, ['cli', 'convert', ...argv], { encoding: 'utf8' });
  const good = run(at('sd1.ckpt'), at('by-command'), '--dtype', 'bf16');
  assert.is(good.status, 0, good.stderr);
  assert.match(
    good.stdout,
    /by-command: a single file \(sd1\) → a diffusers folder, \d+ tensors, [\d.]+ MiB, [\d.]+ s/,
  );
  assert.match(good.stderr, /note: model_ema\.decay, .*position_ids have no place there and were left out/);
  assert.match(good.stderr, /note: tokenizer\/ could not be made: give --config <diffusers folder>/);
  const bad = run(at('sd1.ckpt'), at('by-command'));
  assert.equal([bad.status, /is there already/.test(bad.stderr)], [1, true]);
  assert.is(run(at('sd1.ckpt'), at('by-command'), '--overwrite').status, 0);
  assert.match(
    run(at('sd1'), at('y'), '--max_shard_size', 'big').stderr,
    /must be a size such as 5GB or 500MB, not "big"/,
  );
});

test.run();
