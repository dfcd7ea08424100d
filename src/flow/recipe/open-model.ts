/** A model that can draw, whichever way it lies on disk: a folder of this project or of diffusers, or one file. */
import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { exists } from '../../tensor/io/files-node.ts';
import { AutoencoderKL, CLIPTextModel, UNet2DConditionModel } from '../../nn/index.ts';
import type { StateDict } from '../../nn/index.ts';
import { deltaParts } from '../../nn/delta-weights.ts';
import { mergeLoras } from '../../nn/lora-apply.ts';
import type { AppliedLoras, ScaledLora } from '../../nn/lora-apply.ts';
import { readLora } from '../../nn/lora-read.ts';
import { networkOf } from '../../nn/models/network.ts';
import type { Module } from '../../nn/module.ts';
import type { PartName } from '../../nn/single-file/model.ts';
import type { ClipTokenizer } from '../../nn/tokenizer.ts';
import { readFloat32 } from '../../tensor/io/weights.ts';
import { openWeights } from '../../tensor/io/weights-node.ts';
import { Pipeline } from '../pipeline.ts';
import type { NetworkName } from '../pipelines/options.ts';
import { RefinerPipeline } from '../pipelines/refiner.ts';
import { loadModule, ModelFolderError, openModelFolder, openTokenizer } from './model-folder.ts';
import { indexOf, isRectifiedFlow, refinerScheduler, schedulerOf, sdScheduler, usualSampling } from './model-index.ts';
import { openModelParts } from './model-parts.ts';
import type { ModelParts } from './model-parts.ts';
import { openSafetyChecker, safetyCheckerIn } from './safety-checker.ts';

/** How a model is opened. */
export interface OpenModelOptions {
  /** Networks that are read, of a model that has several. */
  networks?: readonly NetworkName[];
  /** Store weights and activations as halves: half the memory; sums stay f32. */
  dtype?: 'f32' | 'f16';
  /** Which of several sets of weights to prefer, such as fp16. */
  variant?: string;
  /** Folder with vocab.json and merges.txt, for a file that comes without. */
  tokenizer?: string;
  /** The network predicts the velocity of a rectified flow, where nothing says so. */
  rectifiedFlow?: boolean;
  /**
   * Add what fine-tuning changed: W + scale (W_finetuned − W_base), with the text encoder and the autoencoder of the
   * fine-tuned model. How fine-tuned models of Stable Diffusion go onto InstaFlow.
   */
  delta?: { finetuned: string; base: string; scale?: number };
  /** Hide what the model's safety checker flags. As long as nothing is said: when its weights are there. */
  safetyChecker?: boolean;
  /** Told of each tensor that was loaded. */
  progress?(part: string, loaded: number, total: number): void;
}

/**
 * Open a model of Stable Diffusion 1.x or InstaFlow (also the 1.7B, as two U-Nets in a row), or one that `train` made. A diffusers folder whose model_index.json
 * names a RectifiedFlowPipeline is a rectified flow: its scheduler_config.json belongs to the model it came from.
 * @throws ModelFolderError when it is none of these, or not whole
 */
export async function openModel(path: string, options: OpenModelOptions = {}): Promise<Pipeline> {
  const { dtype, variant, progress } = options;
  const checks = options.safetyChecker ?? (await safetyCheckerIn(path)) === 'weights';
  const told = (loaded: number, total: number) => progress?.('safety_checker', loaded, total);
  const safety = checks ? await openSafetyChecker(path, { dtype, variant, progress: told }) : {};
  try {
    const pipeline = await openParts(path, options);
    Object.assign(pipeline.parts, safety);
    return pipeline;
  } catch (error) {
    safety.safetyChecker?.dispose();
    throw error;
  }
}

async function openParts(path: string, options: OpenModelOptions): Promise<Pipeline> {
  const index = await indexOf(path);
  if (index && (await readdir(path)).some((name) => name.startsWith('unet_'))) return openModelFolder(path, options);
  const parts = await openWithDelta(path, options);
  try {
    if (parts.family !== 'sd1') {
      throw new ModelFolderError(
        `${path}: a model of Stable Diffusion XL${parts.family === 'sdxl' ? ', which has no pipeline here' : "'s refiner"}\n  ` +
          `Stable Diffusion 1.x and InstaFlow draw; the refiner goes over what they drew: --refiner`,
      );
    }
    const tokenizer = await tokenizerOf(path, 'tokenizer', options);
    const isFlow = options.rectifiedFlow ?? isRectifiedFlow(index);
    const scheduler = isFlow ? { _class_name: 'RectifiedFlow' } : ((await schedulerOf(path)) ?? sdScheduler);
    const [textEncoder, vae, unet] = await together(
      () => load(parts, 'text_encoder', (config) => new CLIPTextModel(config), options),
      () => load(parts, 'vae', (config) => new AutoencoderKL(config), options),
      () => load(parts, 'unet', networkOf, options),
    );
    const defaults = { unet: usualSampling(isFlow) };
    return new Pipeline({ tokenizer, textEncoder, vae, networks: { unet }, defaults, scheduler });
  } finally {
    await parts.close();
  }
}

