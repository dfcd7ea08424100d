import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { mse, tensor } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { BatchSampler } from '../data/loader.ts';
import { timestepOf } from '../rectified-flow.ts';
import { batchAt, drawPrompts, previewPrompts } from './captions.ts';
import { saveModule } from './model-folder.ts';
import { makePairs, pairBatch } from './pairs.ts';
import { sampleSheet } from './preview.ts';
import type { Run } from './run.ts';
import { cachedLatents } from './stage-vae.ts';
import { conditional, encodeCaptions, openNetwork } from './student.ts';

/**
 * One-step distillation: only t = 0 is ever asked for, so learn to jump from there to where the reflowed flow ends.
 *
 *     min E |x0 + v(x0, 0, text) − ODE[reflowed](x0 | text)|²
 *
 * @see Liu et al. 2023, InstaFlow, eq. 6. https://arxiv.org/abs/2309.06380
 */
export async function distillStage(run: Run): Promise<void> {
  const {
    seed,
    data: { specificCaption },
    distill: recipe,
  } = run.recipe;
  const data = await run.data();
  const { shape } = await cachedLatents(run);
  const texts = await encodeCaptions(run);
  const unet = await openNetwork(run, 'unet_reflow');
  unet.gradientCheckpointing = recipe.train.gradientCheckpointing ?? false;
  const folder = join(await run.stageFolder('distill'), 'pairs');
  await mkdir(folder, { recursive: true });
  const drawn = drawPrompts(data, recipe.pairs.count, seed + 5, specificCaption).map(({ text }) => text);
  const pairs = await makePairs(
    run,
    folder,
    { network: conditional(unet), texts, shape, prompts: drawn, firstSeed: 2_000_000 },
    recipe.pairs,
  );

  const { batchSize } = recipe.train;
  const sampler = new BatchSampler(
    pairs.prompts.map((prompt) => [prompt]),
    { batchSize, seed: seed + 6, nullText: 0, specific: 1 },
  );
  const batch = (step: number): Tensor[] => {
    const { x0, x1, prompts } = pairBatch(pairs, batchAt(sampler, step).indices, shape);
    const jump = x1.map((value, i) => value - x0[i]);
    const all = [batchSize, ...shape];
    return [tensor(x0, all), texts.batch(prompts), tensor(jump, all)];
  };
  const loss = (x0: Tensor, text: Tensor, jump: Tensor): Tensor => mse(unet.forward(x0, timestepOf(0), text), jump);
  const prompts = previewPrompts(data, run.hooks.validationPrompts);
  const preview = (step: number) =>
    sampleSheet(run, 'distill', {
      prompts,
      network: unet,
      title: `distilled, step ${step}`,
      encode: (list) => texts.batch(list),
      columns: [{ steps: 1, guidanceScale: 1 }],
    });
  const result = await run.train(
    'distill',
    { name: 'distill', modules: { unet }, samples: sampler.length, batch, loss, preview },
    recipe.train,
  );
  await saveModule(run.model, 'unet', unet, 'UNet2DConditionModel');
  await preview(result.step);
  unet.dispose();
  await run.finish('distill', { ...result, pairs: pairs.seeds.length });
}
