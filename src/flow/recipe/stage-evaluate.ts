import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { AutoencoderKL } from '../../nn/index.ts';
import { currentGpu, noGrad, scope, tensor } from '../../tensor/index.ts';
import { featureCount, imageFeatures } from '../metrics/features.ts';
import { frechetDistance, gaussianOf } from '../metrics/frechet.ts';
import { deviations, nearest, standardise } from '../metrics/nearest.ts';
import { fewStepError, Straightness } from '../metrics/straightness.ts';
import type { StraightnessResult } from '../metrics/straightness.ts';
import { guided } from '../guidance.ts';
import { latentSize, seededNoise, unscaleLatents } from '../latents.ts';
import { concatenate } from '../pipelines/arrays.ts';
import type { NetworkName } from '../pipelines/options.ts';
import { euler } from '../solvers.ts';
import { drawPrompts } from './captions.ts';
import { openModule, saveModelIndex, writeJson } from './model-folder.ts';
import type { Run } from './run.ts';
import { cachedLatents } from './stage-vae.ts';
import { conditional, encodeCaptions, openNetwork } from './student.ts';

/** One way of sampling, measured. */
export interface Measured {
  network: NetworkName;
  steps: number;
  guidanceScale: number;
  /** In the fixed feature space of metrics/features.ts, to all training images. */
  frechetDistance: number;
  /** Share of images whose nearest training image carries the caption that was asked for. */
  captionAccuracy: number;
  /** Of the path as sampled; only with many steps. */
  straightness?: StraightnessResult;
  secondsPerImage: number;
}

/** All ways of sampling beside each other. */
export interface Metrics {
  count: number;
  rows: Measured[];
  /** S / cost of the teacher ÷ that of the reflowed flow. */
  straightnessGain: number;
  /** Root mean square difference in the latents from the same noise. */
  fewStepError: { teacher1: number; reflow1: number; reflow2: number; distilled1: number };
  /** Fréchet distance of the images through the autoencoder alone: what no flow can beat. */
  autoencoderFrechetDistance: number;
  /** Distilled in one step ÷ teacher in many. */
  frechetRatio: number;
}

const BATCH = 64;

