import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { modelFiles } from '../src/flow/recipe/model-files.ts';
import { Meter, size } from '../src/tensor/io/hub/meter.ts';
import { hubSettings } from '../src/tensor/io/hub/settings-node.ts';
import { parseHubId } from '../src/tensor/io/hub-node.ts';

const ids = suite('hub: ids');

for (const [word, id, revision, file] of [
  ['owner/name', 'owner/name', 'main', undefined],
  ['stabilityai/stable-diffusion-xl-base-1.0@v1.0', 'stabilityai/stable-diffusion-xl-base-1.0', 'v1.0', undefined],
  ['a/b@refs/pr/1', 'a/b', 'refs/pr/1', undefined],
  ['a/b/c.safetensors', 'a/b', 'main', 'c.safetensors'],
  ['a/b.ckpt/sub dir/c (1).ckpt@x', 'a/b.ckpt', 'x', 'sub dir/c (1).ckpt'],
] as const)
  ids(`${word} is one`, () => assert.equal(parseHubId(word), { id, revision, ...(file ? { file } : {}) }));

for (const word of [
  'name',
  './a/b',
  '../a/b',
  '/a/b',
  'a/b/c',
  'a\\b',
  'a/../b',
  'a/b@../../x',
  'a/b@x//y',
  'a/b@',
  'a/../../x.ckpt',
  'a/b/../x.ckpt',
  'a--b/c',
  'a/b.git',
  '.a/b',
  `a/${'b'.repeat(97)}`,
  'https://huggingface.co/a/b',
  '',
])
  ids(`${JSON.stringify(word.slice(0, 30))} is none`, () => assert.is(parseHubId(word), undefined));

ids.run();

const settings = suite('hub: settings');
const folder = mkdtempSync(join(tmpdir(), 'rectiflow-settings-'));
settings.after(() => rmSync(folder, { recursive: true, force: true }));

settings('the cache is where Python has it', () => {
  const cache = (env: Record<string, string>) => hubSettings(env).cache;
  assert.is(cache({}), join(homedir(), '.cache', 'huggingface', 'hub'));
  assert.is(cache({ XDG_CACHE_HOME: '/x' }), '/x/huggingface/hub');
  assert.is(cache({ XDG_CACHE_HOME: '/x', HF_HOME: '~/hf' }), join(homedir(), 'hf', 'hub'));
  assert.is(cache({ HF_HOME: '/h', HUGGINGFACE_HUB_CACHE: '/old' }), '/old');
  assert.is(
    cache({ HF_HOME: '/h', HUGGINGFACE_HUB_CACHE: '/old', HF_HUB_CACHE: '$HERE/new' }),
    join(process.cwd(), '$HERE/new'),
  );
  assert.is(cache({ HERE: '/here', HF_HUB_CACHE: '${HERE}/new' }), '/here/new');
});

settings('the token is of the environment, else of the file that a login leaves', () => {
  writeFileSync(join(folder, 'token'), 'hf_file\n');
  const token = (env: Record<string, string>) => {
    const { token, tokenFrom } = hubSettings({ HF_HOME: folder, ...env });
    return [token, tokenFrom];
  };
  assert.equal(token({}), ['hf_file', join(folder, 'token')]);
  assert.equal(token({ HF_TOKEN: ' hf_env\r\n' }), ['hf_env', 'HF_TOKEN']);
  assert.equal(token({ HUGGING_FACE_HUB_TOKEN: 'hf_old' }), ['hf_old', 'HUGGING_FACE_HUB_TOKEN']);
  assert.equal(token({ HF_TOKEN: '' }), ['hf_file', join(folder, 'token')]);
  assert.equal(token({ HF_HUB_DISABLE_IMPLICIT_TOKEN: '1' }), [undefined, undefined]);
  assert.equal(token({ HF_TOKEN_PATH: join(folder, 'none') }), [undefined, undefined]);
  assert.throws(() => token({ HF_TOKEN: 'hf_a b' }), /token of HF_TOKEN has spaces/);
});

settings('the endpoint is a web address without a slash at its end', () => {
  assert.is(hubSettings({}).endpoint, 'https://huggingface.co');
  assert.is(hubSettings({ HF_ENDPOINT: 'http://mirror/hub//' }).endpoint, 'http://mirror/hub');
  for (const HF_ENDPOINT of ['mirror', 'ftp://mirror', 'file:///x'])
    assert.throws(() => hubSettings({ HF_ENDPOINT }), /HF_ENDPOINT is no web address/);
});

settings('offline is said in the words of Python', () => {
  for (const value of ['1', 'ON', 'yes', 'True']) assert.ok(hubSettings({ HF_HUB_OFFLINE: value }).offline, value);
  for (const value of ['0', 'off', '', 'no']) assert.not.ok(hubSettings({ HF_HUB_OFFLINE: value }).offline, value);
  assert.ok(hubSettings({ TRANSFORMERS_OFFLINE: '1' }).offline);
  assert.is(hubSettings({ HF_HUB_DOWNLOAD_TIMEOUT: '60' }).timeout, 60);
  assert.is(hubSettings({ HF_HUB_DOWNLOAD_TIMEOUT: 'x' }).timeout, 10);
});

settings.run();

