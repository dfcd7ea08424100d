/** Text → image: tokenizer, text encoder, flow network, decoder. No files here; see recipe/model-folder.ts. */
import type { AutoencoderKL, CLIPTextModel, UNet2DConditionModel } from '../nn/index.ts';
import type { ClipTokenizer } from '../nn/tokenizer.ts';
import { currentGpu, noGrad, scope, tensor } from '../tensor/index.ts';
import type { Tensor } from '../tensor/index.ts';
import { guided } from './guidance.ts';
import type { ConditionalVelocity } from './guidance.ts';
import { latentSize, seededNoise, unscaleLatents } from './latents.ts';
import type { LatentScale, LatentShape } from './latents.ts';
import { timestepOf } from './rectified-flow.ts';
import { solve } from './solvers.ts';
import type { SolverName } from './solvers.ts';

/** The networks of one model: one step (distilled), the teacher, and what reflow made of it. */
export const networkNames = ['unet', 'unet_teacher', 'unet_reflow'] as const;
/** The name of a network, which is also its folder's. */
export type NetworkName = (typeof networkNames)[number];

/** How a network is best sampled, from scheduler/scheduler_config.json. */
export interface SamplingDefaults {
  steps: number;
  guidanceScale: number;
}

/** What a model is made of. */
export interface PipelineParts {
  tokenizer: ClipTokenizer;
  textEncoder: CLIPTextModel;
  vae: AutoencoderKL;
  networks: Partial<Record<NetworkName, UNet2DConditionModel>>;
  defaults: Partial<Record<NetworkName, SamplingDefaults>>;
}

/** What to draw, and how. */
export interface SampleOptions {
  prompts: string[];
  /** One seed for each prompt; or one number, and the images count on from it. */
  seeds: number | number[];
  which?: NetworkName;
  /** The network's own defaults unless given. */
  steps?: number;
  guidanceScale?: number;
  negativePrompt?: string;
  solver?: SolverName;
  rtol?: number;
  atol?: number;
  /** [N, h, w, C] to start from, instead of noise by seed. */
  noise?: Float32Array;
  /** Images at once. */
  batchSize?: number;
}

/** Where the time went. */
export interface Timings {
  /** Seconds, for all images together. */
  text: number;
  network: number;
  decoder: number;
  total: number;
}

/** The images, and how they came about. */
export interface SampleResult {
  /** [N, H, W, 3] in −1 … 1. */
  images: Float32Array;
  count: number;
  height: number;
  width: number;
  /** [N, h, w, C], as the flow ended. */
  latents: Float32Array;
  seeds: number[];
  steps: number;
  guidanceScale: number;
  solver: SolverName;
  /** Network evaluations for one batch; guidance doubles what each costs. */
  evaluations: number;
  timings: Timings;
  warnings: string[];
}

/** What was asked for cannot be painted. */
export class PromptError extends Error {
  override name = 'PromptError';
}

/** A whole model: text → image. `openModelFolder` makes one from files; `sample` draws. */
export class Pipeline {
  constructor(readonly parts: PipelineParts) {}

  /** One of the networks. @throws Error when the model was opened without it */
  network(which: NetworkName): UNet2DConditionModel {
    const network = this.parts.networks[which];
    if (!network)
      throw new Error(`this model has no ${which}\n  it has: ${Object.keys(this.parts.networks).join(', ')}`);
    return network;
  }

  /** Shape of the latents that the networks were trained on. */
  get latentShape(): LatentShape {
    const { sample_size, in_channels } = Object.values(this.parts.networks)[0]!.config;
    return [sample_size, sample_size, in_channels];
  }

  /** Texts → [N, T, D], and what did not fit. */
  encodePrompts(prompts: string[]): { text: Tensor; warnings: string[] } {
    const { tokenizer, textEncoder } = this.parts;
    const { ids, cut } = tokenizer.encodeBatch(prompts);
    const warnings = [
      ...new Set(
        cut.flatMap((rest, i) =>
          rest ? [`"${prompts[i]}" is longer than ${tokenizer.maxLength} tokens; left out: "${rest}"`] : [],
        ),
      ),
    ];
    const text = noGrad(() =>
      scope(
        () => textEncoder.forward(tensor(ids, [prompts.length, tokenizer.maxLength], { dtype: 'i32' })).lastHiddenState,
      ),
    );
    return { text, warnings };
  }