/** Open Stable Diffusion XL's refiner. @throws ModelFolderError when it is another model, or not whole */
export async function openRefiner(path: string, options: OpenModelOptions = {}): Promise<RefinerPipeline> {
  const parts = await openModelParts(path, options);
  try {
    if (parts.family !== 'sdxl-refiner')
      throw new ModelFolderError(
        `${path}: not Stable Diffusion XL's refiner, but a model of the family ${parts.family}`,
      );
    const tokenizer = await tokenizerOf(path, 'tokenizer_2', options, '!');
    const scheduler = (await schedulerOf(path)) ?? refinerScheduler;
    const encoder = (config: object) => new CLIPTextModel(config, { projection: true });
    const [textEncoder, vae, network] = await together(
      () => load(parts, 'text_encoder_2', encoder, options),
      () => load(parts, 'vae', (config) => new AutoencoderKL(config), options),
      () => load(parts, 'unet', (config) => new UNet2DConditionModel(config), options),
    );
    return new RefinerPipeline({ tokenizer, textEncoder, vae, network, scheduler });
  } finally {
    await parts.close();
  }
}

/** LoRAs from files, merged into a pipeline's network and text encoder. @throws LoraError when one does not fit */
export async function applyLoraFiles(
  pipeline: Pipeline,
  which: NetworkName,
  files: readonly { file: string; scale: number }[],
): Promise<AppliedLoras> {
  const loras: ScaledLora[] = [];
  try {
    for (const { file, scale } of files) {
      const source = await openWeights(file);
      try {
        const tensors: StateDict = {};
        for (const key of source.entries.keys()) tensors[key] = await readFloat32(source, key);
        const { lora } = readLora(tensors, pipeline.loraModels(which), { name: file, metadata: source.metadata });
        loras.push({ lora, scale });
      } finally {
        await source.close();
      }
    }
    return mergeLoras(loras);
  } finally {
    for (const { lora } of loras) lora.dispose();
  }
}

/** The parts of a model, with what a fine-tuned one adds. */
async function openWithDelta(path: string, options: OpenModelOptions): Promise<ModelParts> {
  const flow = await openModelParts(path, options);
  if (!options.delta) return flow;
  const opened = [flow];
  const close = async () => {
    for (const parts of opened) await parts.close();
  };
  try {
    const { finetuned, base, scale } = options.delta;
    for (const other of [finetuned, base]) opened.push(await openModelParts(other, options));
    const [, tuned, origin] = opened;
    const all = { flow: flow.sources, finetuned: tuned.sources, base: origin.sources };
    const sources = deltaParts(all, { alpha: scale });
    return { ...flow, sources, config: (part) => (part === 'unet' ? flow : tuned).config(part), close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** From the model's folder, the one that is named, or one beside a single file. */
async function tokenizerOf(
  path: string,
  name: string,
  options: OpenModelOptions,
  pad?: string,
): Promise<ClipTokenizer> {
  const beside = [join(path, name), join(dirname(path), name), join(dirname(path), 'tokenizer')];
  const places = options.tokenizer === undefined ? beside : [options.tokenizer];
  for (const folder of places) if (await exists(join(folder, 'merges.txt'))) return openTokenizer(folder, pad);
  throw new ModelFolderError(
    `${path}: no tokenizer with it\n  looked for  ${places.map((place) => join(place, 'merges.txt')).join('\n              ')}\n  ` +
      'give --tokenizer, a folder with vocab.json and merges.txt of CLIP',
  );
}

async function load<M extends Module>(
  parts: ModelParts,
  part: PartName,
  make: (config: any) => M,
  { dtype, progress }: OpenModelOptions,
): Promise<M> {
  const source = parts.sources[part];
  if (!source) throw new ModelFolderError(`the model has no ${part}`);
  const config = await parts.config(part);
  const told = (loaded: number, total: number) => progress?.(part, loaded, total);
  return loadModule(source, () => make(config), { dtype, progress: told });
}

/** One after the other; when one fails, those before it are freed. */
async function together<T extends { dispose(): void }[]>(
  ...makers: { [K in keyof T]: () => Promise<T[K]> }
): Promise<T> {
  const made: { dispose(): void }[] = [];
  try {
    for (const make of makers) made.push(await make());
    return made as T;
  } catch (error) {
    for (const module of made) module.dispose();
    throw error;
  }
}
