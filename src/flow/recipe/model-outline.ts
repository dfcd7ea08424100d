/** What a model is, read from its configurations alone: its weights need not be there. */
import { readdir, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { builtIn } from '../estimate/outline.ts';
import type { ModelOutline } from '../estimate/outline.ts';
import type { NetworkName } from '../pipelines/options.ts';
import { ModelFolderError, readJson } from './model-folder.ts';
import { openModelParts } from './model-parts.ts';
import { indexOf, isRectifiedFlow, schedulerOf, sdScheduler, usualSampling } from './model-index.ts';
import { visionConfig } from './safety-checker.ts';

/** What its files do not say. */
export interface OutlineOptions {
  /** The network predicts the velocity of a rectified flow. */
  rectifiedFlow?: boolean;
  /** A safety checker looks at the images. */
  safetyChecker?: boolean;
}

/**
 * A folder or file as `openModel` or `openRefiner` would open it; or the name of a model in `builtIn`.
 * @throws ModelFolderError when it is none of these, or lacks a configuration
 */
export async function readOutline(
  model: string,
  which: NetworkName = 'unet',
  { rectifiedFlow, safetyChecker }: OutlineOptions = {},
): Promise<ModelOutline> {
  const info = await stat(model).catch(() => undefined);
  if (info?.isDirectory())
    return {
      ...(await outlineOfFolder(model, which, rectifiedFlow)),
      ...(safetyChecker && {
        safetyChecker: visionConfig(await readJson(join(model, 'safety_checker', 'config.json'))),
      }),
    };
  if (info) return outlineOfFile(model, rectifiedFlow);
  const known = Object.keys(builtIn).find((name) => name === model.toLowerCase());
  if (known) return { ...builtIn[known], ...(safetyChecker && { safetyChecker: {} }) };
  throw new ModelFolderError(
    `${model}: no such folder or file\n  known without files: ${Object.keys(builtIn).join(', ')}`,
  );
}

async function outlineOfFolder(folder: string, which: NetworkName, rectifiedFlow?: boolean): Promise<ModelOutline> {
  const parts = await readdir(folder);
  const config = (part: string) => readJson(join(folder, part, 'config.json'));
  const isRefiner = parts.includes('text_encoder_2') && !parts.includes('text_encoder');
  if (parts.includes('text_encoder_2') && !isRefiner) throw noPipeline(folder);
  const common = {
    name: `${basename(folder)}/${which}`,
    textEncoder: await config(isRefiner ? 'text_encoder_2' : 'text_encoder'),
    vae: await config('vae'),
    network: await config(which),
  };
  const scheduler = (await schedulerOf(folder)) as { _class_name?: string; sampling?: any } | undefined;
  if (isRefiner) return { ...refiner, ...common, scheduler: scheduler ?? refiner.scheduler };
  if (parts.some((name) => name.startsWith('unet_')))
    return {
      ...common,
      kind: 'unet',
      scheduler: scheduler?.sampling?.[which]?.scheduler ?? scheduler,
      defaults: scheduler?.sampling?.[which] ?? usualSampling(true),
    };
  return { ...common, ...wayOf(rectifiedFlow ?? isRectifiedFlow(await indexOf(folder)), scheduler) };
}

const refiner = builtIn['sdxl-refiner'];

/** How Stable Diffusion 1.x and InstaFlow are sampled. */
const wayOf = (isFlow: boolean, scheduler?: object) => ({
  kind: 'unet' as const,
  scheduler: isFlow ? { _class_name: 'RectifiedFlow' } : (scheduler ?? sdScheduler),
  defaults: usualSampling(isFlow),
});

async function outlineOfFile(file: string, rectifiedFlow = false): Promise<ModelOutline> {
  const parts = await openModelParts(file);
  try {
    if (parts.family === 'sdxl') throw noPipeline(file);
    const isRefiner = parts.family === 'sdxl-refiner';
    const common = {
      name: basename(file),
      textEncoder: await parts.config(isRefiner ? 'text_encoder_2' : 'text_encoder'),
      vae: await parts.config('vae'),
      network: await parts.config('unet'),
    };
    return isRefiner ? { ...refiner, ...common } : { ...common, ...wayOf(rectifiedFlow) };
  } finally {
    await parts.close();
  }
}

const noPipeline = (path: string) =>
  new ModelFolderError(`${path}: a model of Stable Diffusion XL, which has no pipeline here; its refiner has`);
