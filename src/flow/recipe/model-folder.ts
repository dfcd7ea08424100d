/**
 * Models as folders, in diffusers' layout:
 *
 *     model_index.json
 *     tokenizer/      vocab.json, merges.txt, tokenizer_config.json
 *     text_encoder/   config.json, model.safetensors
 *     vae/            config.json, diffusion_pytorch_model.safetensors
 *     unet/           config.json, diffusion_pytorch_model.safetensors      one step: the distilled network; a U-Net,
 *                                                                           or two in a row: `_class_name` StackedUNet
 *     unet_teacher/, unet_reflow/                                           the same for the networks it came from
 *     scheduler/      scheduler_config.json                                 steps and guidance of each network
 */
import { mkdir, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { AutoencoderKL, CLIPTextModel } from '../../nn/index.ts';
import { networkOf } from '../../nn/models/network.ts';
import { parametersAs } from '../../nn/module.ts';
import type { Module } from '../../nn/module.ts';
import { ClipTokenizer } from '../../nn/tokenizer.ts';
import { loadWeights } from '../../nn/load.ts';
import { currentKeys } from '../../nn/single-file/model.ts';
import { readBytes, writeAtomic, writeTensors } from '../../tensor/io/files-node.ts';
import { findWeights, openWeights } from '../../tensor/io/weights-node.ts';
import type { WeightSource } from '../../tensor/io/weights.ts';
import { Pipeline } from '../pipeline.ts';
import type { PipelineParts } from '../pipeline.ts';
import { networkNames } from '../pipelines/options.ts';
import type { NetworkName, SamplingDefaults } from '../pipelines/options.ts';

/** A model folder that cannot be used: which file, and what is wrong with it. */
export class ModelFolderError extends Error {
  override name = 'ModelFolderError';
}

export const weightsFile = { text_encoder: 'model.safetensors', other: 'diffusion_pytorch_model.safetensors' };
const fileOf = (part: string): string => (part === 'text_encoder' ? weightsFile.text_encoder : weightsFile.other);

/** Open a model for sampling. Only the networks named in `networks` are read, `variant` prefers such weights, as fp16. */
export async function openModelFolder(
  folder: string,
  {
    networks = ['unet'],
    variant,
    dtype,
  }: { networks?: readonly NetworkName[]; variant?: string; dtype?: 'f32' | 'f16' } = {},
): Promise<Pipeline> {
  const info = await stat(folder).catch(() => undefined);
  if (!info?.isDirectory())
    throw new ModelFolderError(`${folder}: no such folder\n  --model wants a model in diffusers' layout`);
  const parts = await readdir(folder);
  const required = ['tokenizer', 'text_encoder', 'vae', ...networks];
  const missing = required.filter((part) => !parts.includes(part));
  if (missing.length) throw new ModelFolderError(`${folder}: is not a whole model\n  missing: ${missing.join(', ')}`);
  const tokenizer = await openTokenizer(join(folder, 'tokenizer'));
  const stored = { variant, dtype };
  const textEncoder = await openModule(folder, 'text_encoder', (config) => new CLIPTextModel(config), stored);
  const vae = await openModule(folder, 'vae', (config) => new AutoencoderKL(config), stored);
  const opened: PipelineParts['networks'] = {};
  for (const name of networks) opened[name] = await openModule(folder, name, networkOf, stored);
  const scheduler = parts.includes('scheduler')
    ? await readJson(join(folder, 'scheduler', 'scheduler_config.json'))
    : undefined;
  return new Pipeline({
    tokenizer,
    textEncoder,
    vae,
    networks: opened,
    defaults: (scheduler?.sampling ?? {}) as PipelineParts['defaults'],
    scheduler,
  });
}

/** Which networks a model folder holds. */
export async function networksIn(folder: string): Promise<NetworkName[]> {
  const parts = await readdir(folder).catch(() => [] as string[]);
  return networkNames.filter((name) => parts.includes(name));
}

/** `pad`: the token that fills up short texts where tokenizer_config.json names none. */
export async function openTokenizer(folder: string, pad?: string): Promise<ClipTokenizer> {
  const text = async (file: string) => new TextDecoder().decode(await readBytes(join(folder, file)));
  const there = (await readdir(folder)).includes('tokenizer_config.json');
  const config = there ? await readJson(join(folder, 'tokenizer_config.json')) : {};
  const files = { vocab: await text('vocab.json'), merges: await text('merges.txt') };
  return new ClipTokenizer({ ...files, config: pad ? { pad_token: pad, ...config } : config });
}

/** How one network is opened. */
export interface OpenModuleOptions {
  /** Which of several sets of weights to prefer, such as fp16. */
  variant?: string;
  /** Store its weights as halves. */
  dtype?: 'f32' | 'f16';
  /** Told after each tensor. */
  progress?(loaded: number, total: number): void;
}

/**
 * One network with its weights, from whichever of their files is there (`variant` prefers fp16). They come tensor by tensor.
 * @throws ModelFolderError when they are missing, broken, or of another network
 */
export async function openModule<M extends Module>(
  folder: string,
  part: string,
  make: (config: any) => M,
  options: OpenModuleOptions = {},
): Promise<M> {
  const config = await readJson(join(folder, part, 'config.json'));
  const source = await findWeights(join(folder, part), options)
    .then(openWeights)
    .catch((error: Error) => {
      throw new ModelFolderError(
        `${error.message}\n  the model in ${folder} is incomplete or damaged: train or download it again`,
        { cause: error },
      );
    });
  try {
    return await loadModule(currentKeys(part, source), () => make(config), options);
  } finally {
    await source.close();
  }
}

/** A network filled from a source. @throws ModelFolderError when they do not belong together; nothing stays behind then */
export async function loadModule<M extends Module>(
  source: WeightSource,
  make: () => M,
  { dtype = 'f32', progress }: Pick<OpenModuleOptions, 'dtype' | 'progress'> = {},
): Promise<M> {
  const module = parametersAs(dtype, make);
  let loaded = 0;
  try {
    await loadWeights(module, source, { progress: () => progress?.(++loaded, source.entries.size) });
    return module;
  } catch (error) {
    module.dispose();
    throw new ModelFolderError(`${source.name}: ${(error as Error).message}`, { cause: error });
  }
}

/** How weights are stored. */
export interface SaveOptions {
  /** Storage of the weights: f16 for release. */
  dtype?: 'F16' | 'F32';
  /** Goes into the header of the file, such as where the training images came from. */
  metadata?: Record<string, string>;
}

/** One network's configuration and weights. */
export async function saveModule(
  folder: string,
  part: string,
  module: Module & { config: object },
  className: string,
  { dtype = 'F16', metadata }: SaveOptions = {},
): Promise<void> {
  await mkdir(join(folder, part), { recursive: true });
  const state = await module.stateDict();
  for (const tensor of Object.values(state)) tensor.dtype = dtype;
  await writeTensors(join(folder, part, fileOf(part)), state, { format: 'pt', ...metadata });
  const { _class_name: _, ...config } = module.config as { _class_name?: string };
  await writeJson(join(folder, part, 'config.json'), { _class_name: className, ...config });
}

/** Everything but the weights: index, scheduler. */
export async function saveModelIndex(
  folder: string,
  sampling: Partial<Record<NetworkName, SamplingDefaults>>,
): Promise<void> {
  await mkdir(join(folder, 'scheduler'), { recursive: true });
  await writeJson(join(folder, 'scheduler', 'scheduler_config.json'), {
    _class_name: 'RectifiedFlow',
    time: 't = 0 noise, t = 1 image; timestep = 1000 (1 - t)',
    solver: 'euler',
    sampling,
  });
  const present = await networksIn(folder);
  const classes = await Promise.all(
    present.map(async (name) => {
      const { _class_name: className } = await readJson(join(folder, name, 'config.json'));
      return [name, [className === 'StackedUNet' ? 'rectiflow' : 'diffusers', className]] as const;
    }),
  );
  await writeJson(join(folder, 'model_index.json'), {
    _class_name: 'RectifiedFlowPipeline',
    tokenizer: ['transformers', 'CLIPTokenizer'],
    text_encoder: ['transformers', 'CLIPTextModel'],
    vae: ['diffusers', 'AutoencoderKL'],
    scheduler: ['rectiflow', 'RectifiedFlow'],
    ...Object.fromEntries(classes),
  });
}

export async function readJson(file: string): Promise<Record<string, any>> {
  const text = new TextDecoder().decode(await readBytes(file));
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ModelFolderError(`${file}: not JSON (${(error as Error).message})`);
  }
}

export const writeJson = (file: string, value: unknown): Promise<void> =>
  writeAtomic(file, `${JSON.stringify(value, undefined, 2)}\n`);
