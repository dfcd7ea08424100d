import { defined } from '../../tensor/defined.ts';
import { mkdir } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { currentGpu, init } from '../../tensor/index.ts';
import type { Plan } from '../../flow/estimate/rehearse.ts';
import { networkNames } from '../../flow/pipelines/options.ts';
import type { NetworkName, SampleResult, SampleStep } from '../../flow/pipelines/options.ts';
import type { Pipeline } from '../../flow/pipeline.ts';
import { openModel } from '../../flow/recipe/open-model.ts';
import { additions, applyLoras, controlConfigs, findAdditions, openControls, recordOf } from '../additions.ts';
import { choice, command, flag, float, int, positional, repeated, text } from '../command.ts';
import { checkModel } from '../fit.ts';
import { readLatents } from '../latents.ts';
import { modelHelp, modelPath } from '../model-path.ts';
import { imagesFromFloats, readImage, readMask } from '../pictures/image.ts';
import { formatParameters, writePng } from '../pictures/png.ts';
import { drawGrid } from '../pictures/sheet.ts';
import { secondPass } from '../refine.ts';
import { bytes } from '../units.ts';
import { readRecorded } from '../repeat.ts';
import type { Recorded } from '../repeat.ts';
import { safetyOption, wantsSafetyChecker } from '../safety.ts';
import { writeAtomic } from '../../tensor/io/files-node.ts';

