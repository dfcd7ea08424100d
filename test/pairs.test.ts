import { spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'; // prettier-ignore
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { arrayTask } from '../src/cli/array-task.ts';
import { contradictions } from '../src/cli/train-flags.ts';
import { channelsFirst, seededNoise } from '../src/flow/latents.ts';
import { generatePairs } from '../src/flow/recipe/pairs/generate.ts';
import type { PairHooks, PairRequest } from '../src/flow/recipe/pairs/request.ts';
import { PairSet } from '../src/flow/recipe/pairs/pair-set.ts';
import { readPrompts } from '../src/flow/recipe/pairs/prompts.ts';
import { teacherHash } from '../src/flow/recipe/pairs/teacher.ts';
import { convertModel } from '../src/flow/recipe/convert-model.ts';
import { openModelFolder, saveModule } from '../src/flow/recipe/model-folder.ts';
import { AutoencoderKL, CLIPTextModel, UNet2DConditionModel } from '../src/nn/index.ts';
import { init } from '../src/tensor/index.ts';
import { decodeNpy, encodeNpy } from '../src/tensor/io/npy.ts';
import { refuses } from './refuses.ts';
import { skip } from './skip.ts';
import { text, tinyPipeline, tokenizer, unet } from './tiny-pipeline.ts';

const test = suite('pairs');
const gpu = await init();
const root = mkdtempSync(join(tmpdir(), 'rectiflow-pairs-'));
test.after(() => {
  if (mounted) spawnSync('umount', [disk]);
  rmSync(root, { recursive: true, force: true });
  gpu.destroy();
});

const pipeline = tinyPipeline();
const flow = tinyPipeline(4, { _class_name: 'RectifiedFlow' });

const prompts = ['a cat on a boat', 'soft light', 'a boat', 'a cat'];
const teacher = { model: 'a test', sha256: 'a'.repeat(64) };
const usual = { pipeline, which: 'unet', teacher, prompts, count: 14, steps: 3, batchSize: 4, shardSize: 8 } as const;
let folders = 0;
const fresh = () => join(root, String(folders++));
const generate = (folder: string, more: Partial<PairRequest> = {}, hooks?: PairHooks) =>
  generatePairs(folder, { ...usual, ...more }, hooks);
const file = (folder: string, shard: number, end = '') => join(folder, `pairs-00000${shard}.tar${end}`);
const bytes = (folder: string) => [0, 1].map((shard) => readFileSync(file(folder, shard)).toString('base64'));
const lines = (folder: string) =>
  readFileSync(join(folder, 'manifest.jsonl'), 'utf8').trim().split('\n').map((line) => JSON.parse(line)); // prettier-ignore

const whole = fresh();
await generate(whole);

test('a .npy file is what numpy writes, in halves and in floats', () => {
  const data = Float32Array.from({ length: 24 }, (_, i) => i / 8);
  const half = encodeNpy(data, [2, 3, 4], 'F16');
  const header = "{'descr': '<f2', 'fortran_order': False, 'shape': (2, 3, 4), }";
  assert.is(Buffer.from(half.subarray(0, 128)).toString('latin1'), `\x93NUMPY\x01\0v\0${header.padEnd(117)}\n`);
  assert.is(half.length, 128 + 48);
  for (const dtype of ['F16', 'F32'] as const)
    assert.equal(decodeNpy(encodeNpy(data, [2, 3, 4], dtype), 'x'), { shape: [2, 3, 4], dtype, data });
  assert.equal(decodeNpy(encodeNpy(data, [24], 'F32'), 'x').shape, [24]);
  assert.throws(() => decodeNpy(half.subarray(0, 100), 'x.npy'), /x\.npy: /);
  assert.throws(() => decodeNpy(half.subarray(0, 150), 'x.npy'), /x\.npy: has 22 bytes of numbers, its shape wants 48/);
  assert.throws(() => decodeNpy(new TextEncoder().encode('hello, I am text'), 'x.npy'), /not a \.npy file/);
});

test('a shard is a tar of WebDataset samples that other tools read', () => {
  const out = fresh();
  mkdirSync(out);
  assert.is(spawnSync('tar', ['xf', file(whole, 1), '-C', out]).status, 0);
  const names = readdirSync(out).sort();
  assert.equal(names.slice(0, 4), ['000000008.json', '000000008.latents.npy', '000000008.txt', '000000009.json']);
  assert.is(names.length, 6 * 3);
  assert.is(readFileSync(join(out, '000000009.txt'), 'utf8'), prompts[1]);
  const facts = { seed: 9, prompt: prompts[1], teacher: 'a'.repeat(16), scheduler: 'DPMSolverMultistep' };
  assert.equal(JSON.parse(readFileSync(join(out, '000000009.json'), 'utf8')), {
    ...facts,
    ...{ steps: 3, guidance_scale: 5, dtype: 'f32', batch_size: 4 },
  });
  const { shape, dtype } = decodeNpy(readFileSync(join(out, '000000009.latents.npy')), 'x');
  assert.equal([shape, dtype], [[4, 8, 8], 'F16']);
});

test("pairs are a diffusion's own samples by DPM-Solver++ and a flow's by its solver, in the order of PyTorch", async () => {
  for (const [pipeline, scheduler, guidanceScale] of [
    [undefined, 'dpm++', 5],
    [flow, 'adams-bashforth', 1.5],
  ] as const) {
    const folder = fresh();
    await generate(folder, { ...(pipeline ? { pipeline } : {}), latentsDtype: 'f32', storeNoise: true, firstSeed: 70 });
    using set = await PairSet.open(folder);
    assert.equal([set.length, set.shape, set.seeds.slice(0, 2)], [14, [8, 8, 4], [70, 71]]);
    const numbers = [12, 3];
    const { x0, x1, prompts: texts } = set.batch(numbers);
    assert.equal(texts, [prompts[0], prompts[3]]);
    assert.equal(x0.subarray(256), seededNoise(73, set.shape));
    // In the batches that the generator had.
    for (const [i, [first, last]] of [
      [12, 14],
      [0, 4],
    ].entries()) {
      // prettier-ignore
      const part = Array.from({ length: last - first }, (_, j) => prompts[(first + j) % 4]);
      const options = { prompts: part, seeds: 70 + first, steps: 3, guidanceScale, scheduler };
      const { latents } = await (pipeline ?? usual.pipeline).sample(options);
      const at = numbers[i] - first;
      assert.equal(x1.subarray(256 * i, 256 * (i + 1)), latents.subarray(256 * at, 256 * (at + 1)));
    }
    const tar = spawnSync('tar', ['xOf', file(folder, 0), '000000003.noise.npy']);
    assert.equal(decodeNpy(tar.stdout, 'x').data, channelsFirst(seededNoise(73, set.shape), set.shape));
  }
});

test('a shard that is lost is made again, byte for byte, and nothing else is', async () => {
  const folder = fresh();
  cpSync(whole, folder, { recursive: true });
  rmSync(file(folder, 0));
  const said: string[] = [];
  const { made } = await generate(folder, { batchSize: 3 }, { say: (line) => said.push(line) });
  assert.is(made, 8);
  assert.equal(said, ['pairs-000000.tar: in batches of 4, as it was begun', 'pairs-000000.tar: 8 pairs']);
  assert.equal(bytes(folder), bytes(whole));
  assert.equal(
    lines(folder).sort((a, b) => a.first_sample - b.first_sample),
    lines(whole),
  );
});

test('two workers at once make what one makes, and one manifest', async () => {
  const folder = fresh();
  const results = await Promise.all([0, 1].map((index) => generate(folder, { worker: { index, count: 2 } })));
  assert.equal(results.map(({ made, finished }) => [made, finished]), [[8, true], [6, true]]); // prettier-ignore
  assert.equal(bytes(folder), bytes(whole));
  assert.is(lines(folder).length, 2);
});

test('a shard that was cut off anywhere comes out with the same bytes', async () => {
  const full = readFileSync(file(whole, 0));
  for (let i = 0; i < 10; i++) {
    const folder = fresh();
    mkdirSync(folder);
    writeFileSync(file(folder, 0, '.part'), full.subarray(0, Math.floor((full.length * (i + (i % 3) / 7)) / 10)));
    await generate(folder, { count: 8 });
    assert.ok(readFileSync(file(folder, 0)).equals(full), `cut ${i}`);
    assert.equal(readdirSync(folder).sort(), ['manifest.jsonl', 'pairs-000000.tar']);
  }
});

test('one that the manifest has not heard of is taken up; a set can grow, and stop early', async () => {
  const folder = fresh();
  mkdirSync(folder);
  cpSync(file(whole, 0), file(folder, 0));
  assert.is((await generate(folder, { count: 8 })).made, 0);
  assert.is((await generate(folder)).made, 6);
  assert.equal(bytes(folder), bytes(whole));
  const early = fresh();
  const result = await generate(early, { minutes: 0 });
  assert.equal([result.made, result.finished, result.complete], [4, true, true]);
  const after = await generate(early, { minutes: 0 });
  assert.equal(
    [after.made, after.finished, after.samples],
    [0, true, 4],
    'a limit that has ended it goes on ending it',
  );
  using set = await PairSet.open(early);
  assert.is(set.length, 4);
  assert.is((await generate(early)).made, 10);
  assert.equal(bytes(early), bytes(whole));
});

test('a signal stops after the batch, and the rest follows', async () => {
  const folder = fresh();
  const stop = new AbortController();
  const first = await generate(folder, {}, { signal: stop.signal, progress: () => stop.abort() });
  assert.equal([first.made, first.finished, first.samples], [4, false, 0]);
  const said: string[] = [];
  await generate(folder, {}, { say: (line) => said.push(line) });
  assert.is(said[0], 'pairs-000000.tar: going on after 4 of 8');
  assert.equal(bytes(folder), bytes(whole));
});

test('pairs that are not finite or not within the limits are left out and counted', async () => {
  const broken = tinyPipeline();
  const { weight } = broken.parts.textEncoder.text_model.embeddings.token_embedding;
  const numbers = (await weight.read()) as Float32Array;
  const [light] = tokenizer.encodeBatch(['light']).ids.slice(1);
  numbers.fill(NaN, light * 32, (light + 1) * 32);
  weight.array.write(numbers);
  const folder = fresh();
  const { samples, skipped, finished } = await generate(folder, { pipeline: broken });
  assert.equal([samples, skipped, finished], [10, 4, true]); // prompt 1 of 4 is not finite, in numbers 1, 5, 9 and 13
  assert.equal(lines(folder).map(({ samples, skipped }) => [samples, skipped]), [[6, 2], [4, 2]]); // prettier-ignore
  using set = await PairSet.open(folder);
  assert.equal(set.seeds, [0, 2, 3, 4, 6, 7, 8, 10, 11, 12]);
  assert.is(set.numberOf(1, 2), 8);
  assert.ok(set.batch([...set.seeds.keys()]).x1.every(Number.isFinite));
  await refuses(
    generate(fresh(), { pipeline: broken, prompts: ['soft light'] }),
    /none of the first 8 pairs can be used\n {2}not finite\n/,
  );
  await refuses(
    generate(fresh(), { maxLatentRms: 0.01 }),
    /none of the first 8.*\n {2}a root mean square of .*, above 0\.01/,
  );
  broken.dispose();
});

test('what is no set of pairs says which file, and what to do', async () => {
  const damaged = (change: (folder: string) => void) => {
    const folder = fresh();
    cpSync(whole, folder, { recursive: true });
    change(folder);
    return folder;
  };
  const rewrite = (folder: string, change: (line: any, i: number) => object | undefined) =>
    writeFileSync(join(folder, 'manifest.jsonl'), lines(folder).flatMap((line, i) => change(line, i) ?? []).map((line) => `${JSON.stringify(line)}\n`).join('')); // prettier-ignore
  const cases: [(folder: string) => void, RegExp, object?][] = [
    [(folder) => rmSync(folder, { recursive: true }), /no pairs here\n {2}make them first/],
    [(folder) => rmSync(file(folder, 1)), /pairs-000001\.tar: missing\n {2}the manifest has 6 pairs in it\n/],
    [(folder) => truncateSync(file(folder, 1), 9000), /pairs-000001\.tar: not the shard .* another size\n {2}file {6}9000 bytes\n/],
    [(folder) => flip(file(folder, 1), 2000), /pairs-000001\.tar: not the shard .* another sha256\n[\s\S]*delete it and make it again/],
    [(folder) => rewrite(folder, (line, i) => (i === 1 ? { ...line, teacher: { ...line.teacher, sha256: 'b'.repeat(64) } } : line)), /pairs-000001\.tar: is from another teacher than pairs-000000\.tar\n {2}teacher /],
    [(folder) => rewrite(folder, (line, i) => (i === 1 ? { ...line, steps: 9 } : line)), /pairs-000001\.tar: was made otherwise.*\n {2}steps {2}9, not 3/],
    [(folder) => rewrite(folder, (line, i) => (i ? line : undefined)), /1 of 2 shards are not made yet\n {2}missing {2}pairs-000000\.tar/],
    [(folder) => writeFileSync(join(folder, 'manifest.jsonl'), '{"format": "rectiflow pa'), /manifest\.jsonl:1: not a line of JSON/],
    [(folder) => writeFileSync(join(folder, 'manifest.jsonl'), '{"format": 2}'), /manifest\.jsonl:1: the format is 2, must be/],
    [() => {}, /is from another teacher\n {2}made by {2}a{64} \(a test\)\n {2}wanted {3}c{64}\n/, { teacher: 'c'.repeat(64) }],
    [() => {}, /pairs-000009\.tar: unknown shard\n {2}the manifest beside it has pairs-000000\.tar … pairs-000001\.tar/, { only: 'pairs-000009.tar' }],
  ]; // prettier-ignore
  for (const [change, message, options] of cases) await refuses(PairSet.open(damaged(change), options), message);
});

function flip(path: string, at: number): void {
  const data = readFileSync(path);
  data[at] ^= 1;
  writeFileSync(path, data);
}

test('what cannot be made is refused before anything is written', async () => {
  const again = fresh();
  cpSync(whole, again, { recursive: true });
  const other = { teacher: { ...teacher, sha256: 'b'.repeat(64) } };
  await refuses(
    generate(again, other),
    /holds pairs from another teacher\n {2}teacher .*\n {2}give another --output_dir/,
  );
  await refuses(generate(again, { steps: 9 }), /holds pairs that were made otherwise\n {2}steps {2}3, not 9\n/);
  assert.equal(bytes(again), bytes(whole));
  rmSync(join(again, 'manifest.jsonl'));
  await refuses(generate(again, { steps: 9 }), /part: was begun with other settings\n {2}steps {2}3, not 9/);
  await refuses(generate(fresh(), { scheduler: 'euler_a' }), /euler_a adds noise on its way/);
  await refuses(generate(fresh(), { scheduler: 'heun' }), /there is no scheduler heun for this model/);
  await refuses(
    generate(fresh(), { firstSeed: 2 ** 32 - 3 }),
    /the last seed would be 4294967306: .* repeat from 4294967296/,
  );
  await refuses(
    generate(fresh(), { minutes: 1, worker: { index: 0, count: 2 } }),
    /a limit in minutes ends the whole set/,
  );
});

test('two generators on one shard: the second is told of the first; a dead one is no obstacle', async () => {
  const folder = fresh();
  const both = await Promise.allSettled([generate(folder), generate(folder)]);
  assert.is(both.filter(({ status }) => status === 'rejected').length, 1);
  const { reason } = both.find(({ status }) => status === 'rejected') as PromiseRejectedResult;
  assert.match(reason.message, new RegExp(`pairs-00000\\d\\.tar: is being made by process ${process.pid} on `));
  rmSync(file(folder, 0));
  const { pid } = spawnSync(process.execPath, ['-e', '']);
  const lock = file(folder, 0, '.lock');
  const owner = JSON.parse('{"token":"x"}');
  writeFileSync(lock, JSON.stringify({ ...owner, pid, host: (await import('node:os')).hostname() }));
  await generate(folder);
  rmSync(file(folder, 0));
  writeFileSync(lock, JSON.stringify({ ...owner, pid, host: 'another machine' }));
  await refuses(generate(folder), /is being made by process \d+ on another machine\n[\s\S]*delete .*\.lock/);
  utimesSync(lock, new Date(0), new Date(0));
  await generate(folder);
  assert.equal(bytes(folder), bytes(whole));
});

test("a teacher's hash is the same for a folder and a single file, and another for other weights", async () => {
  const hash = (model: string) => teacherHash(model, 'unet', { cache: join(root, 'teacher.txt') });
  const folder = join(root, 'sd');
  const save = async (seed: number) => {
    const config = { ...unet, block_out_channels: [32, 64], cross_attention_dim: 128, attention_head_dim: 8, norm_num_groups: 32 }; // prettier-ignore
    using network = new UNet2DConditionModel({ ...config, layers_per_block: 2 }).initialize(seed);
    await saveModule(folder, 'unet', network, 'UNet2DConditionModel');
  };
  await save(1);
  using vae = new AutoencoderKL({ block_out_channels: [32, 64], layers_per_block: 2 }).initialize(2);
  await saveModule(folder, 'vae', vae, 'AutoencoderKL');
  using encoder = new CLIPTextModel({ ...text, hidden_size: 128, num_attention_heads: 2 }).initialize(3);
  await saveModule(folder, 'text_encoder', encoder, 'CLIPTextModel');
  writeFileSync(join(folder, 'model_index.json'), '{"_class_name": "StableDiffusionPipeline"}');
  const first = await hash(folder);
  assert.match(first, /^[\da-f]{64}$/);
  await convertModel(folder, join(root, 'sd.safetensors'));
  assert.is(await hash(join(root, 'sd.safetensors')), first);
  assert.is(await hash(folder), first);
  assert.is(await hash(folder), first, 'from the cache');
  await save(9);
  assert.is.not(await hash(folder), first);
});

test('prompts come from a text, JSON lines or an image folder; what is wrong is named', async () => {
  const place = (name: string, content: string) => {
    const path = join(root, name);
    writeFileSync(path, content);
    return path;
  };
  assert.equal(await readPrompts(place('a.txt', 'red apple\r\n\n  pizza \n')), ['red apple', 'pizza']);
  const rows = place('b.jsonl', '{"text": "red apple", "other": ["x", "y"]}\n{"text": "pizza", "other": "z"}\n');
  assert.equal(await readPrompts(rows), ['red apple', 'pizza']);
  assert.equal(await readPrompts(rows, { captionColumn: 'other' }), ['x', 'y', 'z']);
  mkdirSync(join(root, 'images'));
  place(
    'images/metadata.jsonl',
    '{"file_name": "1.png", "text": ["a heart", "love"]}\n{"file_name": "2.png", "text": "a sun"}',
  );
  assert.equal(await readPrompts(join(root, 'images')), ['a heart', 'love', 'a sun']);
  await refuses(readPrompts(join(root, 'none.txt')), /none\.txt: no such file or folder\n/);
  await refuses(readPrompts(place('c.txt', ' \n\n')), /c\.txt: no prompt in it/);
  await refuses(
    readPrompts(rows, { captionColumn: 'caption' }),
    /2 of 2 lines have no prompt\n.*b\.jsonl:1: no text in 'caption'; the line has 'text', 'other'\n/,
  );
  await refuses(
    readPrompts(place('d.jsonl', '{"text": "a"}\nnot json\n{"text": ""}')),
    /2 of 3 lines have no prompt\n.*d\.jsonl:2: not a line of JSON.*\n.*d\.jsonl:3: no text in 'text'/,
  );
  writeFileSync(join(root, 'e.txt'), Buffer.from([0x66, 0xff, 0xfe, 0x41]));
  await refuses(readPrompts(join(root, 'e.txt')), /e\.txt: not a text in UTF-8/);
});

test("which worker it is: by flags, by Slurm's variables, by Kubernetes'", () => {
  const slurm = (id: number, more = {}) => ({ SLURM_ARRAY_TASK_ID: String(id), SLURM_ARRAY_TASK_COUNT: '4', ...more });
  assert.equal(arrayTask({}, {}), { index: 0, count: 1 });
  assert.equal(arrayTask({ shard_index: 2, num_shards: 3 }, slurm(1)), { index: 2, count: 3 });
  assert.equal(arrayTask({}, slurm(3)), { index: 3, count: 4 });
  assert.equal(arrayTask({}, slurm(14, { SLURM_ARRAY_TASK_MIN: '10', SLURM_ARRAY_TASK_STEP: '2' })), {
    index: 2,
    count: 4,
  });
  assert.equal(arrayTask({ num_shards: 8 }, { JOB_COMPLETION_INDEX: '5' }), { index: 5, count: 8 });
  const wrong: [object, Record<string, string>, RegExp][] = [
    [{}, { JOB_COMPLETION_INDEX: '5' }, /Kubernetes .*\(JOB_COMPLETION_INDEX 5\).*\n {2}give --num_shards/],
    [{ num_shards: 4 }, {}, /which of them is this\?\n {2}give --shard_index, 0 to 3/],
    [{ shard_index: 4 }, {}, /of how many\?\n {2}give --num_shards/],
    [{ shard_index: 4, num_shards: 4 }, {}, /shard 4 of 4: they are counted from 0/],
    [{}, slurm(9), /Slurm's array has gaps: task 9 of 4, from 0 on/],
    [{}, slurm(0, { SLURM_ARRAY_TASK_ID: 'x' }), /SLURM_ARRAY_TASK_ID is x, must be a whole number/],
  ];
  for (const [flags, env, message] of wrong) assert.throws(() => arrayTask(flags, env), message);
  const words = '--num_shards is for one stage that several can share: give --stage pairs too';
  assert.equal(contradictions({ num_shards: 2 }), [words]);
  assert.equal(contradictions({ num_shards: 2, shard_index: 0, stage: 'pairs' }), []);
});

const list = join(root, 'prompts.txt');
writeFileSync(list, 'red apple\nblue heart\npizza\n');

test('generate: killed and stopped, it goes on to the same bytes; inspect checks them and draws a picture', async () => {
  const [calm, rough] = [join(root, 'calm'), join(root, 'rough')];
  const words = ['cli.js', 'pairs', 'generate', '--prompts', list, '--output_dir', rough, '--max_train_samples', '24'];
  words.push('--steps', '2', '--batch_size', '2', '--shard_size', '12');
  for (const [signal, status, shard] of [
    ['SIGKILL', null, 0],
    ['SIGINT', 130, 1],
  ] as const) {
    // prettier-ignore
    const child = spawn(process.execPath, words);
    let output = '';
    child.stderr.on('data', (data) => (output += data));
    child.stdout.on('data', (data) => (output += data));
    const exit = new Promise<number | null>((resolve) => child.on('close', resolve));
    const part = file(rough, shard, '.part');
    const grown = () => existsSync(part) && statSync(part).size > 5000;
    while (child.exitCode === null && !grown()) await new Promise((resolve) => setTimeout(resolve, 5));
    child.kill(signal);
    assert.is(await exit, status, output);
    if (status) assert.match(output, /SIGINT: finishing this batch[\s\S]*stopped; the same command goes on from there/);
  }
  const last = spawnSync(process.execPath, words, { encoding: 'utf8' });
  assert.match(last.stdout, /pairs-000001\.tar: going on after \d+ of 12[\s\S]*rough: 24 pairs\n/, last.stderr);

  const model = join('models', 'emoji');
  const emoji = await openModelFolder(model, { networks: ['unet_teacher'] });
  const sha256 = await teacherHash(model, 'unet_teacher', { cache: join(root, 'emoji.txt') });
  await generatePairs(calm, {
    pipeline: emoji,
    ...({ which: 'unet_teacher', teacher: { model, sha256 }, prompts: ['red apple', 'blue heart', 'pizza'] } as const),
    ...{ count: 24, steps: 2, batchSize: 2, shardSize: 12 },
  });
  emoji.dispose();
  assert.equal(bytes(rough), bytes(calm));

  flip(file(calm, 1), 3000);
  const seen = spawnSync(process.execPath, ['cli.js', 'pairs', 'inspect', calm], { encoding: 'utf8' });
  assert.match(seen.stdout, /pairs +24 of 24 in 2 shards[\s\S]*1 of 2 shards are what the manifest says[\s\S]*noise 7/);
  assert.is(readFileSync(join(calm, 'pairs.png')).toString('latin1', 1, 4), 'PNG');
  assert.is(seen.status, 1);
  assert.match(seen.stderr, /pairs-000001\.tar: not the shard that the manifest knows: another sha256/);
});

const disk = join(root, 'disk');
mkdirSync(disk);
const mounted =
  process.platform === 'linux' && spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=20k', 'tmpfs', disk]).status === 0;
if (mounted) {
  test('a full disk says so, keeps what is there, and the rest follows when there is room', async () => {
    const folder = join(disk, 'pairs');
    await refuses(
      generate(folder),
      /cannot write .*pairs-000000\.tar\.part: the disk is full\n {2}all pairs before it are kept/,
    );
    spawnSync('mount', ['-o', 'remount,size=200k', disk]);
    const said: string[] = [];
    await generate(folder, {}, { say: (line) => said.push(line) });
    assert.is(said[0], 'pairs-000000.tar: going on after 4 of 8');
    assert.equal(bytes(folder), bytes(whole));
  });
} else {
  skip(test, 'a full disk says so, keeps what is there, and the rest follows', 'mounting a small tmpfs needs root');
}

test.run();
