/** What goes onto a model or beside it in `sample`: LoRAs, a fine-tuned model, ControlNets. */
import { basename, resolve } from 'node:path';
import type { Pipeline } from '../flow/pipeline.ts';
import type { ControlImage, NetworkName } from '../flow/pipelines/options.ts';
import { openControlNet, readControlConfig } from '../flow/recipe/open-controlnet.ts';
import { applyLoraFiles } from '../flow/recipe/open-model.ts';
import type { OpenModelOptions } from '../flow/recipe/open-model.ts';
import { flag, float, repeated, text, UsageError } from './command.ts';
import { modelPath } from './model-path.ts';
import { readImage } from './pictures/image.ts';

/** Options of `sample`. Each is a path, or an id of the hub. */
export const additions = {
  lora: repeated(text(undefined, 'a LoRA, with :0.8 behind it for another scale than 1; several are added up')),
  finetuned: text(undefined, 'a fine-tuned model whose change is added to the model, such as onto InstaFlow'),
  base: text(undefined, 'with --finetuned: the model that it was fine-tuned from'),
  finetuned_scale: float(1, 'how much of that change'),
  controlnet: repeated(text(undefined, 'a ControlNet: a folder, or its .pth or .safetensors; several are added up')),
  control_image: repeated(text(undefined, 'what each ControlNet sees, in their order: edges, depths, poses')),
  controlnet_conditioning_scale: float(1, 'how much the ControlNets count'),
  control_guidance_start: float(0, 'the share of the steps from which they count', { min: 0, max: 1 }),
  control_guidance_end: float(1, 'and up to which', { min: 0, max: 1 }),
  guess_mode: flag(false, 'ControlNets without help from the text'),
};

type Values = {
  lora?: string[];
  finetuned?: string;
  base?: string;
  finetuned_scale: number;
  controlnet?: string[];
  control_image?: string[];
  controlnet_conditioning_scale: number;
  control_guidance_start: number;
  control_guidance_end: number;
};

/** 'logo.safetensors:0.8' → the file and its scale; a colon may be part of a path. */
export function parseLora(word: string): { file: string; scale: number } {
  const [, file, scale] = /^(.+):(-?\d*\.?\d+)$/.exec(word) ?? [undefined, word, '1'];
  return { file, scale: Number(scale) };
}

/** Where they lie, after what is only on the hub was fetched. */
export interface Additions {
  loras: { file: string; scale: number }[];
  delta: OpenModelOptions['delta'];
  controlnets: string[];
}

/** @throws UsageError when one of two models is missing, or an image of a ControlNet */
export async function findAdditions(values: Values, variant?: string): Promise<Additions> {
  const { lora = [], finetuned, base, finetuned_scale: scale, controlnet = [], control_image: images = [] } = values;
  if ((finetuned === undefined) !== (base === undefined))
    throw new UsageError('--finetuned and --base go together: the change is the difference of the two');
  if (controlnet.length !== images.length)
    throw new UsageError(
      `${controlnet.length} --controlnet and ${images.length} --control_image: give one image for each`,
    );
  const loras: Additions['loras'] = [];
  for (const { file, scale } of lora.map(parseLora)) loras.push({ file: await modelPath(file), scale });
  const controlnets: string[] = [];
  for (const word of controlnet) controlnets.push(await modelPath(word));
  if (finetuned === undefined) return { loras, delta: undefined, controlnets };
  const delta = { finetuned: await modelPath(finetuned, { variant }), base: await modelPath(base, { variant }), scale };
  return { loras, delta, controlnets };
}

export const applyLoras = (pipeline: Pipeline, which: NetworkName, { loras }: Additions) =>
  applyLoraFiles(pipeline, which, loras);

/** What tells the sizes of the ControlNets. */
export const controlConfigs = (controlnets: readonly string[]) => Promise.all(controlnets.map(readControlConfig));

export async function openControls(
  { controlnets }: Additions,
  values: Values,
  size: { width: number; height: number },
  { variant, dtype, progress }: OpenModelOptions,
): Promise<ControlImage[]> {
  const { control_image: images = [] } = values;
  const controls: ControlImage[] = [];
  const told = (loaded: number, total: number) => progress?.('controlnet', loaded, total);
  for (const [i, path] of controlnets.entries()) {
    const image = (await readImage(images[i], size)).map((v) => v / 2 + 0.5);
    controls.push({
      net: await openControlNet(path, { variant, dtype, progress: told }),
      image,
      conditioningScale: values.controlnet_conditioning_scale,
      start: values.control_guidance_start,
      end: values.control_guidance_end,
    });
  }
  return controls;
}

/** What a picture says of them. */
export function recordOf({ lora = [], finetuned, finetuned_scale, controlnet = [] }: Values): Record<string, string> {
  const names = (words: readonly string[]) => words.map((word) => basename(resolve(word))).join(', ');
  return {
    ...(lora.length ? { Lora: names(lora) } : {}),
    ...(finetuned ? { 'Fine-tuned': `${names([finetuned])}:${finetuned_scale}` } : {}),
    ...(controlnet.length ? { ControlNet: names(controlnet) } : {}),
  };
}
