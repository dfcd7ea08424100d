import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Gpu } from '../src/kernels/index.ts';
import { Conv2d, Linear, Module, StateDictError, type StateDict } from '../src/nn/index.ts';
import { loadWeights } from '../src/nn/load.ts';
import { useGpu } from '../src/tensor/index.ts';
import { writeAtomic, writeTensors } from '../src/tensor/io/files-node.ts';
import { sourceChunks } from '../src/tensor/io/safetensors-source.ts';
import { findWeights, openWeights, saveShards, saveWeights } from '../src/tensor/io/weights-node.ts';
import { castBytes, readFloat32, type WeightSource } from '../src/tensor/io/weights.ts';
import type { HostTensor } from '../src/tensor/io/safetensors.ts';
import { testGpu } from './check-op.ts';
import { refuses } from './refuses.ts';
import { tinyUNet } from './tiny-unet.ts';
import { torchFile } from './torch-writer.ts';

const test = suite('weights');
const folder = await mkdtemp(join(tmpdir(), 'rectiflow-test-'));
test.before(async () => void useGpu(await testGpu()));
test.after(() => rm(folder, { recursive: true }));
const at = (...names: string[]) => join(folder, ...names);

const counted = (n: number) => Float32Array.from({ length: n }, (_, i) => i / 8 - 3);
const tensors: Record<string, HostTensor> = {
  a: { shape: [4, 3], data: counted(12) },
  b: { shape: [5], data: counted(5), dtype: 'F16' },
  c: { shape: [2, 2], data: counted(4), dtype: 'BF16' },
  d: { shape: [3], data: Float32Array.of(1, 2, 3), dtype: 'I64' },
};
async function bits(source: WeightSource): Promise<Record<string, unknown>> {
  const all: Record<string, unknown> = {};
  for (const [key, { dtype, shape }] of source.entries) {
    all[key] = [dtype, [...shape], Buffer.from(await source.read(key)).toString('hex')];
  }
  return all;
}

test('a file is listed without its data, and read by tensors and rows', async () => {
  await writeTensors(at('x.safetensors'), tensors, { by: 'test' });
  const source = await openWeights(at('x.safetensors'));
  assert.equal(
    new Map([...source.entries].map(([key, { shape }]) => [key, shape])),
    new Map([
      ['d', [3]],
      ['a', [4, 3]],
      ['b', [5]],
      ['c', [2, 2]],
    ]),
  );
  assert.is(source.metadata.by, 'test');
  assert.equal(await readFloat32(source, 'a', [1, 3]), { dtype: 'F32', shape: [2, 3], data: counted(12).slice(3, 9) });
  await refuses(source.read('e'), /no tensor e/);
  await refuses(source.read('a', [3, 5]), /a \[4, 3\] has no rows 3…5/);
  await source.close();
});

test('shards are written with their index and read as one, bit for bit', async () => {
  const source = await openWeights(at('x.safetensors'));
  await mkdir(at('shards'));
  const files = await saveShards(at('shards', 'model.safetensors'), source, 72);
  assert.equal(files, [
    'model-00001-of-00002.safetensors',
    'model-00002-of-00002.safetensors',
    'model.safetensors.index.json',
  ]);
  const index = JSON.parse(await readFile(at('shards', files[2]), 'utf8'));
  assert.equal(index.metadata, { total_size: 24 + 48 + 10 + 8 });
  const shards = await openWeights(at('shards', files[2]));
  assert.equal(await bits(shards), await bits(source));
  await saveWeights(at('one.safetensors'), shards);
  const one = await openWeights(at('one.safetensors'));
  assert.equal(await bits(one), await bits(source));
  for (const each of [source, shards, one]) await each.close();
});

test('an index that lies is refused', async () => {
  const index = (map: unknown) => writeFile(at('shards', 'bad.index.json'), JSON.stringify({ weight_map: map }));
  for (const [map, message] of [
    [{ a: '../x.safetensors' }, /a is in \.\.\/x\.safetensors, which is no file beside the index/],
    [{ a: 7 }, /a is in 7, which is no file/],
    [[], /has no weight_map/],
    [{ a: 'model-00009-of-00002.safetensors' }, /cannot read .*model-00009-of-00002\.safetensors: no such file/],
    [{ z: 'model-00001-of-00002.safetensors' }, /lack what the index says\n {2}z {2}not in model-00001/],
  ] as [unknown, RegExp][]) {
    await index(map);
    await refuses(openWeights(at('shards', 'bad.index.json')), message);
  }
});

