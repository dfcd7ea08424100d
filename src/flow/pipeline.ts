/** Text (and image) → image: tokenizer, text encoder, denoising network, decoder. No files here; see recipe/model-folder.ts. */
import { defined } from '../tensor/defined.ts';
import type { AutoencoderKL, CLIPTextModel, UNet2DConditionModel } from '../nn/index.ts';
import type { ClipTokenizer } from '../nn/tokenizer.ts';
import { StackedUNet } from '../nn/models/stacked-unet.ts';
import { add, concat, mul, noGrad, scope, sub, tensor } from '../tensor/index.ts';
import type { Tensor } from '../tensor/index.ts';
import type { LoraModels } from '../nn/lora.ts';
import type { ControlResiduals } from '../nn/models/unet.ts';
import { controlResiduals } from './control.ts';
import { guided } from './guidance.ts';
import type { ConditionalNetwork } from './guidance.ts';
import { latentSize } from './latents.ts';
import type { LatentShape } from './latents.ts';
import { itemsOf } from './pipelines/arrays.ts';
import { chooseScheduler } from './pipelines/choose-scheduler.ts';
import { denoise, drawBatches, seedsOf, startOf } from './pipelines/denoise.ts';
import { encodeImages, latentMask } from './pipelines/images.ts';
import type { NoiseSource } from './pipelines/noise.ts';
import { PromptError } from './pipelines/options.ts';
import type { NetworkName, SampleOptions, SampleResult, SampleStep, SamplingDefaults } from './pipelines/options.ts';
import { hiddenWarnings } from './pipelines/safety.ts';
import type { SafetyParts } from './pipelines/safety.ts';
import type { Scheduler } from './schedulers/index.ts';

/** What a model is made of. */
export interface PipelineParts extends SafetyParts {
  tokenizer: Pick<ClipTokenizer, 'encodeBatch' | 'maxLength'>;
  textEncoder: CLIPTextModel;
  vae: AutoencoderKL;
  networks: Partial<Record<NetworkName, UNet2DConditionModel | StackedUNet>>;
  defaults: Partial<Record<NetworkName, SamplingDefaults>>;
  /** The model's scheduler_config.json; a rectified flow, solved by Euler, unless given. */
  scheduler?: { _class_name?: string };
}

/** How a batch begins, and what it is held to. */
interface Beginning {
  sample: Tensor;
  start: number;
  /** Channels that the network sees besides the latents. */
  beside?: Tensor;
  blend?(index: number, latents: Tensor): Tensor;
}

/** A whole model: text → image, image → image, and painting inside a mask. `openModelFolder` makes one from files. */
export class Pipeline {
  constructor(readonly parts: PipelineParts) {}

  /** One of the networks. @throws Error when the model was opened without it */
  network(which: NetworkName): UNet2DConditionModel | StackedUNet {
    const network = this.parts.networks[which];
    if (!network)
      throw new Error(`this model has no ${which}\n  it has: ${Object.keys(this.parts.networks).join(', ')}`);
    return network;
  }

  /** Shape of the latents that the networks were trained on. */
  get latentShape(): LatentShape {
    const { sample_size, out_channels } = Object.values(this.parts.networks)[0]!.config;
    return [sample_size, sample_size, out_channels];
  }

  /** Texts → [N, T, D], and what did not fit. */
  encodePrompts(prompts: string[]): { text: Tensor; warnings: string[] } {
    const { tokenizer, textEncoder } = this.parts;
    const { ids, cut } = tokenizer.encodeBatch(prompts);
    const warnings = cut.flatMap((rest, i) =>
      rest ? [`"${prompts[i]}" is longer than ${tokenizer.maxLength} tokens; left out: "${rest}"`] : [],
    );
    const text = noGrad(() =>
      scope(
        () => textEncoder.forward(tensor(ids, [prompts.length, tokenizer.maxLength], { dtype: 'i32' })).lastHiddenState,
      ),
    );
    return { text, warnings: [...new Set(warnings)] };
  }

  /** The networks that a LoRA may change, as `readLora` wants them. */
  loraModels(which: NetworkName): LoraModels {
    return { unet: this.network(which), text_encoder: this.parts.textEncoder };
  }

