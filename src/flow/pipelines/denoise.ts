/** The way from noise to latents: what all pipelines share. */
import type { AutoencoderKL } from '../../nn/index.ts';
import { currentGpu, keep, scope } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import type { Denoiser, Scheduler } from '../schedulers/index.ts';
import type { LatentShape } from '../latents.ts';
import { concatenate } from './arrays.ts';
import { samplerName } from './choose-scheduler.ts';
import { decodeLatents } from './images.ts';
import { NoiseSource } from './noise.ts';
import { PromptError } from './options.ts';
import { hideFlagged } from './safety.ts';
import type { SafetyParts } from './safety.ts';
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
  readonly timings: Timings = { text: 0, encoder: 0, network: 0, decoder: 0, safety: 0, total: 0 };
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

/** One batch: its images are `first` … `last` − 1 of all, and `noises` draws for them. */
export interface Batch {
  first: number;
  last: number;
  noises: NoiseSource;
  clock: Clock;
  /** For what people should know, once each. */
  warnings: Set<string>;
}

/** Batch after batch from noise to images. `draw` makes the latents of one, with the scheduler's timesteps set. */
export async function drawBatches(
  {
    vae,
    shape,
    seeds,
    steps,
    scheduler,
    batchSize,
    safety,
  }: {
    vae: AutoencoderKL;
    shape: LatentShape;
    seeds: readonly number[];
    steps: number;
    scheduler: Scheduler;
    batchSize: number;
    safety: SafetyParts;
  },
  { vaeTile }: DenoiseOptions,
  draw: (batch: Batch) => Promise<{ latents: Tensor; evaluations: number }>,
): Promise<Omit<SampleResult, 'guidanceScale'>> {
  const clock = new Clock();
  const warnings = new Set<string>();
  const drawn: { images: Float32Array; latents: Float32Array; flagged?: boolean[] }[] = [];
  let [evaluations, height, width] = [0, 0, 0];
  for (let first = 0; first < seeds.length; first += batchSize) {
    const last = Math.min(first + batchSize, seeds.length);
    const latents = await scope(async () => {
      scheduler.setTimesteps(steps);
      const noises = new NoiseSource(seeds.slice(first, last), shape);
      const solved = await draw({ first, last, noises, clock, warnings });
      evaluations = solved.evaluations;
      return (await solved.latents.read()) as Float32Array;
    });
    const decoded = await clock.time('decoder', () => decodeLatents(vae, latents, [last - first, ...shape], vaeTile));
    ({ height, width } = decoded);
    const flagged = await clock.time('safety', () => hideFlagged(safety, decoded.images, [height, width]));
    drawn.push({ images: decoded.images, latents, flagged });
  }
  return {
    images: concatenate(drawn.map(({ images }) => images)),
    latents: concatenate(drawn.map(({ latents }) => latents)),
    count: seeds.length,
    height,
    width,
    seeds: [...seeds],
    steps,
    sampler: samplerName(scheduler),
    ...(safety.safetyChecker ? { nsfwContentDetected: drawn.flatMap(({ flagged }) => flagged ?? []) } : {}),
    evaluations,
    warnings: [...warnings],
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
    safety,
    first,
    blend,
    ...options
  }: Pick<DenoiseOptions, 'eta' | 'vaeTile' | 'onStep' | 'onPreview' | 'previewSteps' | 'signal'> & {
    start?: number;
    noises: NoiseSource;
    vae: AutoencoderKL;
    safety: SafetyParts;
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
          const { images, height, width } = await decodeLatents(vae, numbers, image.shape, vaeTile);
          await hideFlagged(safety, images, [height, width]);
          await onPreview(images, report);
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