  /** Latents [N, h, w, C] at the flow's scale → images [N, H, W, 3]. */
  decode(latents: Tensor): Tensor {
    return noGrad(() => scope(() => this.parts.vae.decode(latents)));
  }

  /** The network as a function of z, t and text. */
  conditional(which: NetworkName): ConditionalVelocity {
    const network = this.network(which);
    return (z, t, text) => noGrad(() => scope(() => network.forward(z, timestepOf(t), text)));
  }

  /** Draw an image for each prompt. @throws PromptError when a prompt, seed or noise does not fit */
  async sample(options: SampleOptions): Promise<SampleResult> {
    const { prompts, which = 'unet', solver = 'euler', batchSize = 16 } = options;
    if (prompts.length === 0) throw new PromptError('no prompt');
    if (prompts.some((prompt) => prompt.trim() === ''))
      throw new PromptError('the prompt is empty\n  say what to paint, such as "red apple"');
    const seeds =
      typeof options.seeds === 'number' ? prompts.map((_, i) => (options.seeds as number) + i) : options.seeds;
    if (seeds.length !== prompts.length) throw new PromptError(`${seeds.length} seeds for ${prompts.length} prompts`);
    const { steps = 1, guidanceScale = 1 } = { ...this.parts.defaults[which], ...defined(options) };
    const shape = this.latentShape;
    const size = latentSize(shape);
    const noise = options.noise ?? concatenate(seeds.map((seed) => seededNoise(seed, shape)));
    if (noise.length !== prompts.length * size) {
      throw new PromptError(
        `noise has ${noise.length} numbers; ${prompts.length} latents of [${shape.join(', ')}] have ${prompts.length * size}`,
      );
    }
    const results: { images: Float32Array; latents: Float32Array }[] = [];
    const timings: Timings = { text: 0, network: 0, decoder: 0, total: 0 };
    const warnings = new Set<string>();
    const start = performance.now();
    let evaluations = 0;
    let height = 0,
      width = 0;
    const timed = async <T>(what: 'text' | 'network' | 'decoder', work: () => T | Promise<T>): Promise<T> => {
      const from = performance.now();
      const result = await work();
      await currentGpu().idle();
      timings[what] += (performance.now() - from) / 1000;
      return result;
    };
    for (let from = 0; from < prompts.length; from += batchSize) {
      await scope(async () => {
        const part = prompts.slice(from, from + batchSize);
        const { text, nullText } = await timed('text', () => {
          const encoded = this.encodePrompts(part);
          encoded.warnings.forEach((warning) => warnings.add(warning));
          const none = guidanceScale > 1 ? this.encodePrompts(part.map(() => options.negativePrompt ?? '')) : undefined;
          return { text: encoded.text, nullText: none?.text };
        });
        const z0 = tensor(noise.subarray(from * size, (from + part.length) * size), [part.length, ...shape]);
        const velocity = guided(this.conditional(which), text, nullText, guidanceScale);
        const solved = await timed('network', () =>
          solve(solver, velocity, z0, { steps, rtol: options.rtol, atol: options.atol }),
        );
        evaluations = solved.evaluations;
        const latents = (await solved.z.read()) as Float32Array;
        const scaled = tensor(unscaleLatents(latents, shape[2], this.parts.vae.config as LatentScale), [
          part.length,
          ...shape,
        ]);
        const decoded = await timed('decoder', () => this.decode(scaled));
        [, height, width] = decoded.shape;
        results.push({ images: (await decoded.read()) as Float32Array, latents });
      });
    }
    timings.total = (performance.now() - start) / 1000;
    return {
      images: concatenate(results.map((r) => r.images)),
      latents: concatenate(results.map((r) => r.latents)),
      count: prompts.length,
      height,
      width,
      seeds,
      steps,
      guidanceScale,
      solver,
      evaluations,
      timings,
      warnings: [...warnings],
    };
  }

  /** Free the weights of all parts. */
  dispose(): void {
    const { textEncoder, vae, networks } = this.parts;
    for (const module of [textEncoder, vae, ...Object.values(networks)]) module.dispose();
  }
}

export function concatenate(arrays: readonly Float32Array[]): Float32Array {
  const out = new Float32Array(arrays.reduce((sum, a) => sum + a.length, 0));
  let at = 0;
  for (const array of arrays) {
    out.set(array, at);
    at += array.length;
  }
  return out;
}

/** Without the fields that are undefined, which would hide defaults. */
const defined = <T extends object>(options: T): Partial<T> =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Partial<T>;
