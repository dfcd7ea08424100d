/** What goes onto a model or beside it in `sample`: LoRAs, a fine-tuned model, ControlNets. */
import { basename, resolve } from 'node:path';
import type { Pipeline } from '../flow/pipeline.ts';
import type { ControlImage, NetworkName } from '../flow/pipelines/options.ts';
import { openControlNet, readControlConfig } from '../flow/recipe/open-controlnet.ts';
import { applyLoraFiles } from '../flow/recipe/open-model.ts';
import type { OpenModelOptions } from '../flow/recipe/open-model.ts';
import { flag, float, repeated, text, UsageError } from './command.ts';
import { readImage } from './pictures/image.ts';

/** Options of `sample`. */
export const additions = {
  lora: repeated(text(undefined, 'a LoRA file, with :0.8 behind it for another scale than 1; several are added up')),
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

/** The change of a fine-tuned model, for `openModel`. @throws UsageError when one of the two models is missing */
export function deltaOf({ finetuned, base, finetuned_scale: scale }: Values): OpenModelOptions['delta'] {
  if ((finetuned === undefined) !== (base === undefined))
    throw new UsageError('--finetuned and --base go together: the change is the difference of the two');
  return finetuned === undefined ? undefined : { finetuned, base: base!, scale };
}

export const applyLoras = (pipeline: Pipeline, which: NetworkName, { lora = [] }: Values) =>
  applyLoraFiles(pipeline, which, lora.map(parseLora));

/** What tells the sizes of the ControlNets. */
export const controlConfigs = ({ controlnet = [] }: Pick<Values, 'controlnet'>) =>
  Promise.all(controlnet.map(readControlConfig));

/** @throws UsageError when there are not as many images as ControlNets */
export async function openControls(
  values: Values,
  size: { width: number; height: number },
  { variant, dtype, progress }: OpenModelOptions,
): Promise<ControlImage[]> {
  const { controlnet = [], control_image: images = [] } = values;
  if (controlnet.length !== images.length)
    throw new UsageError(
      `${controlnet.length} --controlnet and ${images.length} --control_image: give one image for each`,
    );
  const controls: ControlImage[] = [];
  const told = (loaded: number, total: number) => progress?.('controlnet', loaded, total);
  for (const [i, path] of controlnet.entries()) {
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
