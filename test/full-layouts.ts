/**
 * A full-size InstaFlow in every layout: a diffusers folder, a single file and a set of `.bin` shards, written from the weights
 * of the golden case full/instaflow_e2e_64, read back bit for bit, and drawn from.
 *
 *     node scripts/run.mjs test/full-layouts.ts <golden data> <folder with 16 GB to write in>
 *
 * `npm run test:full` runs it. It prints one line for each thing, and `N passed, N failed`.
 */
import { spawnSync } from 'node:child_process';
import { copyFile, mkdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { bytes, seconds } from '../src/cli/units.ts';
import { compare } from '../src/cli/verify/compare.ts';
import { sliceChecks } from '../src/cli/verify/full-checks.ts';
import { Golden, inputFromRule } from '../src/cli/verify/golden.ts';
import { channelsSecond } from '../src/cli/verify/layout.ts';
import { parameter, type Weights } from '../src/cli/verify/rule.ts';
import { readPng } from '../src/cli/pictures/png.ts';
import { writeJson } from '../src/flow/recipe/model-folder.ts';
import { AutoencoderKL, CLIPTextModel, outlineOf, UNet2DConditionModel, type Module } from '../src/nn/index.ts';
import { currentKeys } from '../src/nn/single-file/model.ts';
import { init } from '../src/tensor/index.ts';
import { writeAtomic, writeTensors } from '../src/tensor/io/files-node.ts';
import { byteLength, type WeightInfo, type WeightSource } from '../src/tensor/io/weights.ts';
import { findWeights, openWeights, saveWeights } from '../src/tensor/io/weights-node.ts';
import { torchFile, type SavedTensor } from './torch-writer.ts';

const [goldenFolder, scratch] = process.argv.slice(2);
const golden = await Golden.open(goldenFolder);
const c = golden.cases.find(({ id }) => id === 'full/instaflow_e2e_64');
if (!c) throw new Error(`${goldenFolder} has no case full/instaflow_e2e_64`);
const file = await golden.tensors(c);

const classes = { text_encoder: 'CLIPTextModel', unet: 'UNet2DConditionModel', vae: 'AutoencoderKL' } as const;
const make: Record<Part, (config: object) => Module> = {
  text_encoder: (config) => new CLIPTextModel(config),
  unet: (config) => new UNet2DConditionModel(config),
  vae: (config) => new AutoencoderKL(config),
};
type Part = keyof typeof classes;
const parts = Object.keys(classes) as Part[];
const stem = (part: Part) => (part === 'text_encoder' ? 'model' : 'diffusion_pytorch_model');
const at = (...words: string[]) => join(scratch, ...words);
const prompt = 'a photo of a cat';

/** The weights of one network by their rule, made when they are asked for. */
function ruleSource(part: Part): WeightSource {
  const weights: Weights = { ...c!.weights, seed: c!.weights.seeds[part] };
  const outline = outlineOf(() => make[part](c!.config[part]));
  const entries = new Map<string, WeightInfo>();
  for (const [key, p] of outline.namedParameters()) entries.set(key, { dtype: 'F32', shape: [...p.checkpointShape] });
  return {
    name: `rule of ${part}`,
    entries,
    metadata: {},
    read: async (key) => new Uint8Array(parameter(key, entries.get(key)!.shape, weights).buffer as ArrayBuffer),
    close: async () => {},
  };
}

let passed = 0,
  failed = 0;
async function check(what: string, run: () => Promise<string>): Promise<void> {
  const start = performance.now();
  const { line, mark } = await run().then(
    (line) => (passed++, { line, mark: '✓' }),
    (error: Error) => (failed++, { line: error.message, mark: '✗' }),
  );
  console.log(`${mark} ${what}: ${line} (${seconds((performance.now() - start) / 1000)})`);
}

async function writeFolder(): Promise<string> {
  for (const part of parts) {
    await mkdir(at('folder', part), { recursive: true });
    await saveWeights(at('folder', part, `${stem(part)}.safetensors`), ruleSource(part));
    await writeJson(at('folder', part, 'config.json'), { _class_name: classes[part], ...c!.config[part] });
  }
  await writeJson(at('folder', 'model_index.json'), {
    _class_name: 'RectifiedFlowPipeline',
    tokenizer: ['transformers', 'CLIPTokenizer'],
    ...Object.fromEntries(parts.map((part) => [part, ['diffusers', classes[part]]])),
  });
  await mkdir(at('folder', 'tokenizer'), { recursive: true });
  for (const name of ['vocab.json', 'merges.txt'])
    await copyFile(golden.path(`extra/clip_vocab/${name}`), at('folder', 'tokenizer', name));
  return 'the weights of the golden case, f32';
}

/** What PyTorch writes: shards of pickles in zips and an index, a tensor never cut. */
async function writeBins(): Promise<string> {
  let shards = 0;
  for (const part of parts) {
    const source = ruleSource(part);
    const groups: string[][] = [[]];
    let size = 0;
    for (const [key, info] of source.entries) {
      if (size + byteLength(info) > 1e9) size = groups.push([]) && 0;
      groups.at(-1)!.push(key);
      size += byteLength(info);
    }
    const name = part === 'text_encoder' ? 'pytorch_model' : stem(part);
    const index: Record<string, string> = {};
    await mkdir(at('bins', part), { recursive: true });
    for (const [i, keys] of groups.entries()) {
      const count = [i + 1, groups.length].map((n) => String(n).padStart(5, '0')).join('-of-');
      const tensors: Record<string, SavedTensor> = {};
      for (const key of keys) tensors[key] = { ...source.entries.get(key)!, bytes: await source.read(key) };
      await writeAtomic(at('bins', part, `${name}-${count}.bin`), torchFile(tensors));
      for (const key of keys) index[key] = `${name}-${count}.bin`;
    }
    shards += groups.length;
    await writeJson(at('bins', part, `${name}.bin.index.json`), { metadata: {}, weight_map: index });
    await copyFile(at('folder', part, 'config.json'), at('bins', part, 'config.json'));
  }
  for (const name of ['model_index.json', 'tokenizer/vocab.json', 'tokenizer/merges.txt']) {
    await mkdir(dirname(at('bins', name)), { recursive: true });
    await copyFile(at('folder', name), at('bins', name));
  }
  return `${shards} shards`;
}

/** Every tensor of a folder beside the rule. */
async function sameBits(folder: string): Promise<string> {
  let tensors = 0,
    size = 0;
  for (const part of parts) {
    const want = ruleSource(part);
    const source = currentKeys(part, await openWeights(await findWeights(join(folder, part))));
    try {
      if (source.entries.size !== want.entries.size)
        throw new Error(`${part} has ${source.entries.size} tensors, want ${want.entries.size}`);
      for (const [key, info] of want.entries) {
        const [got, expected] = [await source.read(key), await want.read(key)];
        if (source.entries.get(key)!.dtype !== 'F32' || Buffer.compare(got, expected))
          throw new Error(`${part}: ${key} differs`);
        tensors++;
        size += byteLength(info);
      }
    } finally {
      await source.close();
    }
  }
  return `${tensors} tensors, ${bytes(size)}, no bit differs`;
}

/** Run the command line; its last line. */
function cli(...words: string[]): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['cli', ...words], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`node cli ${words.join(' ')}: status ${status}\n${stdout}${stderr}`);
  return stdout.trim().split('\n').at(-1)!;
}

