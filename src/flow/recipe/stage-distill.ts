import type { Tensor } from '../../tensor/index.ts';
import { BatchSampler } from '../data/loader.ts';
import type { LossOptions } from '../losses.ts';
import type { Points } from '../objectives.ts';
import type { TrainResult } from '../trainer.ts';
import { batchAt, drawPrompts, previewPrompts } from './captions.ts';
import { ModelFolderError } from './model-folder.ts';
import { openObjective } from './open-objective.ts';
import type { PairSet } from './pairs/pair-set.ts';
import { sampleSheet } from './preview.ts';
import type { Run } from './run.ts';
import { openPairs, recipePairs } from './stage-pairs.ts';
import { encodeTexts, openStudent, saveNetwork } from './student.ts';

/**
 * One-step distillation: only t = 0 is ever asked for, so learn to jump from there to where the reflowed flow ends. With
 * several steps, the same from each of the times 0, 1/k, ….
 *
 *     min E D(x0 + v(x0, 0, text), ODE[reflowed](x0 | text))        D: L2, then LPIPS if wanted
 *
 * @see Liu et al. 2023, InstaFlow, eq. 6. https://arxiv.org/abs/2309.06380
 */
export async function distillStage(run: Run): Promise<void> {
  const { seed, distill: recipe } = run.recipe;
  const { steps = 1, from = 'unet_reflow', loss: first = { type: 'l2' }, then } = recipe;
  const { batchSize, gradientCheckpointing = false } = recipe.train;
  if (run.recipe.reflow.predicts === 'epsilon' && from === 'unet_reflow')
    throw new ModelFolderError(
      `${run.folder}: reflow left a network of diffusion (--prediction_type epsilon), which has no velocity to distil\n  ` +
        'sample it in a few steps as it is, or reflow without that',
    );
  using pairs = await pairsOf(run, from);
  const { shape } = pairs;
  const texts = await encodeTexts(run, pairs.prompts);
  const sampler = new BatchSampler(
    pairs.prompts.map((prompt) => [prompt]),
    { batchSize, seed: seed + 6, nullText: 0, specific: 1 },
  );
  const prompts = previewPrompts(pairs.prompts, run.hooks.validationPrompts);

  /** All steps; a budget of minutes is for all of them, too. */
  const whole = recipe.train.steps + (then?.steps ?? 0);
  /** Train up to a step with one loss. A second one goes on from the checkpoint that the first one leaves. */
  const learn = async (loss: LossOptions, upTo: number): Promise<TrainResult> => {
    const isLast = upTo === whole;
    const minutes = recipe.train.minutes && (recipe.train.minutes * upTo) / whole;
    const negate = from === 'unet_teacher' && run.recipe.reflow.negateEpsilon;
    const unet = await openStudent(run, from, { network: recipe.student, negate });
    unet.gradientCheckpointing = gradientCheckpointing;
    const objective = await openObjective(run, {
      ...{ shape, times: { distribution: 'k-grid', steps }, loss, gradientCheckpointing },
      ...{ seed, stream: 'distill time', timeWaves: (timesteps) => unet.timeWaves(timesteps) },
    });
    const preview = (step: number) =>
      sampleSheet(run, 'distill', {
        prompts,
        network: unet,
        title: `distilled, step ${step}`,
        encode: (list) => texts.batch(list),
        columns: [{ steps, guidanceScale: 1 }],
      });
    const task = {
      ...{ name: 'distill', modules: { unet }, samples: sampler.length, preview },
      batch(step: number): Tensor[] {
        const { x0, x1, prompts } = pairs.batch(batchAt(sampler, step).indices);
        return [texts.batch(prompts), ...objective.points(x0, x1, step)];
      },
      loss: (text: Tensor, ...points: Tensor[]): Tensor =>
        objective.loss(unet.forward(points[0], points[1], text), points as unknown as Points),
    };
    try {
      const result = await run.train('distill', task, { ...recipe.train, steps: upTo, minutes });
      if (isLast) {
        await saveNetwork(run, 'unet', unet);
        await preview(result.step);
      }
      return result;
    } finally {
      objective.dispose();
      unet.dispose();
    }
  };
  let result = await learn(first, recipe.train.steps);
  if (then) result = await learn(then.loss, whole);
  await run.finish('distill', { ...result, pairs: pairs.length });
}

/** Made anew with the reflowed network; those of the teacher when that is distilled directly. */
async function pairsOf(run: Run, from: 'unet_reflow' | 'unet_teacher'): Promise<PairSet> {
  if (from === 'unet_teacher') return openPairs(run, 'pairs', from);
  const { seed, data: { specificCaption }, distill: recipe } = run.recipe; // prettier-ignore
  const prompts = drawPrompts(await run.data(), recipe.pairs.count, seed + 5, specificCaption).map(({ text }) => text);
  await recipePairs(run, 'distill/pairs', { which: from, prompts, firstSeed: 2_000_000 }, recipe.pairs);
  return openPairs(run, 'distill/pairs', from);
}
