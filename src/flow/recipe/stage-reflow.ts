import type { Tensor } from '../../tensor/index.ts';
import { BatchSampler } from '../data/loader.ts';
import type { Points } from '../objectives.ts';
import { batchAt, previewPrompts } from './captions.ts';
import { openObjective } from './open-objective.ts';
import { sampleSheet } from './preview.ts';
import type { Run } from './run.ts';
import { openPairs } from './stage-pairs.ts';
import { encodeTexts, openStudent, saveNetwork, teacherVelocity } from './student.ts';

/**
 * Text-conditioned reflow: train the flow again, between each noise and what the teacher made of it. Its paths no longer
 * cross, so they come out straight, and guidance is built in.
 *
 *     min E |v(xt, t, text) − (x1 − x0)|²      x1 = ODE[teacher](x0 | text), xt between the two
 *
 * @see Liu et al. 2023, InstaFlow, eq. 5. https://arxiv.org/abs/2309.06380
 */
export async function reflowStage(run: Run): Promise<void> {
  const { seed, reflow: recipe } = run.recipe;
  const { times = { distribution: 'uniform' }, loss: lossOptions = { type: 'l2' }, predicts, negateEpsilon } = recipe;
  const { batchSize, gradientCheckpointing = false } = recipe.train;
  const unet = await openStudent(run, 'unet_teacher', { negate: negateEpsilon && predicts !== 'epsilon' });
  unet.gradientCheckpointing = gradientCheckpointing;
  using pairs = await openPairs(run, 'pairs', 'unet_teacher');
  const { shape } = pairs;
  const texts = await encodeTexts(run, pairs.prompts);
  const objective = await openObjective(run, {
    ...{ shape, times, loss: lossOptions, predicts, gradientCheckpointing },
    ...{ seed, stream: 'reflow time', timeWaves: (timesteps) => unet.timeWaves(timesteps) },
  });
  const sampler = new BatchSampler(
    pairs.prompts.map((prompt) => [prompt]),
    { batchSize, seed: seed + 4, nullText: recipe.nullText, specific: 1 },
  );
  const batch = (step: number): Tensor[] => {
    const { indices, captions } = batchAt(sampler, step);
    const { x0, x1 } = pairs.batch(indices);
    return [texts.batch(captions), ...objective.points(x0, x1, step)];
  };
  const loss = (text: Tensor, ...points: Tensor[]): Tensor =>
    objective.loss(unet.forward(points[0], points[1], text), points as unknown as Points);
  const prompts = previewPrompts(pairs.prompts, run.hooks.validationPrompts);
  const preview = (step: number) =>
    sampleSheet(run, 'reflow', {
      prompts,
      network: unet,
      velocity: predicts === 'epsilon' ? teacherVelocity(run, unet) : undefined,
      title: `after reflow, step ${step}`,
      encode: (list) => texts.batch(list),
      columns: [
        { steps: 1, guidanceScale: 1 },
        { steps: 2, guidanceScale: 1 },
        { steps: 25, guidanceScale: 1 },
      ],
    });
  const result = await run.train(
    'reflow',
    { name: 'reflow', modules: { unet }, samples: sampler.length, batch, loss, preview },
    recipe.train,
  );
  objective.dispose();
  await saveNetwork(run, 'unet_reflow', unet);
  await preview(result.step);
  unet.dispose();
  await run.finish('reflow', { ...result, pairs: pairs.length });
}
