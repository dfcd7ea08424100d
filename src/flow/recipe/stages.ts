/** The recipe, stage by stage: tokenizer → vae → teacher → pairs → reflow → distill → evaluate. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { allow, changesOf } from './changes.ts';
import { saveModelIndex, writeJson } from './model-folder.ts';
import { cannotWrite } from './checkpoints.ts';
import { distillStage } from './stage-distill.ts';
import { evaluateStage } from './stage-evaluate.ts';
import { pairsStage } from './stage-pairs.ts';
import { stageNames } from './recipe.ts';
import type { Recipe, StageName } from './recipe.ts';
import type { NetworkName, SamplingDefaults } from '../pipelines/options.ts';
import { reflowStage } from './stage-reflow.ts';
import { adoptTeacher } from './pretrained.ts';
import { Interrupted, Run } from './run.ts';
import type { RunHooks } from './run.ts';
import { teacherStage } from './stage-teacher.ts';
import { tokenizerStage } from './stage-tokenizer.ts';
import { vaeStage } from './stage-vae.ts';

const stages: Record<StageName, (run: Run) => Promise<unknown>> = {
  tokenizer: tokenizerStage,
  vae: vaeStage,
  teacher: teacherStage,
  pairs: pairsStage,
  reflow: reflowStage,
  distill: distillStage,
  evaluate: evaluateStage,
};

/**
 * Run what is not finished yet, in order; or one stage, whose forerunners must be finished.
 * @throws LockedError when another trainer is at work in the folder
 */
export async function runRecipe(folder: string, recipe: Recipe, hooks: RunHooks = {}, only?: StageName): Promise<void> {
  const run = new Run(folder, recipe, hooks);
  const unlock = await run.lock();
  try {
    await runStages(run, only);
  } finally {
    await unlock();
  }
}

async function runStages(run: Run, only?: StageName): Promise<void> {
  const { folder, recipe, hooks } = run;
  const saved = await savedRecipe(folder);
  if (saved) {
    const changes = await changesOf(folder, saved, recipe, hooks.resumeFrom);
    allow(folder, changes, hooks.force ?? false, (line) => run.say(line));
  }
  await writeJson(join(folder, 'recipe.json'), recipe).catch((error) => {
    throw cannotWrite(error, folder);
  });
  if (hooks.pretrained) await adoptTeacher(run, hooks.pretrained);
  if (only) {
    for (const before of stageNames.slice(0, stageNames.indexOf(only))) {
      const unneeded = before === 'reflow' && only === 'distill' && recipe.distill.from === 'unet_teacher';
      if (!unneeded && !(before === 'pairs' && isWithoutPairs(recipe)) && !(await run.finished(before)))
        throw new Error(
          `${only}: the stage ${before} is not finished\n  train it first: --stage ${before}, or leave out --stage`,
        );
    }
  }
  // Its figures are of images that the run was trained on; a checkpoint of others was not trained on any of the run's.
  const wanted = stageNames.filter(
    (name) => !(name === 'evaluate' && recipe.name === 'checkpoint') && !(name === 'pairs' && isWithoutPairs(recipe)),
  );
  for (const name of only ? [only] : wanted) {
    if (await run.finished(name)) {
      run.say(`${name}: done before`);
      continue;
    }
    run.checkInterrupt();
    const start = performance.now();
    await stages[name](run);
    run.say(`${name}: finished in ${minutes((performance.now() - start) / 1000)}`);
  }
  await saveModelIndex(run.model, samplingOf(recipe));
  if (recipe.name === 'checkpoint') return writeJson(join(run.model, 'recipe.json'), recipe);
  const { attribution, ids } = await run.data();
  await writeJson(join(run.model, 'recipe.json'), { ...recipe, trainedOn: `${ids.length} images`, attribution });
}

/** Reflow by windows learns from images; pairs of the teacher are then for its own distillation only. */
const isWithoutPairs = ({ reflow, distill }: Recipe): boolean =>
  reflow.windows !== undefined && distill.from !== 'unet_teacher';

/** How each network of a run is best sampled. */
function samplingOf({ evaluate, reflow, distill, diffusion }: Recipe): Partial<Record<NetworkName, SamplingDefaults>> {
  const { steps, guidanceScale } = evaluate;
  const isDiffusion = reflow.predicts === 'epsilon';
  return {
    unet: { steps: distill.steps ?? 1, guidanceScale: 1 },
    unet_teacher: { steps, guidanceScale, ...(diffusion && { scheduler: diffusion }) },
    unet_reflow: isDiffusion
      ? { steps: 4, guidanceScale: 1, scheduler: diffusion }
      : { steps: reflow.windows ?? 1, guidanceScale: 1 },
  };
}

/** The recipe of a run that was begun before. */
export async function savedRecipe(folder: string): Promise<Recipe | undefined> {
  const text = await readFile(join(folder, 'recipe.json'), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text) as Recipe;
  } catch (error) {
    throw new Error(`${join(folder, 'recipe.json')}: not JSON (${(error as Error).message})`);
  }
}

export { Interrupted, Run };

const minutes = (seconds: number): string =>
  seconds < 90 ? `${seconds.toFixed(1)} s` : `${(seconds / 60).toFixed(1)} min`;