  /**
   * The network as a function of latents, timestep and text. `beside`: [B, h, w, n] goes in behind the latents; `residuals`
   * makes what ControlNets add.
   */
  conditional(
    which: NetworkName,
    beside?: Tensor,
    residuals?: (z: Tensor, t: number, text: Tensor) => ControlResiduals,
  ): ConditionalNetwork {
    const network = this.network(which);
    const isStacked = network instanceof StackedUNet;
    if (isStacked && residuals) throw new PromptError('a ControlNet goes with one U-Net, not with two in a row');
    const { dtype } = (isStacked ? network.unets[0].conv_in! : network.conv_in).weight;
    return (z, t, text) =>
      noGrad(() =>
        scope(() => {
          const copies = beside && Array<Tensor>(z.shape[0] / beside.shape[0]).fill(beside);
          const sample = copies ? concat([z, concat(copies, { axis: 0 })]) : z;
          const [x, words] = [sample.to(dtype), text.to(dtype)];
          const y = isStacked
            ? network.forward(x, t, words)
            : network.forward(x, t, words, undefined, residuals?.(z.to(dtype), t, words));
          return y.to('f32');
        }),
      );
  }

  /** Draw an image for each prompt. @throws PromptError when a prompt, seed, size, image, mask or noise does not fit */
  async sample(options: SampleOptions): Promise<SampleResult> {
    const { prompts, which = 'unet', batchSize = 16 } = options;
    const { vae } = this.parts;
    if (prompts.length === 0) throw new PromptError('no prompt');
    if (prompts.some((prompt) => prompt.trim() === ''))
      throw new PromptError('the prompt is empty\n  say what to paint, such as "red apple"');
    const seeds = seedsOf(options.seeds, prompts.length);
    const { steps = 1, guidanceScale = 1 } = { ...this.parts.defaults[which], ...defined(options) };
    const shape = this.#latentShapeOf(options);
    this.#checkArrays(options, shape);
    const negative = options.negativePrompt ?? '';
    if (typeof negative !== 'string' && negative.length !== prompts.length)
      throw new PromptError(`${negative.length} negative prompts for ${prompts.length} prompts`);
    const own = this.parts.defaults[which]?.scheduler ?? this.parts.scheduler ?? { _class_name: 'RectifiedFlow' };
    using scheduler = chooseScheduler(own, options.scheduler);
    const plan = { vae, shape, seeds, steps, scheduler, batchSize, safety: this.parts };
    const result = await drawBatches(plan, options, async ({ first, last, noises, clock, warnings }) => {
      const part = prompts.slice(first, last);
      const { text, nullText } = await clock.time('text', () => {
        const encoded = this.encodePrompts(part);
        encoded.warnings.forEach((warning) => warnings.add(warning));
        const without = part.map((_, i) => (typeof negative === 'string' ? negative : negative[first + i]));
        return { text: encoded.text, nullText: guidanceScale > 1 ? this.encodePrompts(without).text : undefined };
      });
      const begin = await clock.time('encoder', () =>
        this.#begin({ ...options, steps }, scheduler, noises, first, last),
      );
      let step = 0;
      const residuals = options.controls?.length
        ? this.#control(options, shape, first, last, scheduler.timesteps.length - begin.start, () => step)
        : undefined;
      const network = guided(this.conditional(which, begin.beside, residuals), text, nullText, guidanceScale);
      const onStep = (report: SampleStep) => {
        step = report.index + 1;
        return options.onStep?.(report);
      };
      return clock.time('network', () =>
        denoise(scheduler, network, begin.sample, {
          ...options,
          onStep,
          ...begin,
          noises,
          vae,
          safety: this.parts,
          first,
        }),
      );
    });
    return { ...result, warnings: [...result.warnings, ...hiddenWarnings(prompts, result)], guidanceScale };
  }

  /** Free the weights of all parts. */
  dispose(): void {
    const { textEncoder, vae, networks, safetyChecker } = this.parts;
    for (const module of [textEncoder, vae, ...Object.values(networks), safetyChecker]) module?.dispose();
  }