export default command(
  'sample',
  'text → image; also image → image, and painting inside a mask',
  {
    prompt: positional(repeated(text(undefined, 'what to paint, in quotes; several for several pictures'))),
    model: text(undefined, `${modelHelp} (the one that ships)`),
    variant: text(undefined, 'which of several sets of weights to take, such as fp16'),
    dtype: choice('f32', ['f32', 'f16'] as const, 'how weights and activations are stored; f16 takes half the memory'),
    tokenizer: text(undefined, 'folder with vocab.json and merges.txt, for a file that comes without'),
    rectified_flow: flag(
      false,
      'the network predicts the velocity of a flow, as InstaFlow does, and its file does not say so',
    ),
    refiner: text(undefined, "Stable Diffusion XL's refiner: a second pass over each image"),
    which: choice(
      undefined,
      networkNames,
      'which of its networks: the distilled one (unet), the teacher, the reflowed',
    ),
    steps: int(undefined, 'steps of the scheduler (1 for the distilled network, 25 for the teacher)', { min: 1 }),
    seed: int(undefined, 'of the first image; the others count on (0)', { min: 0 }),
    num: int(1, 'how many images of each prompt', { min: 1 }),
    guidance_scale: float(undefined, 'how much to follow the text; above 1 costs twice', { min: 0 }),
    negative_prompt: text(undefined, 'what to avoid, when guidance is above 1'),
    scheduler: text(
      undefined,
      'of a flow: euler, heun, adams-bashforth, rk45; of a diffusion: ddim, ddpm, dpm++, euler, euler_a, lcm, pndm',
    ),
    height: int(undefined, 'pixels, a multiple of 8 for Stable Diffusion', { min: 1 }),
    width: int(undefined, 'likewise', { min: 1 }),
    image: text(undefined, 'begin with this image instead of noise'),
    strength: float(undefined, 'how much of that image is painted anew, 0 to 1 (0.8)', { min: 0, max: 1 }),
    mask: text(undefined, 'paint only where this image is white'),
    latents: text(undefined, 'begin with the noise in this .safetensors file, [num, C, h, w], instead of drawing it'),
    ...additions,
    safety_checker: safetyOption,
    from: text(undefined, 'a picture made before: repeat it, with what is given here changed'),
    batch_size: int(4, 'images at once', { min: 1 }),
    vae_tile: int(undefined, 'encode and decode by overlapping tiles of so many pixels: less memory', { min: 8 }),
    preview: int(undefined, 'write what the network believes in after every so many steps', { min: 1 }),
    out: text('out', 'folder for the PNGs'),
    grid: flag(false, 'also one picture with all images'),
  },
  async (options) => {
    const recorded: Recorded = options.from === undefined ? {} : await readRecorded(options.from);
    const asked = { ...recorded, ...defined(options) };
    const words = options.prompt?.length ? options.prompt : recorded.prompt === undefined ? [] : [recorded.prompt];
    if (words.length === 0 || words.some((word) => word.trim() === ''))
      throw new Error('the prompt is empty\n  say what to paint, such as "red apple"');
    const { variant } = options;
    const folder = await modelPath(options.model, { variant, safetyChecker: options.safety_checker === 'on' });
    const refinerPath = options.refiner === undefined ? undefined : await modelPath(options.refiner, { variant });
    const which = options.which ?? networkOf(recorded) ?? 'unet';
    for (const part of ['image', 'mask', 'latents', 'lora', 'finetuned', 'controlnet'] as const) {
      if (recorded[part] && !options[part]?.length)
        throw new Error(`${options.from}: was made with --${part} ${recorded[part]}\n  give it again`);
    }
    const extra = await findAdditions(options, variant);
    const safetyChecker = await wantsSafetyChecker(folder, options.safety_checker);
    const gpu = await init();
    try {
      const plan = planOf(options, asked, words.length * options.num, await controlConfigs(extra.controlnets));
      const rectifiedFlow = options.rectified_flow || undefined;
      const sized = await checkModel(gpu, folder, plan, which, { rectifiedFlow, safetyChecker });
      if (refinerPath !== undefined) {
        const { height, width } = sized ?? plan;
        await checkModel(gpu, refinerPath, { ...plan, height, width, ...ofRefiner });
      }
      const loading = performance.now();
      const { dtype, tokenizer } = options;
      const opening = { variant, dtype, tokenizer, progress: showLoading };
      const how = { networks: [which], rectifiedFlow, delta: extra.delta, safetyChecker };
      const pipeline = await openModel(folder, { ...opening, ...how });
      using _loras = await applyLoras(pipeline, which, extra);
      const loaded = (performance.now() - loading) / 1000;
      const model = `${nameOf(options.model ?? folder)}/${which}`;
      if (recorded.model && recorded.model !== model)
        console.error(`note: ${options.from} was made with the model ${recorded.model}; this is ${model}`);
      const prompts = words.flatMap((word) => Array<string>(options.num).fill(word));
      const first = asked.seed ?? 0;
      const seeds = prompts.map((_, i) => first + (i % options.num));
      await mkdir(options.out, { recursive: true });
      const names = prompts.map((prompt, i) => `${slug(prompt)}-${seeds[i]}`);
      const size = sizeOf(pipeline, asked);
      const controls = await openControls(extra, options, size, opening);
      let result = await pipeline.sample({
        prompts,
        seeds,
        which,
        steps: asked.steps,
        guidanceScale: asked.guidance_scale,
        negativePrompt: asked.negative_prompt,
        scheduler: asked.scheduler,
        batchSize: options.batch_size,
        vaeTile: options.vae_tile,
        ...size,
        image: options.image === undefined ? undefined : await readImage(options.image, size),
        mask: options.mask === undefined ? undefined : await readMask(options.mask, size),
        strength: asked.strength,
        noise: await noiseOf(options.latents, prompts.length, pipeline, size),
        controls,
        guessMode: options.guess_mode,
        previewSteps: options.preview,
        onPreview: options.preview === undefined ? undefined : previewer(options.out, names, size),
        onStep: showStep,
      });
      const times = [describeTimes(result, loaded)];
      for (const { net } of controls) net.dispose();
      const { safetyChecker: checker, featureExtractor } = pipeline.parts;
      if (refinerPath !== undefined) pipeline.parts.safetyChecker = undefined; // goes on to the refiner
      pipeline.dispose();
      if (refinerPath !== undefined) {
        const safety = { safetyChecker: checker, featureExtractor };
        const refined = await secondPass(refinerPath, opening, safety, result, {
          prompts,
          negativePrompt: asked.negative_prompt,
          vaeTile: options.vae_tile,
          onStep: showStep,
        });
        result = { ...refined, steps: result.steps, sampler: result.sampler, guidanceScale: result.guidanceScale };
        times.push(`refined: ${describeTimes(refined, 0)}`);
      }
      for (const warning of result.warnings) console.error(`note: ${warning}`);
      const images = imagesFromFloats(result.images, result.width, result.height);
      for (const [i, image] of images.entries()) {
        const file = join(options.out, `${names[i]}.png`);
        const settings = {
          Steps: result.steps,
          Sampler: result.sampler,
          'CFG scale': result.guidanceScale,
          Seed: result.seeds[i],
          Size: `${image.width}x${image.height}`,
          Model: model,
          ...(options.image
            ? {
                'Denoising strength': asked.strength ?? (options.mask ? 1 : 0.8),
                'Init image': basename(options.image),
              }
            : {}),
          ...(options.mask ? { Mask: basename(options.mask) } : {}),
          ...(options.latents ? { Latents: basename(options.latents) } : {}),
          ...recordOf(options),
          ...(options.refiner ? { Refiner: nameOf(options.refiner) } : {}),
        };
        const parameters = { prompt: prompts[i], negativePrompt: asked.negative_prompt, settings };
        await writePng(file, image, formatParameters(parameters));
        console.log(file);
      }
      if (options.grid) {
        const file = join(options.out, `${slug(words.join(' '))}-grid.png`);
        const caption = (i: number) => (words.length > 1 ? `${prompts[i]}, seed ${seeds[i]}` : `seed ${seeds[i]}`);
        const cells = images.map((image, i) => ({ image, caption: caption(i) }));
        await writeAtomic(file, await drawGrid(cells, { title: words.length > 1 ? '' : words[0] }));
        console.log(file);
      }
      console.log(times.join('\n'));
    } finally {
      currentGpu().destroy();
    }
  },
);