/** The same prompts and noise through every network; numbers as JSON, pictures as a sheet. */
export async function evaluateStage(run: Run): Promise<Metrics> {
  const {
    seed,
    data: { specificCaption },
    evaluate: { count, steps, guidanceScale },
  } = run.recipe;
  const data = await run.data();
  const { size } = data;
  const { latents: realLatents, shape } = await cachedLatents(run);
  const texts = await encodeCaptions(run);
  const vae = await openModule(run.model, 'vae', (config) => new AutoencoderKL(config));
  const prompts = drawPrompts(data, count, seed + 7, specificCaption).map(({ text }) => text);
  const noise = concatenate(prompts.map((_, i) => seededNoise(3_000_000 + i, shape)));
  const latent = latentSize(shape);

  const decode = async (latents: Float32Array): Promise<Float32Array> => {
    const parts: Float32Array[] = [];
    for (let from = 0; from < latents.length; from += BATCH * latent) {
      const part = unscaleLatents(latents.slice(from, from + BATCH * latent), shape[2], vae.config);
      const decoded = noGrad(() => scope(() => vae.decode(tensor(part, [part.length / latent, ...shape]))));
      parts.push((await decoded.read()) as Float32Array);
      decoded.dispose();
    }
    return concatenate(parts);
  };
  const real = imageFeatures(data.images, size, size);
  const realGaussian = gaussianOf(real, featureCount);
  const spread = deviations(real, featureCount);
  const distance = (features: Float32Array) => frechetDistance(gaussianOf(features, featureCount), realGaussian);
  const accuracy = (features: Float32Array) => {
    const { index } = nearest(standardise(features, spread), standardise(real, spread), featureCount);
    return index.reduce((right, j, i) => right + Number(data.captions[j]?.includes(prompts[i])), 0) / prompts.length;
  };

  const rows: Measured[] = [];
  const ends = new Map<string, { latents: Float32Array; images: Float32Array }>();
  const measure = async (network: NetworkName, n: number, alpha: number) => {
    run.checkInterrupt();
    const unet = await openNetwork(run, network);
    const straight = new Straightness();
    const parts: Float32Array[] = [];
    await currentGpu().idle();
    const start = performance.now();
    for (let from = 0; from < count; from += BATCH) {
      const part = prompts.slice(from, from + BATCH);
      const velocities: Promise<ArrayLike<number>>[] = [];
      const z = noGrad(() =>
        scope(() => {
          const nullText = alpha > 1 ? texts.batch(part.map(() => '')) : undefined;
          const velocity = guided(conditional(unet), texts.batch(part), nullText, alpha);
          const x0 = tensor(noise.subarray(from * latent, (from + part.length) * latent), [part.length, ...shape]);
          return euler(
            (at, t) => {
              const v = velocity(at, t);
              if (n > 2) velocities.push(v.read());
              return v;
            },
            x0,
            n,
          );
        }),
      );
      parts.push((await z.read()) as Float32Array);
      z.dispose();
      if (n > 2) straight.add(await Promise.all(velocities), part.length);
    }
    const seconds = (performance.now() - start) / 1000;
    unet.dispose();
    const latents = concatenate(parts);
    const images = await decode(latents);
    const features = imageFeatures(images, size, size);
    rows.push({
      network,
      steps: n,
      guidanceScale: alpha,
      frechetDistance: distance(features),
      captionAccuracy: accuracy(features),
      secondsPerImage: seconds / count,
      ...(n > 2 ? { straightness: straight.result() } : {}),
    });
    ends.set(`${network}@${n}`, { latents, images });
    const { frechetDistance: fd, captionAccuracy: right } = rows.at(-1)!;
    run.say(
      `evaluate: ${network} in ${n} steps: Fréchet distance ${fd.toFixed(4)}, caption accuracy ${(100 * right).toFixed(1)} %`,
    );
  };
  await measure('unet_teacher', steps, guidanceScale);
  await measure('unet_teacher', 1, guidanceScale);
  await measure('unet_reflow', steps, 1);
  await measure('unet_reflow', 1, 1);
  await measure('unet_reflow', 2, 1);
  await measure('unet', 1, 1);

  const find = (network: NetworkName, n: number) => rows.find((row) => row.network === network && row.steps === n)!;
  const latentsOf = (key: string) => ends.get(key)!.latents;
  const metrics: Metrics = {
    count,
    rows,
    straightnessGain: find('unet_teacher', steps).straightness!.ratio / find('unet_reflow', steps).straightness!.ratio,
    fewStepError: {
      teacher1: fewStepError(latentsOf('unet_teacher@1'), latentsOf(`unet_teacher@${steps}`)),
      reflow1: fewStepError(latentsOf('unet_reflow@1'), latentsOf(`unet_reflow@${steps}`)),
      reflow2: fewStepError(latentsOf('unet_reflow@2'), latentsOf(`unet_reflow@${steps}`)),
      distilled1: fewStepError(latentsOf('unet@1'), latentsOf(`unet_reflow@${steps}`)),
    },
    autoencoderFrechetDistance: distance(imageFeatures(await decode(realLatents), size, size)),
    frechetRatio: find('unet', 1).frechetDistance / find('unet_teacher', steps).frechetDistance,
  };
  vae.dispose();
  await run.stageFolder('evaluate');
  await writeJson(join(run.folder, 'evaluate', 'metrics.json'), metrics);
  await drawResult(run, prompts, ends, steps, guidanceScale, size, data.attribution, metrics);
  await mkdir(run.model, { recursive: true });
  await saveModelIndex(run.model, {
    unet: { steps: 1, guidanceScale: 1 },
    unet_teacher: { steps, guidanceScale },
    unet_reflow: { steps: 1, guidanceScale: 1 },
  });
  await writeJson(join(run.model, 'metrics.json'), metrics);
  await run.finish('evaluate', { straightnessGain: metrics.straightnessGain, frechetRatio: metrics.frechetRatio });
  run.say(
    `evaluate: reflow makes the flow ${metrics.straightnessGain.toFixed(1)} times straighter; ` +
      `one distilled step has ${metrics.frechetRatio.toFixed(2)} times the teacher's Fréchet distance`,
  );
  return metrics;
}

async function drawResult(
  run: Run,
  prompts: string[],
  ends: Map<string, { images: Float32Array }>,
  steps: number,
  guidanceScale: number,
  size: number,
  footer: string,
  metrics: Metrics,
): Promise<void> {
  const each = size * size * 3;
  const shown = prompts.map((_, i) => i).slice(0, 12);
  const ways: [string, string][] = [
    [`unet_teacher@${steps}`, `teacher, ${steps} steps, guidance ${guidanceScale}`],
    ['unet_teacher@1', 'teacher, 1 step'],
    [`unet_reflow@${steps}`, `after reflow, ${steps} steps`],
    ['unet_reflow@1', 'after reflow, 1 step'],
    ['unet@1', 'distilled, 1 step'],
  ];
  const sheet = {
    title: `${run.recipe.name} · the same noise in every column`,
    subtitle: `straightness gain ${metrics.straightnessGain.toFixed(1)}, Fréchet ratio ${metrics.frechetRatio.toFixed(2)}`,
    size,
    footer,
    columns: shown.map((i) => ({ title: prompts[i] })),
    rows: ways.map(([key, title]) => ({
      title,
      images: shown.map((i) => ends.get(key)!.images.slice(i * each, (i + 1) * each)),
    })),
  };
  await run.sheet('evaluate', sheet, 'sheet');
}
