/** Refuse what does not fit before anything is read. */
import type { Gpu } from '../kernels/index.ts';
import { checkFit } from '../flow/estimate/fit.ts';
import type { Plan, Rehearsal } from '../flow/estimate/rehearse.ts';
import type { NetworkName } from '../flow/pipelines/options.ts';
import { readOutline } from '../flow/recipe/model-outline.ts';
import type { OutlineOptions } from '../flow/recipe/model-outline.ts';
import { availableMemory } from './memory.ts';

/** @throws DoesNotFitError before weights are read; what is wrong with a model is for its loader to say */
export async function checkModel(
  gpu: Gpu,
  path: string,
  plan: Plan,
  ...how: [which?: NetworkName, options?: OutlineOptions]
): Promise<Rehearsal | undefined> {
  const outline = await readOutline(path, ...how).catch(() => undefined);
  return outline && checkFit(outline, plan, availableMemory(gpu));
}
