/** What `train`'s last stage and `eval` share around an evaluation: its prompts and noise, its words and pictures. */
import type { CaptionedImages } from '../data/captioned-images.ts';
import { seededNoise } from '../latents.ts';
import type { LatentShape } from '../latents.ts';
import type { Evaluation, Measured, Way } from '../metrics/evaluation.ts';
import { concatenate } from '../pipelines/arrays.ts';
import type { NetworkName } from '../pipelines/options.ts';
import { drawPrompts } from './captions.ts';
import type { SampleSheet } from './run.ts';

export interface EvaluationDraw {
  /** Images of each way of sampling. */
  count: number;
  /** That of the recipe. */
  seed: number;
  /** Share of prompts that are an image's first caption. */
  specificCaption: number;
  shape: LatentShape;
}

/** Prompts in the proportions of training, and the noise of each. */
export function drawEvaluation(
  data: CaptionedImages,
  { count, seed, specificCaption, shape }: EvaluationDraw,
): { prompts: string[]; noise: Float32Array } {
  const prompts = drawPrompts(data, count, seed + 7, specificCaption).map(({ text }) => text);
  return { prompts, noise: concatenate(prompts.map((_, i) => seededNoise(3_000_000 + i, shape))) };
}

/** A line for people. */
export const describeRow = ({ network, steps, frechetDistance, captionAccuracy }: Measured, distance: string): string =>
  `${network} in ${stepsOf(steps)}: ${distance} ${frechetDistance.toFixed(4)}, caption accuracy ${(100 * captionAccuracy).toFixed(1)} %`;

/** What stands for each network in pictures. */
export const networkTitles: Record<NetworkName, string> = {
  unet_teacher: 'teacher',
  unet_reflow: 'after reflow',
  unet: 'distilled',
};

/** 'teacher, 25 steps, guidance 1.5'; a network that is alone has no name. */
export const titleOf = ({ network, steps, guidanceScale }: Way, isAlone = false): string =>
  [
    ...(isAlone ? [] : [networkTitles[network]]),
    stepsOf(steps),
    ...(guidanceScale > 1 ? [`guidance ${guidanceScale}`] : []),
  ].join(', ');

const stepsOf = (steps: number): string => `${steps} step${steps > 1 ? 's' : ''}`;

/** A row for each way, a column for each of the first prompts. */
export function evaluationSheet(evaluation: Evaluation, name: string, subtitle: string): SampleSheet {
  const { rows } = evaluation;
  const { shape, vae, prompts, real } = evaluation.options;
  const size = shape[0] * vae.factor;
  const each = size * size * 3;
  const isAlone = new Set(rows.map(({ network }) => network)).size === 1;
  const shown = prompts.slice(0, evaluation.end(rows[0]).images.length / each);
  return {
    title: `${name} · the same noise in every column`,
    subtitle,
    size,
    footer: real.attribution,
    columns: shown.map((title) => ({ title })),
    rows: rows.map((row) => ({
      title: titleOf(row, isAlone),
      images: shown.map((_, i) => evaluation.end(row).images.slice(i * each, (i + 1) * each)),
    })),
  };
}
