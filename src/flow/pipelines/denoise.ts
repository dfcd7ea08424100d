/** The way from noise to latents: what all pipelines share. */
import type { AutoencoderKL } from '../../nn/index.ts';
import { currentGpu, keep } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import type { Denoiser, Scheduler } from '../schedulers/index.ts';
import { concatenate } from './arrays.ts';
import { decodeLatents } from './images.ts';
import type { NoiseSource } from './noise.ts';
import { PromptError } from './options.ts';
import type { DenoiseOptions, SampleResult, Timings } from './options.ts';

/** One seed for each image. @throws PromptError when there are more or fewer, or one is no seed */
export function seedsOf(seeds: number | readonly number[], count: number): number[] {
  const list = typeof seeds === 'number' ? Array.from({ length: count }, (_, i) => seeds + i) : [...seeds];
  if (list.length !== count) throw new PromptError(`${list.length} seeds for ${count} prompts`);
  const odd = list.find((seed) => !Number.isSafeInteger(seed) || seed < 0);
  if (odd !== undefined) throw new PromptError(`${odd} is no seed\n  a seed is a whole number, 0 or more`);
  return list;
}

/** Where image → image begins: so many of the steps are left out. @throws PromptError when none is left */
export function startOf(steps: number, strength: number): number {
  if (!(strength >= 0 && strength <= 1)) throw new PromptError(`strength is ${strength}, must be from 0 to 1`);
  const run = Math.min(Math.floor(steps * strength), steps);
  if (run < 1)
    throw new PromptError(
      `a strength of ${strength} leaves none of ${steps} steps\n  take more steps, or more strength`,
    );
  return steps - run;
}

/** Seconds by what they were spent on. */
export class Clock {
  readonly timings: Timings = { text: 0, encoder: 0, network: 0, decoder: 0, total: 0 };
  readonly #start = performance.now();

  async time<T>(what: Exclude<keyof Timings, 'total'>, work: () => T | Promise<T>): Promise<T> {
    const from = performance.now();
    const result = await work();
    await currentGpu().idle();
    this.timings[what] += (performance.now() - from) / 1000;
    return result;
  }

  stop(): Timings {
    this.timings.total = (performance.now() - this.#start) / 1000;
    return this.timings;
  }
}

/** What one batch became. */
export interface Drawn {
  images: Float32Array;
  latents: Float32Array;
}

/** All batches as one result. */
export function together(
  batches: readonly Drawn[],
  clock: Clock,
  rest: Omit<SampleResult, 'images' | 'latents' | 'timings' | 'warnings'> & { warnings: Iterable<string> },
): SampleResult {
  return {
    images: concatenate(batches.map(({ images }) => images)),
    latents: concatenate(batches.map(({ latents }) => latents)),
    ...rest,
    warnings: [...rest.warnings],
    timings: clock.stop(),
  };
}

/** Run the steps from `start` on. `blend` may replace the latents after each. @returns new latents, and how often the network was asked */
export async function denoise(
  scheduler: Scheduler,
  network: Denoiser,
  sample: Tensor,
  {
    start = 0,
    noises,
    vae,
    first,
    blend,
    ...options
  }: Pick<DenoiseOptions, 'eta' | 'vaeTile' | 'onStep' | 'onPreview' | 'previewSteps' | 'signal'> & {
    start?: number;
    noises: NoiseSource;
    vae: AutoencoderKL;
    first: number;
    blend?(index: number, latents: Tensor): Tensor;
  },
): Promise<{ latents: Tensor; evaluations: number }> {
  const { eta, vaeTile, onStep, onPreview, previewSteps = 1, signal } = options;
  const steps = scheduler.timesteps.length - start;
  let evaluations = 0;
  let believed: Tensor | undefined;
  let before = onPreview && keep(sample.detach());
  const counted: Denoiser = (z, t) => {
    evaluations++;
    const output = network(z, t);
    if (onPreview) {
      believed?.dispose();
      believed = keep(output.detach());
    }
    return output;
  };
  try {
    const latents = await scheduler.run(counted, sample, {
      start,
      eta,
      noise: () => noises.next(),
      async onStep(i, timestep, after) {
        signal?.throwIfAborted();
        const report = { index: i - start, steps, timestep, latents: after, first };
        if (onPreview && believed && before && (report.index + 1) % previewSteps === 0) {
          using image = scheduler.predictOriginal(believed, timestep, before);
          const numbers = (await image.read()) as Float32Array;
          await onPreview((await decodeLatents(vae, numbers, image.shape, vaeTile)).images, report);
        }
        await onStep?.(report);
        const next = blend?.(i, after);
        if (before) {
          before.dispose();
          before = keep((next ?? after).detach());
        }
        return next;
      },
    });
    return { latents, evaluations };
  } finally {
    believed?.dispose();
    before?.dispose();
  }
}
