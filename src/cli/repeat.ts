/** What a picture says about how it was made, as options of `sample`. */
import { parseParameters, readPng } from './pictures/png.ts';

/** How a picture came about, as far as its parameters tell. */
export interface Recorded {
  prompt?: string;
  negative_prompt?: string;
  steps?: number;
  guidance_scale?: number;
  seed?: number;
  width?: number;
  height?: number;
  scheduler?: string;
  strength?: number;
  /** 'emoji/unet' */
  model?: string;
  /** Name of the image that it began with, and of the mask. */
  image?: string;
  mask?: string;
  /** Name of the file that the noise came from. */
  latents?: string;
  /** Names of what was on the model or beside it. */
  lora?: string;
  finetuned?: string;
  controlnet?: string;
}

/** Names of samplers that other tools write. */
const others: Record<string, string> = {
  'euler a': 'euler_a',
  'dpm++ 2m': 'dpm++',
  'dpm++ 2m karras': 'dpm++',
  plms: 'pndm',
};

/** 'RectifiedFlow heun' → 'heun', 'DPMSolverMultistep' → 'DPMSolverMultistepScheduler', 'Euler a' → 'euler_a' */
function schedulerOf(sampler: string): string {
  const known = others[sampler.toLowerCase()];
  if (known) return known;
  if (sampler.startsWith('RectifiedFlow ')) return sampler.slice('RectifiedFlow '.length);
  if (/^(DDIM|DDPM|DPMSolverMultistep|LCM|PNDM)$/.test(sampler)) return `${sampler}Scheduler`;
  if (/^Euler(Ancestral)?$/.test(sampler)) return `${sampler}DiscreteScheduler`;
  return sampler.toLowerCase();
}

/** @throws Error when the file is no PNG, or says nothing of how it was made */
export async function readRecorded(file: string): Promise<Recorded> {
  const { parameters } = await readPng(file);
  if (!parameters)
    throw new Error(
      `${file}: does not say how it was made\n  pictures of this and of other tools have a text "parameters"; editing often removes it`,
    );
  const { prompt, negativePrompt, settings } = parseParameters(parameters);
  const number = (name: string) => (settings[name] === undefined ? undefined : Number(settings[name]));
  const [width, height] =
    /^(\d+)x(\d+)$/
      .exec(settings.Size ?? '')
      ?.slice(1)
      .map(Number) ?? [];
  const recorded: Recorded = {
    prompt: prompt || undefined,
    negative_prompt: negativePrompt || undefined,
    steps: number('Steps'),
    guidance_scale: number('CFG scale'),
    seed: number('Seed'),
    width,
    height,
    scheduler: settings.Sampler && schedulerOf(settings.Sampler),
    strength: number('Denoising strength'),
    model: settings.Model,
    image: settings['Init image'],
    mask: settings.Mask,
    latents: settings.Latents,
    lora: settings.Lora,
    finetuned: settings['Fine-tuned'],
    controlnet: settings.ControlNet,
  };
  for (const [name, value] of Object.entries(recorded))
    if (typeof value === 'number' && !Number.isFinite(value))
      throw new Error(`${file}: its parameters are damaged: ${name} is no number\n  ${parameters.split('\n').at(-1)}`);
  return recorded;
}
