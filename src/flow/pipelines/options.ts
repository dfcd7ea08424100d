/** What pipelines are asked for, and what they answer. */
import type { ControlNetModel } from '../../nn/models/controlnet.ts';
import type { Tensor } from '../../tensor/index.ts';

/** The networks of one model: one step (distilled), the teacher, and what reflow made of it. */
export const networkNames = ['unet', 'unet_teacher', 'unet_reflow'] as const;
/** The name of a network, which is also its folder's. */
export type NetworkName = (typeof networkNames)[number];

/** How a network is best sampled. */
export interface SamplingDefaults {
  steps: number;
  guidanceScale: number;
  /** Its own scheduler_config.json, where that is not the model's. */
  scheduler?: { _class_name?: string };
}

/** After a step. */
export interface SampleStep {
  /** 0 … steps − 1, of those that are run. */
  index: number;
  steps: number;
  timestep: number;
  /** [B, h, w, C] of the batch that is being drawn, freed when the callback returns. */
  latents: Tensor;
  /** First image of the batch. */
  first: number;
}

/** How any pipeline samples. */
export interface DenoiseOptions {
  /** One seed for each image; or one number, and the images count on from it. */
  seeds: number | number[];
  /** The network's own defaults unless given. */
  steps?: number;
  guidanceScale?: number;
  /** One for all images, or one for each. */
  negativePrompt?: string | string[];
  /**
   * A solver of a rectified flow (euler, heun, adams-bashforth, rk45); for models of diffusion ddim, ddpm, dpm++, euler,
   * euler_a, lcm, pndm or a class of diffusers, with the model's own settings; or a whole scheduler_config.json.
   */
  scheduler?: string | object;
  /** DDIM: how much of DDPM's noise to add, 0 to 1. */
  eta?: number;
  /** Images at once. */
  batchSize?: number;
  /** Encode and decode by overlapping tiles with sides of so many pixels: less memory, nearly the same image. */
  vaeTile?: number;
  /** Called after every step, before the next. */
  onStep?(report: SampleStep): void | Promise<void>;
  /** Called every `previewSteps` steps (1) with the images that the network believes in: [B, H, W, 3] in −1 … 1. */
  onPreview?(images: Float32Array, report: SampleStep): void | Promise<void>;
  previewSteps?: number;
  /** Stops after the step that is being done. */
  signal?: AbortSignal;
}

/** A ControlNet, what it sees and how much it counts. */
export interface ControlImage {
  net: ControlNetModel;
  /** [N or 1, height, width, 3] in 0 … 1: edges, depths, poses. */
  image: Float32Array;
  /** 1 unless given. */
  conditioningScale?: number;
  /** The part of the steps in which it counts, of 0 … 1. */
  start?: number;
  end?: number;
}

/** What to draw, and how. */
export interface SampleOptions extends DenoiseOptions {
  prompts: string[];
  which?: NetworkName;
  /** Pixels; what the model was trained on unless given. Multiples of 8 for Stable Diffusion. */
  height?: number;
  width?: number;
  /** Begin with these images instead of noise: [N or 1, height, width, 3] in −1 … 1. */
  image?: Float32Array;
  /** How much of the way is walked again: 0 leaves the image, 1 leaves nothing of it (0.8; 1 with a mask). */
  strength?: number;
  /** Where to paint anew, [N or 1, height, width]: 1 there, 0 where the image stays. */
  mask?: Float32Array;
  /** [N, h, w, C] to start from, instead of noise by seed. */
  noise?: Float32Array;
  /** ControlNets, whose sums go into the network. */
  controls?: readonly ControlImage[];
  /** Control without a text: falls off towards high resolutions, and is absent from the half without texts. */
  guessMode?: boolean;
}

/** Where the time went. */
export interface Timings {
  /** Seconds, for all images together. */
  text: number;
  /** The encoder, when there is an image to begin with. */
  encoder: number;
  network: number;
  decoder: number;
  /** The safety checker, where there is one. */
  safety: number;
  total: number;
}

/** The images, and how they came about. */
export interface SampleResult {
  /** [N, H, W, 3] in −1 … 1. */
  images: Float32Array;
  count: number;
  height: number;
  width: number;
  /** [N, h, w, C], as the last step left them. */
  latents: Float32Array;
  seeds: number[];
  /** Steps that were asked for; with a strength below 1 fewer are run. */
  steps: number;
  guidanceScale: number;
  /** Name of the scheduler, and for a rectified flow of its solver. */
  sampler: string;
  /** Which images the safety checker flagged: they are black. Absent where nothing checks. */
  nsfwContentDetected?: boolean[];
  /** Network evaluations for one batch; guidance doubles what each costs. */
  evaluations: number;
  timings: Timings;
  warnings: string[];
}

/** What was asked for cannot be painted. */
export class PromptError extends Error {
  override name = 'PromptError';
}
