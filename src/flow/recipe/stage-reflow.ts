import { join } from 'node:path';
import { tensor } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { BatchSampler } from '../data/loader.ts';
import { latentSize } from '../latents.ts';
import { flowLoss, pathPoints } from '../rectified-flow.ts';
import { batchAt, previewPrompts, spreadTimes } from './captions.ts';
import { saveModule } from './model-folder.ts';
import { pairBatch, readPairs } from './pairs.ts';
import { sampleSheet } from './preview.ts';
import type { Run } from './run.ts';
import { cachedLatents } from './stage-vae.ts';
import { encodeCaptions, openNetwork } from './student.ts';

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
  const data = await run.data();
  const { shape } = await cachedLatents(run);
  const texts = await encodeCaptions(run);
  const pairs = await readPairs(join(run.folder, 'pairs'), latentSize(shape));
  const unet = await openNetwork(run, 'unet_teacher');
  unet.gradientCheckpointing = recipe.train.gradientCheckpointing ?? false;
  const { batchSize } = recipe.train;
  const sampler = new BatchSampler(
    pairs.prompts.map((prompt) => [prompt]),
    { batchSize, seed: seed + 4, nullText: recipe.nullText, specific: 1 },
  );
  const batch = (step: number): Tensor[] => {
    const { indices, captions } = batchAt(sampler, step);
    const { x0, x1 } = pairBatch(pairs, indices, shape);
    const { xt, target, timesteps } = pathPoints(x0, x1, spreadTimes(seed, 'reflow time', step, batchSize));
    const all = [batchSize, ...shape];
    return [tensor(xt, all), unet.timeWaves([...timesteps]), texts.batch(captions), tensor(target, all)];
  };
  const loss = (xt: Tensor, waves: Tensor, text: Tensor, target: Tensor): Tensor =>
    flowLoss(unet.forward(xt, waves, text), target);
  const prompts = previewPrompts(data, run.hooks.validationPrompts);
  const preview = (step: number) =>
    sampleSheet(run, 'reflow', {
      prompts,
      network: unet,
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
  await saveModule(run.model, 'unet_reflow', unet, 'UNet2DConditionModel');
  await preview(result.step);
  unet.dispose();
  await run.finish('reflow', { ...result, pairs: pairs.seeds.length });
}
