/** Image → image by Stable Diffusion XL's refiner: the second pass over what another model drew. */
import type { AddedConditions, AutoencoderKL, CLIPTextModel, UNet2DConditionModel } from '../../nn/index.ts';
import type { ClipTokenizer } from '../../nn/tokenizer.ts';
import { concat, noGrad, scope, tensor } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { guided } from '../guidance.ts';
import type { LatentShape } from '../latents.ts';
import type { Scheduler } from '../schedulers/index.ts';
import { chooseScheduler } from './choose-scheduler.ts';
import { denoise, drawBatches, seedsOf, startOf } from './denoise.ts';
import { encodeImages } from './images.ts';
import type { NoiseSource } from './noise.ts';
import { PromptError } from './options.ts';
import type { DenoiseOptions, SampleResult } from './options.ts';
import { hiddenWarnings } from './safety.ts';
import type { SafetyParts } from './safety.ts';

/** What the refiner is made of. Its text encoder has a projection, its tokenizer pads with "!". */
export interface RefinerParts extends SafetyParts {
  tokenizer: Pick<ClipTokenizer, 'encode' | 'maxLength'>;
  textEncoder: CLIPTextModel;
  vae: AutoencoderKL;
  network: UNet2DConditionModel;
  /** Its scheduler_config.json. */
  scheduler: { _class_name?: string };
}

/** What to refine, and how. Defaults are those of diffusers' StableDiffusionXLImg2ImgPipeline. */
export interface RefineOptions extends DenoiseOptions {
  prompts: string[];
  /** [N, height, width, 3] in −1 … 1. */
  images?: Float32Array;
  /** Or latents [N, h, w, 4] of a model with the same autoencoder, at the scale that networks work at. */
  latents?: Float32Array;
  height: number;
  width: number;
  /** How much of the way is walked again (0.3). */
  strength?: number;
  /** The latents are what another network left after this share of its steps: go on from there, without noise. */
  denoisingStart?: number;
  /** Scores from 1 to 10 that the network is told (6 and 2.5). */
  aestheticScore?: number;
  negativeAestheticScore?: number;
}

/**
 * The refiner. Text comes from the last layer but one, without the final norm; sizes and scores go in beside it.
 * @see Podell et al. 2023, SDXL, §2.5. https://arxiv.org/abs/2307.01952
 */
export class RefinerPipeline {
  constructor(readonly parts: RefinerParts) {}

