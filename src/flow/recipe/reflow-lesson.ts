/** What reflow learns from: pairs that were made before, or windows that the teacher crosses meanwhile. */
import { join } from 'node:path';
import { AutoencoderKL } from '../../nn/index.ts';
import type { Network } from '../../nn/models/network.ts';
import type { Tensor } from '../../tensor/index.ts';
import { exists } from '../../tensor/io/files-node.ts';
import { BatchSampler } from '../data/loader.ts';
import { guided } from '../guidance.ts';
import { makeLoss } from '../losses.ts';
import type { Points } from '../objectives.ts';
import { piecewiseObjective } from '../piecewise.ts';
import { trainingNoise } from '../training-noise.ts';
import { batchAt } from './captions.ts';
import { openModule } from './model-folder.ts';
import { openObjective } from './open-objective.ts';
import type { Run } from './run.ts';
import { openPairs } from './stage-pairs.ts';
import { cachedLatents, cacheLatents } from './stage-vae.ts';
import { encodeCaptions, encodeTexts, openNetwork, teacherVelocity } from './student.ts';
import type { TextTable } from './texts.ts';

/** Batches and their loss. */
export interface Lesson {
  /** The text of each sample. */
  prompts: readonly string[];
  texts: TextTable;
  /** How many there are to learn from. */
  samples: number;
  /** The text, and what the objective says, of the n-th forward pass. */
  batch(step: number): Tensor[];
  loss(output: Tensor, points: Points): Tensor;
  /** What `result` notes beside the figures of the training. */
  facts: Record<string, unknown>;
  [Symbol.dispose](): void;
}

/** Where all of it draws from: another stream for each thing. */
const stream = 'reflow time';

/** Between each noise and what the teacher made of it. @throws PairError when there are no pairs of this teacher */
export async function pairLesson(run: Run, unet: Network): Promise<Lesson> {
  const { seed, reflow: recipe } = run.recipe;
  const { times = { distribution: 'uniform' }, loss = { type: 'l2' }, predicts } = recipe;
  const { batchSize, gradientCheckpointing = false } = recipe.train;
  const pairs = await openPairs(run, 'pairs', 'unet_teacher');
  const texts = await encodeTexts(run, pairs.prompts);
  const objective = await openObjective(run, {
    ...{ shape: pairs.shape, times, loss, predicts, gradientCheckpointing },
    ...{ seed, stream, timeWaves: (timesteps) => unet.timeWaves(timesteps) },
  });
  const sampler = new BatchSampler(
    pairs.prompts.map((prompt) => [prompt]),
    { batchSize, seed: seed + 4, nullText: recipe.nullText, specific: 1 },
  );
  return {
    ...{ prompts: pairs.prompts, texts, samples: sampler.length, facts: { pairs: pairs.length } },
    batch(step) {
      const { indices, captions } = batchAt(sampler, step);
      const { x0, x1 } = pairs.batch(indices);
      return [texts.batch(captions), ...objective.points(x0, x1, step)];
    },
    loss: (output, points) => objective.loss(output, points),
    [Symbol.dispose]() {
      objective.dispose();
      pairs.close();
    },
  };
}

/** From latents of the data that are noised, across one window at a time. */
export async function windowLesson(run: Run, unet: Network): Promise<Lesson> {
  const { seed, data: { specificCaption }, reflow: recipe, pairs: { guidanceScale } } = run.recipe; // prettier-ignore
  const { times = { distribution: 'uniform' }, loss = { type: 'l2' }, windows, solvingSteps } = recipe;
  const { batchSize } = recipe.train;
  const { captions } = await run.data();
  const { latents, shape, size } = await dataLatents(run);
  const texts = await encodeCaptions(run);
  const teacher = await openNetwork(run, 'unet_teacher');
  const velocity = teacherVelocity(run, teacher);
  const objective = piecewiseObjective(
    { windows: windows!, solvingSteps },
    { shape, times, loss: makeLoss(loss), seed, stream, timeWaves: (timesteps) => unet.timeWaves(timesteps) },
  );
  const sampler = new BatchSampler(captions, {
    ...{ batchSize, seed: seed + 4, nullText: recipe.nullText, specific: specificCaption },
  });
  return {
    ...{ prompts: captions.map(([first]) => first), texts, samples: sampler.length, facts: { windows, solvingSteps } },
    batch(step) {
      const { indices, captions } = batchAt(sampler, step);
      const x1 = new Float32Array(batchSize * size);
      indices.forEach((image, i) => x1.set(latents.subarray(image * size, (image + 1) * size), i * size));
      const { x0 } = trainingNoise(seed, 'reflow noise', step, batchSize, shape);
      const text = texts.batch(captions);
      const nullText = guidanceScale > 1 ? texts.batch(captions.map(() => '')) : undefined;
      const points = objective.points(x0, x1, step, guided(velocity, text, nullText, guidanceScale));
      nullText?.dispose();
      return [text, ...points];
    },
    loss: (output, points) => objective.loss(output, points),
    [Symbol.dispose]: () => teacher.dispose(),
  };
}

/** Of the data; encoded now where the teacher came without them. */
async function dataLatents(run: Run) {
  if (!(await exists(join(run.folder, 'vae', 'latents.safetensors')))) {
    const vae = await openModule(run.model, 'vae', (config) => new AutoencoderKL(config));
    await cacheLatents(run, vae);
    vae.dispose();
  }
  return cachedLatents(run);
}
