/** Models between layouts, dtypes and numbers of files, tensor by tensor: what `node cli convert` does. */
import { cp, mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { exists } from '../../tensor/io/files-node.ts';
import { inferConfig, modelIndex, schedulerConfig } from '../../nn/single-file/configs.ts';
import { currentKeys, isSingleFile, joinSingleFile, splitSingleFile } from '../../nn/single-file/model.ts';
import type { PartName, Parts } from '../../nn/single-file/model.ts';
import { findWeights, openWeights, saveShards } from '../../tensor/io/weights-node.ts';
import { byteLength, castDtype, type FloatDtype, type WeightSource } from '../../tensor/io/weights.ts';
import { ModelFolderError, writeJson } from './model-folder.ts';

export interface ConvertOptions {
  /** Left out: every tensor keeps its own. */
  dtype?: FloatDtype;
  /** Which weights of a folder that has several, such as 'fp16'. */
  variant?: string;
  /** Bytes of tensors in one file. */
  maxShardSize?: number;
  /** A diffusers folder to take configurations, tokenizers and the scheduler from. */
  config?: string;
  /** Replace what is there. */
  overwrite?: boolean;
  progress?: (line: Progress) => void;
}

/** How far: bytes of the new files. */
export interface Progress {
  key: string;
  done: number;
  total: number;
}

export interface Converted {
  /** From and to what. */
  what: string;
  tensors: number;
  bytes: number;
  /** Keys that have no place in the new layout. */
  left: string[];
  /** Files that a whole model would have and that could not be made. */
  lacking: string[];
  /** Tensors with numbers beyond the range of F16, which are infinite now. */
  infinite: string[];
}

/** Weights and where they go, `file` relative to the output. */
interface Job {
  file: string;
  source: WeightSource;
}

/**
 * Convert a model. The input is a diffusers folder, a folder of one part, a single-file checkpoint, or any other file of
 * weights; the output, by its name, one `.safetensors` file or a folder. What is written appears under its name when it is
 * whole.
 * @throws with the reason when input or output cannot be that
 */
export async function convertModel(from: string, to: string, options: ConvertOptions = {}): Promise<Converted> {
  await checkOutput(from, to, options.overwrite ?? false);
  const input = await openInput(from, options.variant);
  try {
    return /\.safetensors$/.test(to) ? await toFile(input, to, options) : await toFolder(input, to, options);
  } finally {
    for (const { source } of input.jobs) await source.close();
  }
}

interface Input {
  path: string;
  kind: 'a diffusers folder' | 'a single file' | 'weights';
  /** Where the parts lie in a folder; '' for weights alone. */
  jobs: (Job & { part: string })[];
  folder: boolean;
}

async function openInput(path: string, variant?: string): Promise<Input> {
  const info = await stat(path).catch(() => undefined);
  if (!info) throw new ModelFolderError(`${path}: no such file or folder`);
  if (!info.isDirectory()) {
    const source = await openWeights(path);
    const kind = isSingleFile(source) ? 'a single file' : 'weights';
    return { path, kind, folder: false, jobs: [{ part: '', file: `${stem(path)}.safetensors`, source }] };
  }
  const names = await readdir(path);
  if (!names.includes('model_index.json')) {
    const found = await findWeights(path, { variant });
    const source = currentKeys(basename(resolve(path)), await openWeights(found));
    return { path, kind: 'weights', folder: true, jobs: [{ part: '', file: `${stem(found)}.safetensors`, source }] };
  }
  const jobs: Input['jobs'] = [];
  for (const part of names.sort()) {
    const found = await findWeights(join(path, part), { variant }).catch(() => undefined);
    if (!found) continue;
    const source = currentKeys(part, await openWeights(found));
    jobs.push({ part, file: join(part, `${stem(found)}.safetensors`), source });
  }
  if (!jobs.length)
    throw new ModelFolderError(`${path}: none of its folders has weights\n  it has: ${names.join(', ')}`);
  return { path, kind: 'a diffusers folder', folder: true, jobs };
}

/** The name that goes before `.safetensors`, without variant and number of shard. */
const stem = (path: string): string =>
  basename(path)
    .replace(/\.index(\.\w+)?\.json$/, '')
    .replace(/\.(safetensors|bin|ckpt|pth?)$/, '')
    .replace(/\.(fp16|bf16)$/, '');

async function toFile({ path, kind, jobs }: Input, to: string, options: ConvertOptions): Promise<Converted> {
  if (kind !== 'a diffusers folder') {
    return write([{ file: to, source: jobs[0].source }], `${kind} → ${basename(to)}`, options);
  }
  const { family, source, left } = joinSingleFile(
    path,
    Object.fromEntries(jobs.map(({ part, source }) => [part, source])),
  );
  const extra = jobs.flatMap(({ part }) => (/^(unet|vae|text_encoder(_2)?)$/.test(part) ? [] : [part]));
  const done = await write([{ file: to, source }], `${kind} (${family}) → a single file`, options);
  return { ...done, left: [...extra, ...left] };
}

async function toFolder(input: Input, to: string, options: ConvertOptions): Promise<Converted> {
  const beside = join(dirname(resolve(to)), `.${basename(resolve(to))}.${process.pid}.part`);
  try {
    await mkdir(beside, { recursive: true });
    const done = await (input.kind === 'a single file'
      ? splitInto(input, beside, options)
      : copyInto(input, beside, options));
    if (options.overwrite) await rm(to, { recursive: true, force: true });
    await rename(beside, to);
    return done;
  } catch (error) {
    await rm(beside, { recursive: true, force: true });
    throw error;
  }
}

/** Another folder of the same layout. */
async function copyInto({ path, kind, jobs, folder }: Input, to: string, options: ConvertOptions): Promise<Converted> {
  if (folder) await copyRest(path, to);
  const moved = jobs.map(({ file, source }) => ({ file: join(to, file), source }));
  return write(moved, `${kind} → a folder of the same layout`, options);
}

async function splitInto({ jobs }: Input, to: string, options: ConvertOptions): Promise<Converted> {
  const { family, parts, left } = splitSingleFile(jobs[0].source);
  const made: Job[] = [];
  const lacking: string[] = [];
  if (options.config) await copyConfig(options.config, to, parts);
  for (const [part, source] of Object.entries(parts) as [PartName, WeightSource][]) {
    await mkdir(join(to, part), { recursive: true });
    const name = isText(part) ? 'model' : 'diffusion_pytorch_model';
    made.push({ file: join(to, part, `${name}.safetensors`), source });
    await writeNew(join(to, part, 'config.json'), inferConfig(part, source, family));
    if (isText(part) && !(await exists(join(to, tokenizerOf(part))))) lacking.push(`${tokenizerOf(part)}/`);
  }
  await mkdir(join(to, 'scheduler'), { recursive: true });
  await writeNew(join(to, 'scheduler', 'scheduler_config.json'), schedulerConfig(family));
  await writeJson(join(to, 'model_index.json'), modelIndex(family, parts));
  const done = await write(made, `a single file (${family}) → a diffusers folder`, options);
  return { ...done, left, lacking };
}

async function write(jobs: Job[], what: string, options: ConvertOptions): Promise<Converted> {
  const { dtype, maxShardSize = Infinity, progress } = options;
  const infos = jobs.flatMap(({ source }) => [...source.entries.values()]);
  const total = infos.reduce(
    (sum, info) => sum + byteLength({ ...info, dtype: dtype ? castDtype(info.dtype, dtype) : info.dtype }),
    0,
  );
  const infinite: string[] = [];
  let done = 0;
  for (const { file, source } of jobs) {
    await saveShards(file, source, maxShardSize, {
      dtype,
      progress(key, bytes, overflowed) {
        if (overflowed) infinite.push(key);
        progress?.({ key, done: (done += bytes), total });
      },
    });
  }
  return { what, tensors: infos.length, bytes: total, left: [], lacking: [], infinite };
}

/** Everything of a folder but its weights. */
async function copyRest(from: string, to: string): Promise<void> {
  await cp(from, to, {
    recursive: true,
    dereference: true, // the hub's cache is made of links
    filter: (file) => !/\.(safetensors|bin|ckpt|pth?|msgpack|onnx|h5)$|\.index(\.\w+)?\.json$|\/\.git$/.test(file),
  });
}

/** What a single file lacks, of a folder that has it. */
async function copyConfig(from: string, to: string, parts: Parts): Promise<void> {
  const configs = Object.keys(parts).map((part) => join(part, 'config.json'));
  const tokenizers = Object.keys(parts).filter(isText).map(tokenizerOf);
  const folders = ['scheduler', 'feature_extractor', ...configs, ...tokenizers];
  const found = [];
  for (const name of folders) if (await exists(join(from, name))) found.push(name);
  if (!found.length) throw new ModelFolderError(`${from}: has nothing to copy\n  looked for: ${folders.join(', ')}`);
  for (const name of found) await cp(join(from, name), join(to, name), { recursive: true, dereference: true });
}

const isText = (part: string): boolean => part.startsWith('text_encoder');

/** text_encoder_2 → tokenizer_2 */
const tokenizerOf = (part: string): string => part.replace('text_encoder', 'tokenizer');

async function writeNew(file: string, config: Record<string, unknown>): Promise<void> {
  if (!(await exists(file))) await writeJson(file, config);
}

async function checkOutput(from: string, to: string, overwrite: boolean): Promise<void> {
  if (resolve(from) === resolve(to)) throw new ModelFolderError(`${to}: input and output are the same`);
  const wrong = /\.(bin|ckpt|pth?|json|gguf)$/.exec(to);
  if (wrong) {
    throw new ModelFolderError(
      `${to}: ${wrong[0]} is not written\n  give a name that ends in .safetensors, or a folder`,
    );
  }
  const info = await stat(to).catch(() => undefined);
  const isEmpty = info?.isDirectory() && !(await readdir(to)).length;
  if (info && !isEmpty && !overwrite)
    throw new ModelFolderError(`${to}: is there already\n  replace it with --overwrite`);
  const folder = dirname(resolve(to));
  if (!(await exists(folder))) throw new ModelFolderError(`${to}: there is no folder ${folder}`);
}