/** What memory depends on. */
const planOf = (
  {
    dtype,
    batch_size,
    vae_tile,
    image,
    mask,
  }: { dtype: 'f32' | 'f16'; batch_size: number; vae_tile?: number; image?: string; mask?: string },
  {
    steps,
    guidance_scale,
    scheduler,
    height,
    width,
    strength,
  }: Omit<Recorded, 'prompt' | 'lora' | 'finetuned' | 'controlnet'>,
  count: number,
  controls: Plan['controls'],
): Plan => ({
  ...{ count, batchSize: batch_size, vaeTile: vae_tile, dtype, steps, scheduler, height, width },
  guidanceScale: guidance_scale,
  strength: image === undefined ? undefined : (strength ?? (mask ? 1 : 0.8)),
  mask: mask !== undefined,
  controls,
});

/** What a second pass has of its own. */
const ofRefiner = { batchSize: 4, steps: 50, guidanceScale: 5, scheduler: undefined, strength: 0.3, controls: [] };

/** The size that is asked for, or else the model's own. */
function sizeOf(
  { latentShape, parts }: Pipeline,
  { height, width }: Pick<Recorded, 'height' | 'width'>,
): { height: number; width: number } {
  const [h, w] = latentShape;
  return { height: height ?? h * parts.vae.factor, width: width ?? w * parts.vae.factor };
}

/** The noise that --latents names. */
const noiseOf = (
  file: string | undefined,
  count: number,
  { latentShape: [, , channels], parts: { vae } }: Pipeline,
  { height, width }: { height: number; width: number },
): Promise<Float32Array> | undefined =>
  file === undefined ? undefined : readLatents(file, count, [height / vae.factor, width / vae.factor, channels]);

const networkOf = ({ model }: Recorded): NetworkName | undefined =>
  networkNames.find((name) => model?.endsWith(`/${name}`));

/** A line that is redrawn while weights are read. */
function showLoading(part: string, loaded: number, total: number): void {
  if (process.stderr.isTTY)
    process.stderr.write(`\rloading ${part}: ${loaded} of ${total} tensors${loaded === total ? '\n' : ''}`);
}

/** A line that is redrawn, when a run takes long and somebody looks. */
function showStep({ index, steps, first }: SampleStep): void {
  if (!process.stderr.isTTY || steps === 1) return;
  process.stderr.write(`\rfrom image ${first + 1}: step ${index + 1} of ${steps}${index + 1 === steps ? '\n' : ''}`);
}

const previewer =
  (folder: string, names: string[], { width, height }: { width: number; height: number }) =>
  async (images: Float32Array, { index, first }: SampleStep): Promise<void> => {
    const step = `step-${String(index + 1).padStart(3, '0')}`;
    for (const [i, picture] of imagesFromFloats(images, width, height).entries())
      await writePng(join(folder, `${names[first + i]}-${step}.png`), picture);
  };

function describeTimes(result: SampleResult, loaded: number): string {
  const { timings, evaluations, count, steps, guidanceScale, nsfwContentDetected } = result;
  const s = (seconds: number) => `${seconds.toFixed(3)} s`;
  return (
    `${count} image${count > 1 ? 's' : ''}, ${steps} step${steps > 1 ? 's' : ''}, guidance ${guidanceScale}, ` +
    `${evaluations} network evaluation${evaluations > 1 ? 's' : ''}${guidanceScale > 1 ? ' of twice the batch' : ''}: ` +
    `text ${s(timings.text)}, ${timings.encoder > 0.001 ? `encoder ${s(timings.encoder)}, ` : ''}` +
    `U-Net ${s(timings.network)}, decoder ${s(timings.decoder)}` +
    `${nsfwContentDetected ? `, safety checker ${s(timings.safety)}` : ''}; loading ${s(loaded)}; ` +
    `GPU memory at its peak ${bytes(currentGpu().memory().peak)}`
  );
}

/** Name of a model in a picture's parameters: the last word of its path or id. */
export const nameOf = (model: string): string => basename(resolve(model)).replace(/@.*/, '');

export const slug = (prompt: string): string =>
  prompt
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, '-')
    .replace(/^-|-$/g, '')
    .slice(0, 60) || 'image';