  /** @throws PromptError when prompts, images or sizes do not fit each other */
  async refine(options: RefineOptions): Promise<SampleResult> {
    const { prompts, batchSize = 4, steps = 50, guidanceScale = 5 } = options;
    const { vae, scheduler: own } = this.parts;
    const shape = this.#shapeOf(options);
    const seeds = seedsOf(options.seeds, prompts.length);
    using scheduler = chooseScheduler(own, options.scheduler);
    const { dtype } = this.parts.network.conv_in.weight;
    const plan = { vae, shape, seeds, steps, scheduler, batchSize, safety: this.parts };
    const result = await drawBatches(plan, options, async ({ first, last, noises, clock, warnings }) => {
      const told = await clock.time('text', () => this.#conditions(options, first, last, warnings));
      const begin = await clock.time('encoder', () => this.#begin(options, scheduler, noises, first, last));
      const network = guided(
        (z, t, text) =>
          noGrad(() =>
            scope(() => {
              const added = z.shape[0] > last - first ? told.both : told.added;
              return this.parts.network.forward(z.to(dtype), t, text.to(dtype), added).to('f32');
            }),
          ),
        told.text,
        guidanceScale > 1 ? told.without : undefined,
        guidanceScale,
      );
      return clock.time('network', () =>
        denoise(scheduler, network, begin.sample, {
          ...options,
          start: begin.start,
          noises,
          vae,
          safety: this.parts,
          first,
        }),
      );
    });
    return { ...result, warnings: [...result.warnings, ...hiddenWarnings(prompts, result)], guidanceScale };
  }

  /** Texts → [N, T, D] of the last layer but one, and a vector for each whole text: [N, P]. */
  encodePrompts(prompts: string[]): { text: Tensor; pooled: Tensor; warnings: string[] } {
    const { tokenizer, textEncoder } = this.parts;
    const encoded = prompts.map((prompt) => tokenizer.encode(prompt));
    const ids = encoded.map((row) => row.ids);
    const [text, pooled] = noGrad(() =>
      scope(() => {
        const { lastHiddenState, hiddenStates } = textEncoder.forward(ids);
        return [hiddenStates.at(-2)!, textEncoder.project(textEncoder.pool(lastHiddenState, ids))];
      }),
    );
    const warnings = encoded.flatMap(({ cut }, i) =>
      cut ? [`"${prompts[i]}" is longer than ${tokenizer.maxLength} tokens; left out: "${cut}"`] : [],
    );
    return { text, pooled, warnings };
  }

  /** Free the weights of all parts. */
  dispose(): void {
    const { textEncoder, vae, network, safetyChecker } = this.parts;
    for (const module of [textEncoder, vae, network, safetyChecker]) module?.dispose();
  }

  /** For `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  #conditions(options: RefineOptions, first: number, last: number, warnings: Set<string>) {
    const { prompts, negativePrompt = '', height, width, aestheticScore = 6, negativeAestheticScore = 2.5 } = options;
    const part = prompts.slice(first, last);
    const encoded = this.encodePrompts(part);
    for (const warning of encoded.warnings) warnings.add(warning);
    const none = this.encodePrompts(
      part.map((_, i) => (typeof negativePrompt === 'string' ? negativePrompt : negativePrompt[first + i])),
    );
    const ids = (score: number) => part.map(() => [height, width, 0, 0, score]);
    const added: AddedConditions = { textEmbeds: encoded.pooled, timeIds: ids(aestheticScore) };
    const both: AddedConditions = {
      textEmbeds: concat([none.pooled, encoded.pooled], { axis: 0 }),
      timeIds: [...ids(negativeAestheticScore), ...added.timeIds],
    };
    return { text: encoded.text, without: none.text, added, both };
  }

  async #begin(options: RefineOptions, scheduler: Scheduler, noises: NoiseSource, first: number, last: number) {
    const { images, latents, strength = 0.3, denoisingStart, height, width } = options;
    const count = last - first;
    const take = (all: Float32Array, each: readonly number[]) => {
      const size = each.reduce((n, d) => n * d, 1);
      return tensor(all.subarray(first * size, last * size), [count, ...each]);
    };
    const original = latents
      ? take(latents, noises.shape)
      : await encodeImages(this.parts.vae, take(images!, [height, width, 3]), noises.next(), options.vaeTile);
    if (denoisingStart === undefined) {
      const start = startOf(options.steps ?? 50, strength);
      return { start, sample: scheduler.addNoise(original, noises.next(), scheduler.timesteps[start]) };
    }
    const cutoff = Math.round(1000 * (1 - denoisingStart));
    const start = scheduler.timesteps.findIndex((t) => t < cutoff);
    if (start < 0) throw new PromptError(`denoisingStart is ${denoisingStart}: no step is left after it`);
    return { start, sample: original };
  }

  #shapeOf({ prompts, images, latents, height, width, negativePrompt, denoisingStart }: RefineOptions): LatentShape {
    const { factor, config } = this.parts.vae;
    if (prompts.length === 0) throw new PromptError('no prompt');
    if (height % factor || width % factor || !(height > 0 && width > 0))
      throw new PromptError(`${height} × ${width} pixels, must be multiples of ${factor}`);
    if (Array.isArray(negativePrompt) && negativePrompt.length !== prompts.length)
      throw new PromptError(`${negativePrompt.length} negative prompts for ${prompts.length} prompts`);
    if ((images === undefined) === (latents === undefined)) throw new PromptError('give images, or latents');
    if (denoisingStart !== undefined && !(denoisingStart >= 0 && denoisingStart < 1))
      throw new PromptError(`denoisingStart is ${denoisingStart}, must be from 0 to below 1`);
    if (denoisingStart !== undefined && images)
      throw new PromptError('denoisingStart goes on from latents, not images');
    const shape: LatentShape = [height / factor, width / factor, config.latent_channels];
    const [array, each] = images ? [images, [height, width, 3]] : [latents!, shape];
    const wanted = each.reduce((n, d) => n * d, prompts.length);
    if (array.length !== wanted)
      throw new PromptError(
        `${images ? 'images' : 'latents'} have ${array.length} numbers; ${prompts.length} of [${each.join(', ')}] have ${wanted}`,
      );
    return shape;
  }
}