test('what is no file of weights says what it is', async () => {
  for (const [text, message] of [
    ['version https://git-lfs.github.com/spec/v1\noid sha256:0\n', /a pointer of Git LFS.*git lfs pull/s],
    ['<!DOCTYPE html><html>', /a web page/],
    ['GGUF\x03\0\0\0', /a GGUF file/],
    ['\x80\x04}.', /a bare pickle/],
    ['hello, I am text', /not a safetensors file/],
    ['', /0 bytes are too short/],
  ] as [string, RegExp][]) {
    await writeFile(at('what'), Buffer.from(text, 'latin1'));
    await refuses(openWeights(at('what')), message);
  }
  await refuses(openWeights(folder), /it is a folder/);
  await refuses(openWeights(at('none.bin')), /no such file/);
});

test('the weights of a folder: safetensors before .bin, the variant that is asked for, or the only one', async () => {
  const put = async (name: string, ...files: string[]) => {
    await mkdir(at(name));
    for (const file of files) await writeFile(at(name, file), '');
  };
  const find = async (name: string, variant?: string) =>
    (await findWeights(at(name), { variant })).slice(at(name).length + 1);
  await put(
    'both',
    'diffusion_pytorch_model.bin',
    'diffusion_pytorch_model.safetensors',
    'diffusion_pytorch_model.fp16.safetensors',
  );
  assert.is(await find('both'), 'diffusion_pytorch_model.safetensors');
  assert.is(await find('both', 'fp16'), 'diffusion_pytorch_model.fp16.safetensors');
  assert.is(await find('both', 'bf16'), 'diffusion_pytorch_model.safetensors');
  await put('half', 'model.fp16.safetensors', 'config.json');
  assert.is(await find('half'), 'model.fp16.safetensors');
  await put('index', 'diffusion_pytorch_model.safetensors.index.fp16.json');
  assert.is(await find('index', 'fp16'), 'diffusion_pytorch_model.safetensors.index.fp16.json');
  await put('old', 'pytorch_model.bin');
  assert.is(await find('old'), 'pytorch_model.bin');
  await put('none', 'config.json');
  await refuses(find('none'), /no weights\n {2}it has: config\.json\n {2}wanted: diffusion_pytorch_model\.safetensors/);
});

test('a dtype that agrees keeps every bit; another rounds to the nearest', () => {
  const nan = Uint8Array.of(1, 0, 0xa0, 0x7f); // a NaN with a payload
  assert.is(castBytes('x', { dtype: 'F32', shape: [1] }, 'F32', nan), nan);
  const cast = (values: number[], to: 'F16' | 'BF16') => [
    ...new Uint16Array(
      castBytes('x', { dtype: 'F32', shape: [2] }, to, new Uint8Array(Float32Array.from(values).buffer)).buffer,
    ),
  ];
  assert.equal(cast([1, 65520], 'F16'), [0x3c00, 0x7c00]);
  assert.equal(cast([1, 1 + 2 ** -8], 'BF16'), [0x3f80, 0x3f80]);
  const ids = new Uint8Array(16);
  assert.is(castBytes('x', { dtype: 'I64', shape: [2] }, 'F16', ids), ids);
});

test('a failure half-way leaves the old file', async () => {
  const source = await openWeights(at('x.safetensors'));
  const before = await readFile(at('one.safetensors'));
  const broken = { ...source, read: () => Promise.reject(new Error('the cable was pulled')) };
  await refuses(writeAtomic(at('one.safetensors'), sourceChunks(broken)), /one\.safetensors: the cable was pulled/);
  assert.equal(await readFile(at('one.safetensors')), before);
  assert.not.ok((await readdir(folder)).some((name) => name.endsWith('.part')));
  await source.close();
});

class Wide extends Module {
  first = new Linear(3001, 2001);
  conv = new Conv2d(64, 5, 3);
  odd = new Linear(3, 1);

  forward(): undefined {}
}

/** The same keys, shapes and bits. */
function sameState(a: StateDict, b: StateDict): void {
  assert.equal(Object.keys(a), Object.keys(b));
  const bytes = ({ data }: HostTensor) => Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  for (const key of Object.keys(a)) {
    assert.equal(a[key].shape, b[key].shape, key);
    assert.ok(bytes(a[key]).equals(bytes(b[key])), `${key} differs`);
  }
}

