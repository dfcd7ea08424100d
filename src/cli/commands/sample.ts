import { mkdir } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { currentGpu, init } from '../../tensor/index.ts';
import { networkNames } from '../../flow/pipelines/options.ts';
import type { SampleResult } from '../../flow/pipelines/options.ts';
import { openModelFolder } from '../../flow/recipe/model-folder.ts';
import { choice, command, flag, float, int, positional, required, text } from '../command.ts';
import { shippedModel } from '../default-model.ts';
import { imagesFromFloats } from '../pictures/image.ts';
import { formatParameters, writePng } from '../pictures/png.ts';
import { drawGrid } from '../pictures/sheet.ts';
import { writeAtomic } from '../../tensor/io/files-node.ts';

export default command(
  'sample',
  'text → image',
  {
    prompt: positional(text(required, 'what to paint, in quotes')),
    model: text(undefined, "folder of a model in diffusers' layout (the one that ships)"),
    which: choice('unet', networkNames, 'which of its networks: the distilled one, the teacher, or the reflowed one'),
    steps: int(undefined, 'steps of the solver (1 for the distilled network, 25 for the teacher)', { min: 1 }),
    seed: int(0, 'of the first image; the others count on', { min: 0 }),
    num: int(1, 'how many images', { min: 1 }),
    guidance_scale: float(undefined, 'how much to follow the text; above 1 costs twice', { min: 0 }),
    negative_prompt: text(undefined, 'what to avoid, when guidance is above 1'),
    scheduler: text(
      undefined,
      'how to sample; for a flow euler, heun, adams-bashforth, rk45; for a diffusion ddim, pndm, dpm++, euler, …',
    ),
    out: text('out', 'folder for the PNGs'),
    grid: flag(false, 'also one picture with all images'),
  },
  async (options) => {
    const { prompt, num, seed, which, out } = options;
    if (prompt.trim() === '') throw new Error('the prompt is empty\n  say what to paint, such as "red apple"');
    const folder = options.model ?? shippedModel();
    await init();
    try {
      const loading = performance.now();
      const pipeline = await openModelFolder(folder, { networks: [which] });
      const loaded = (performance.now() - loading) / 1000;
      const result = await pipeline.sample({
        prompts: Array<string>(num).fill(prompt),
        seeds: seed,
        which,
        steps: options.steps,
        guidanceScale: options.guidance_scale,
        negativePrompt: options.negative_prompt,
        scheduler: options.scheduler,
      });
      for (const warning of result.warnings) console.error(`note: ${warning}`);
      await mkdir(out, { recursive: true });
      const images = imagesFromFloats(result.images, result.width);
      for (const [i, image] of images.entries()) {
        const file = join(out, `${slug(prompt)}-${result.seeds[i]}.png`);
        await writePng(
          file,
          image,
          formatParameters({
            prompt,
            negativePrompt: options.negative_prompt,
            settings: {
              Steps: result.steps,
              Sampler: result.sampler,
              'CFG scale': result.guidanceScale,
              Seed: result.seeds[i],
              Size: `${image.width}x${image.height}`,
              Model: `${basename(resolve(folder))}/${which}`,
            },
          }),
        );
        console.log(file);
      }
      if (options.grid) {
        const file = join(out, `${slug(prompt)}-grid.png`);
        await writeAtomic(
          file,
          await drawGrid(
            images.map((image, i) => ({ image, caption: `seed ${result.seeds[i]}` })),
            { title: prompt },
          ),
        );
        console.log(file);
      }
      console.log(describeTimes(result, loaded));
      pipeline.dispose();
    } finally {
      currentGpu().destroy();
    }
  },
);

function describeTimes({ timings, evaluations, count, steps, guidanceScale }: SampleResult, loaded: number): string {
  const s = (seconds: number) => `${seconds.toFixed(3)} s`;
  return (
    `${count} image${count > 1 ? 's' : ''}, ${steps} step${steps > 1 ? 's' : ''}, guidance ${guidanceScale}, ` +
    `${evaluations} network evaluation${evaluations > 1 ? 's' : ''}${guidanceScale > 1 ? ' of twice the batch' : ''}: ` +
    `text ${s(timings.text)}, U-Net ${s(timings.network)}, decoder ${s(timings.decoder)}; loading ${s(loaded)}`
  );
}

export const slug = (prompt: string): string =>
  prompt
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, '-')
    .replace(/^-|-$/g, '')
    .slice(0, 60) || 'image';