const sample = (model: string, out: string, ...more: string[]) =>
  cli('sample', prompt, '--model', model, '--out', at(out), ...more);
const picture = async (folder: string) => (await readPng(at(folder, 'a-photo-of-a-cat-0.png'))).image;
/** The highest use of memory that a run of `sample` shows, in GiB. */
const peakOf = (line: string): number => {
  const [, value, unit] = /peak ([\d.]+) (\w+)$/.exec(line)!;
  return Number(value) * { MiB: 2 ** -10, GiB: 1 }[unit]!;
};

/** A PNG's bytes lie within half a step of the golden numbers, and the tolerance of the case. */
async function goldenPicture(): Promise<string> {
  const noise = inputFromRule(c!.inputs.latents, c!.inputs.latents.seed, c!.inputs.latents.name);
  await writeTensors(at('noise.safetensors'), { latents: noise });
  const line = sample(at('folder'), 'pictures', '--latents', at('noise.safetensors'));
  const { data, width, height } = await picture('pictures');
  const theirs = channelsSecond({ shape: [1, height, width, 3], data: Float32Array.from(data, (v) => v / 255) });
  const limit = 0.5 / 255 + c!.tol.rel_max_gpu_f32;
  const checks = sliceChecks('out.image', theirs.data, file, c!.out_stats.image.shape, limit).map(compare);
  const worst = checks.reduce((a, b) => (b.error > a.error ? b : a));
  if (checks.some(({ passed }) => !passed)) throw new Error(`${worst.name} is off by ${worst.error}, limit ${limit}`);
  const need = JSON.parse(
    spawnSync(process.execPath, ['cli', 'estimate', '--model', at('folder'), '--json'], { encoding: 'utf8' }).stdout,
  );
  const [expected, taken] = [need.peak / 2 ** 30, peakOf(line)];
  if (Math.abs(expected / taken - 1) > 0.2) throw new Error(`estimate: peak ${expected} GiB, taken ${taken}`);
  return (
    `off by at most ${(255 * worst.error).toFixed(3)} of 255 (limit ${(255 * limit).toFixed(3)})\n` +
    `  ${line}\n  estimated: peak ${bytes(need.peak)}, ${seconds(need.expected.total)} without compiling`
  );
}

async function samePictures(): Promise<string> {
  const small = ['--height', '64', '--width', '64'];
  const models = {
    folder: [],
    bins: [],
    'single.safetensors': ['--tokenizer', at('folder', 'tokenizer'), '--rectified_flow'],
  };
  const pictures: Buffer[] = [];
  for (const [model, more] of Object.entries(models)) {
    sample(at(model), `small-${model}`, ...small, ...more);
    pictures.push(Buffer.from((await picture(`small-${model}`)).data));
  }
  if (pictures.some((p) => Buffer.compare(p, pictures[0]))) throw new Error('the pictures differ');
  return `${Object.keys(models).join(', ')}: the same at 64 × 64`;
}

const gpu = await init();
await check('diffusers folder', writeFolder);
await check('read back', () => sameBits(at('folder')));
await check('.bin set', writeBins);
await check('read back', () => sameBits(at('bins')));
await check('single file', async () => cli('convert', at('folder'), at('single.safetensors')));
await check('folder from it', async () => cli('convert', at('single.safetensors'), at('again')));
await check('read back', () => sameBits(at('again')));
await rm(at('again'), { recursive: true, force: true });
await check('sample', samePictures);
await check('sample at 512 × 512 beside the golden image', goldenPicture);
gpu.destroy();
console.log(`${passed} passed, ${failed} failed`);
if (failed) process.exitCode = 1;