let random: StateDict;
test('a model with a tensor of several pieces', async () => {
  using model = new Wide().initialize(1);
  random = await model.stateDict();
  assert.ok(random['first.weight'].data.length > 4 << 20);
});

for (const dtype of ['f32', 'f16'] as const) {
  for (const file of ['F32', 'F16', 'BF16', '.bin'] as const) {
    test(`${file} weights arrive in ${dtype} parameters by pieces as they do whole`, async () => {
      const state = structuredClone(random);
      using whole = new Wide().to(dtype);
      using pieces = new Wide().to(dtype);
      if (file === '.bin') {
        const saved = Object.entries(state).map(([key, { shape, data }]) => {
          return [key, { dtype: 'F32' as const, shape, bytes: new Uint8Array(data.buffer) }] as const;
        });
        await writeFile(at('load'), torchFile(Object.fromEntries(saved)));
      } else {
        for (const tensor of Object.values(state)) tensor.dtype = file;
        await writeTensors(at('load'), state);
      }
      const source = await openWeights(at('load'));
      const host: Record<string, HostTensor> = {};
      for (const key of source.entries.keys()) host[key] = await readFloat32(source, key);
      whole.loadStateDict(host);
      const loaded: string[] = [];
      await loadWeights(pieces, source, { progress: (key) => loaded.push(key) });
      assert.equal(loaded, [...pieces.namedParameters().keys()]);
      sameState(await pieces.stateDict(), await whole.stateDict());
      await source.close();
    });
  }
}

test('arrays larger than one binding are filled part by part', async () => {
  await writeTensors(at('parts.safetensors'), random);
  const source = await openWeights(at('parts.safetensors'));
  try {
    useGpu(await Gpu.create({ limits: { maxStorageBufferBindingSize: 1 << 20 } }));
    using split = new Wide();
    assert.ok(split.first.weight.array.parts!.length > 20);
    await loadWeights(split, source);
    sameState(await split.stateDict(), random);
  } finally {
    useGpu(await testGpu());
    await source.close();
  }
});

test('numbers are filled in only where they fit', async () => {
  const gpu = await testGpu();
  const [words, halves] = [gpu.array([4], [1, 2, 3, 4]), gpu.zeros([3], 'f16')];
  await gpu.idle();
  gpu.fill(words, 1, Float32Array.of(7, 8));
  gpu.fill(halves, 2, Uint16Array.of(0x3c00));
  assert.equal([...(await words.read())], [1, 7, 8, 4]);
  assert.equal([...(await halves.read())], [0, 0, 1]);
  assert.throws(() => gpu.fill(words, 3, Float32Array.of(1, 2)), /fill: 2 numbers at 3 do not fit/);
  assert.throws(() => gpu.fill(words, 0, Uint16Array.of(1)), /do not fit/);
  gpu.copy(words, gpu.zeros([4]));
  assert.throws(() => gpu.fill(words, 0, Float32Array.of(1)), /commands wait for the array/);
  words.dispose();
  assert.throws(() => gpu.fill(words, 0, Float32Array.of(1)), /already freed/);
});

test('weights that do not fit are refused before anything is read, with all keys and the nearest ones', async () => {
  using model = tinyUNet().initialize(1);
  const before = await model.stateDict();
  const { 'conv_in.weight': conv, 'time_embedding.linear_1.bias': bias, ...rest } = before;
  await writeTensors(at('wrong.safetensors'), {
    ...rest,
    'conv_in.wieght': conv,
    'time_embedding.linear1.bias': bias,
    'conv_out.weight': { shape: [4, 16, 1, 1], data: new Float32Array(64) },
  });
  const source = await openWeights(at('wrong.safetensors'));
  const untouched = { ...source, read: () => Promise.reject(new Error('was read')) };
  const error: StateDictError = await loadWeights(model, untouched).then(
    () => assert.unreachable(),
    (e) => e,
  );
  assert.instance(error, StateDictError);
  for (const words of [
    'missing: conv_in.weight  (the file has conv_in.wieght)',
    'missing: time_embedding.linear_1.bias  (the file has time_embedding.linear1.bias)',
    'unexpected: conv_in.wieght  (the model has conv_in.weight)',
    'wrong shape: conv_out.weight  file [4, 16, 1, 1]  model [4, 16, 3, 3]',
  ]) {
    assert.ok(error.message.includes(words), `${words}\n${error.message}`);
  }
  assert.equal(error.missing, ['conv_in.weight', 'time_embedding.linear_1.bias']);
  assert.equal(await model.stateDict(), before);
  await source.close();
});

test.run();