  #latentShapeOf({ height, width }: SampleOptions): LatentShape {
    const { factor } = this.parts.vae;
    const [h, w, channels] = this.latentShape;
    const sides = { height: height ?? h * factor, width: width ?? w * factor };
    for (const [name, side] of Object.entries(sides)) {
      if (Number.isInteger(side / factor) && side > 0) continue;
      const near = Math.max(factor, Math.round(side / factor) * factor) || factor;
      throw new PromptError(`${name} is ${side}, must be a multiple of ${factor}\n  the nearest is ${near}`);
    }
    return [sides.height / factor, sides.width / factor, channels];
  }

  /** What ControlNets add at the step that is being done. */
  #control(
    { controls = [], guessMode }: SampleOptions,
    [h, w]: LatentShape,
    first: number,
    last: number,
    steps: number,
    step: () => number,
  ): (z: Tensor, t: number, text: Tensor) => ControlResiduals {
    const { factor } = this.parts.vae;
    const each = [h * factor, w * factor, 3];
    const size = latentSize(each as unknown as LatentShape);
    const list = controls.map(({ image, ...rest }) => {
      const { dtype } = rest.net.conv_in.weight;
      return { ...rest, image: tensor(itemsOf(image, size, first, last), [last - first, ...each], { dtype }) };
    });
    return (z, times, text) => {
      const guidance = z.shape[0] > last - first;
      return controlResiduals(list, { z, times, text, guidance, guessMode, step: step(), steps });
    };
  }

  /** Arrays that callers give must have the numbers of all images, or of one for all. */
  #checkArrays({ prompts, noise, image, mask, controls = [] }: SampleOptions, [h, w, c]: LatentShape): void {
    const { factor } = this.parts.vae;
    const [H, W, N] = [h * factor, w * factor, prompts.length];
    if (noise && noise.length !== N * h * w * c)
      throw new PromptError(
        `noise has ${noise.length} numbers; ${N} latents of [${h}, ${w}, ${c}] have ${N * h * w * c}`,
      );
    if (mask && !image) throw new PromptError('a mask without an image to keep the rest of\n  give image too');
    for (const [name, array, each] of [
      ['image', image, [H, W, 3]],
      ['mask', mask, [H, W]],
      ...controls.map((control) => ['the image of a ControlNet', control.image, [H, W, 3]] as const),
    ] as const) {
      const size = each.reduce((n: number, d) => n * d, 1);
      if (array && array.length !== size && array.length !== N * size)
        throw new PromptError(
          `${name} has ${array.length} numbers; ${N} of [${each.join(', ')}] have ${N * size}, one for all ${size}`,
        );
    }
  }

  /** Noise; or the image with noise, from the step that strength says. Draws in the order of diffusers. */
  async #begin(
    { noise, image, mask, strength, steps, vaeTile, which = 'unet' }: SampleOptions & { steps: number },
    scheduler: Scheduler,
    noises: NoiseSource,
    first: number,
    last: number,
  ): Promise<Beginning> {
    const shape = [last - first, ...noises.shape];
    const size = latentSize(noises.shape);
    const drawn = () => (noise ? tensor(noise.subarray(first * size, last * size), shape) : noises.next());
    if (!image) return { sample: mul(drawn(), scheduler.initNoiseSigma), start: 0 };

    const { vae } = this.parts;
    const [H, W] = [noises.shape[0] * vae.factor, noises.shape[1] * vae.factor];
    const pixels = itemsOf(image, H * W * 3, first, last);
    const images = tensor(pixels, [last - first, H, W, 3]);
    const amount = strength ?? (mask ? 1 : 0.8);
    const start = startOf(steps, amount);
    const sees = this.network(which).config.in_channels;
    const inpaints = mask !== undefined && sees === 2 * noises.shape[2] + 1;
    // A network made for inpainting begins with noise alone when nothing of the image is to stay.
    const original = inpaints && amount === 1 ? undefined : await encodeImages(vae, images, noises.next(), vaeTile);
    const fresh = drawn();
    const sample =
      mask && amount === 1
        ? mul(fresh, scheduler.initNoiseSigma)
        : scheduler.addNoise(original!, fresh, scheduler.timesteps[start]);
    if (!mask) return { sample, start };

    const masks = itemsOf(mask, H * W, first, last);
    const where = tensor(latentMask(masks, [H, W], noises.shape), [...shape.slice(0, 3), 1]);
    if (inpaints) {
      const hidden = pixels.map((value, i) => (masks[Math.floor(i / 3)] < 0.5 ? value : 0));
      const rest = await encodeImages(vae, tensor(hidden, images.shape), noises.next(), vaeTile);
      return { sample, start, beside: concat([where, rest]) };
    }
    const blend = (index: number, latents: Tensor): Tensor =>
      scope(() => {
        const next = scheduler.timesteps[index + 1];
        const kept = next === undefined ? original! : scheduler.addNoise(original!, fresh, next);
        return add(kept, mul(sub(latents, kept), where));
      });
    return { sample, start, blend };
  }
}
