/** --refiner: a second pass over what was drawn. */
import type { SafetyParts } from '../flow/pipelines/safety.ts';
import type { SampleResult } from '../flow/pipelines/options.ts';
import type { RefineOptions } from '../flow/pipelines/refiner.ts';
import { openRefiner } from '../flow/recipe/open-model.ts';
import type { OpenModelOptions } from '../flow/recipe/open-model.ts';

/** Refine the images of `first`, with its safety checker, which is freed. What was hidden stays so. */
export async function secondPass(
  path: string,
  opening: OpenModelOptions,
  safety: SafetyParts,
  first: SampleResult,
  options: Pick<RefineOptions, 'prompts' | 'negativePrompt' | 'vaeTile' | 'onStep'>,
): Promise<SampleResult> {
  using refiner = await openRefiner(path, opening);
  Object.assign(refiner.parts, safety);
  const { images, height, width, seeds, nsfwContentDetected: hidden } = first;
  const refined = await refiner.refine({ ...options, images, height, width, seeds });
  const size = height * width * 3;
  hidden?.forEach((flag, i) => {
    if (flag) refined.images.fill(-1, i * size, (i + 1) * size);
  });
  return { ...refined, warnings: [...new Set([...first.warnings, ...refined.warnings])] };
}