const files = suite('hub: files of a model');
const unet = { unet: ['diffusers', 'UNet2DConditionModel'] };
const chosen = (names: string[], variant?: string) =>
  modelFiles(['model_index.json', 'unet/config.json', ...names.map((name) => `unet/${name}`)], unet, { variant });
const weights = (names: string[], variant?: string) =>
  chosen(names, variant)
    .files.slice(2)
    .map((name) => name.slice(5));
const W = 'diffusion_pytorch_model';

files('safetensors before pickles, plain before variants', () => {
  const all = [`${W}.bin`, `${W}.fp16.bin`, `${W}.fp16.safetensors`, `${W}.non_ema.safetensors`, `${W}.safetensors`];
  assert.equal(weights([...all, 'model.onnx', 'flax_model.msgpack', 'openvino_model.bin']), [`${W}.safetensors`]);
  assert.equal(weights(all, 'fp16'), [`${W}.fp16.safetensors`]);
  assert.equal(weights(all, 'non_ema'), [`${W}.non_ema.safetensors`]);
  assert.equal(weights(all.slice(0, 2), 'fp16'), [`${W}.fp16.bin`]);
  assert.equal(weights(all.slice(0, 1)), [`${W}.bin`]);
});

files('the only variant there is stands in, and that is said', () => {
  assert.equal(weights([`${W}.bf16.safetensors`, `${W}.fp16.safetensors`]), [`${W}.fp16.safetensors`]);
  assert.is(chosen([`${W}.fp16.safetensors`]).exact, false);
  assert.is(chosen([`${W}.safetensors`]).exact, true);
  assert.throws(() => chosen([`${W}.safetensors`], 'fp16'), /no weights of variant fp16\n {2}there is only one/);
});

files('shards come with their index, and only all of them count', () => {
  const shards = [1, 2].map((i) => `${W}-0000${i}-of-00002.safetensors`);
  const index = `${W}.safetensors.index.json`;
  assert.equal(weights([...shards, index]), [index, ...shards]);
  assert.throws(() => weights([shards[0], index]), /not a whole model\n {2}missing: unet/);
  assert.throws(() => weights(shards), /missing: unet/);
  for (const half of [
    shards.map((name) => name.replace(W, `${W}.fp16`)),
    shards.map((name) => name.replace(/\.s/, '.fp16.s')),
  ]) {
    const fp16 = `${W}.safetensors.index.fp16.json`;
    assert.equal(weights([...shards, index, ...half, fp16], 'fp16'), [fp16, ...half]);
  }
});

files('what is missing is named, part by part', () => {
  const index = {
    ...unet,
    vae: ['diffusers', 'AutoencoderKL'],
    tokenizer: ['transformers', 'CLIPTokenizer'],
    scheduler: ['diffusers', 'PNDMScheduler'],
    safety_checker: [null, null],
  };
  assert.throws(
    () => modelFiles(['model_index.json', 'tokenizer/vocab.json', `unet/${W}.safetensors`], index),
    /missing: unet, vae, tokenizer, scheduler$/,
  );
});

files('the safety checker is left out unless asked for', () => {
  const index = { ...unet, safety_checker: ['stable_diffusion', 'StableDiffusionSafetyChecker'] };
  const names = [
    'model_index.json',
    'unet/config.json',
    `unet/${W}.bin`,
    'safety_checker/config.json',
    'safety_checker/model.safetensors',
  ];
  assert.equal(modelFiles(names, index).files, names.slice(0, 3));
  assert.equal(modelFiles(names, index, { safetyChecker: true }).files, names);
});

files('without model_index.json: one network, or one file', () => {
  assert.equal(modelFiles(['config.json', `${W}.safetensors`, `${W}.fp16.safetensors`], undefined).files, [
    'config.json',
    `${W}.safetensors`,
  ]);
  assert.equal(modelFiles(['README.md', 'pytorch_lora_weights.safetensors'], undefined), {
    files: ['pytorch_lora_weights.safetensors'],
    file: 'pytorch_lora_weights.safetensors',
    exact: true,
  });
  assert.throws(
    () => modelFiles(['a.ckpt', 'b.safetensors'], undefined),
    /files of weights: a.ckpt, b.safetensors\n {2}name one of them/,
  );
  assert.throws(() => modelFiles(['README.md'], undefined), /no model_index.json\n {2}no files of weights either/);
});

files.run();

const meter = suite('hub: progress');

meter('the rate is of the last ten seconds, and of what came', () => {
  let now = 0;
  const m = new Meter(10_000, () => now);
  m.add(5000, 'disk');
  for (now = 1; now <= 4; now++) m.add(100, 'hub');
  now = 4;
  assert.equal(m.progress, { done: 5400, total: 10_000, rate: 100, remaining: 46 });
  for (now = 5; now <= 30; now++) m.add(10, 'hub');
  now = 30;
  assert.ok(Math.abs(m.progress.rate - 10) < 1, `${m.progress.rate}`);
  assert.is(new Meter(5, () => 0).progress.remaining, Infinity);
});

meter('sizes are in powers of ten', () => {
  assert.equal([0, 999, 1000, 99_949, 123_456, 3_438_354_725].map(size), [
    '0 bytes',
    '999 bytes',
    '1.0 kB',
    '99.9 kB',
    '123 kB',
    '3.4 GB',
  ]);
});

meter.run();
