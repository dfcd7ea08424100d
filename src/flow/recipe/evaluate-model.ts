/** A finished model measured: every network it has, in few steps and in many. */
import { velocityOfDiffusion } from '../diffusion-velocity.ts';
import { guided } from '../guidance.ts';
import type { ConditionalNetwork } from '../guidance.ts';
import type { CaptionedImages } from '../data/captioned-images.ts';
import { Evaluation } from '../metrics/evaluation.ts';
import type { EvaluationOptions, Measured, Way } from '../metrics/evaluation.ts';
import type { Pipeline } from '../pipeline.ts';
import type { NetworkName } from '../pipelines/options.ts';
import { timestepOf } from '../rectified-flow.ts';
import { readConfig, trainingFields } from '../schedulers/config.ts';
import { NoiseSchedule } from '../schedulers/noise-schedule.ts';
import { drawEvaluation } from './evaluation-data.ts';
import type { EvaluationDraw } from './evaluation-data.ts';

export interface EvaluateModelOptions
  extends Pick<EvaluationOptions, 'features' | 'clip' | 'lpips' | 'batchSize'>, Omit<EvaluationDraw, 'shape'> {
  real: CaptionedImages;
  /** Numbers of steps. The errors of the others, and straightness, are those of the largest. */
  steps: readonly number[];
  /** Of the first network; the others have guidance built in. The model's own, unless given. */
  guidanceScale?: number;
  /** After each row. */
  onRow?(row: Measured): void;
}

/** From the first of the recipe to the last. */
const order: readonly NetworkName[] = ['unet_teacher', 'unet_reflow', 'unet'];

/**
 * Follow the same noise through each network with Euler's steps. The teacher is the first network that there is. Rows come
 * out by network, then by steps.
 */
export async function evaluateModel(pipeline: Pipeline, options: EvaluateModelOptions): Promise<Evaluation> {
  const { real, features, clip, lpips, batchSize } = options;
  const { latentShape: shape } = pipeline;
  const { vae, networks, defaults } = pipeline.parts;
  const drawn = drawEvaluation(real, { ...options, shape });
  const evaluation = await Evaluation.begin({
    ...drawn,
    shape,
    vae,
    real,
    features,
    clip,
    lpips,
    batchSize,
    open: (network) => ({
      velocity(prompts, alpha) {
        const texts = (list: string[]) => pipeline.encodePrompts(list).text;
        const nullText = alpha > 1 ? texts(prompts.map(() => '')) : undefined;
        return guided(flowOf(pipeline, network), texts(prompts), nullText, alpha);
      },
      dispose() {},
    }),
  });
  const steps = [...new Set(options.steps)].sort((a, b) => b - a);
  for (const [i, network] of order.filter((name) => networks[name]).entries()) {
    const own = defaults[network]?.guidanceScale ?? 1;
    const guidanceScale = i === 0 ? (options.guidanceScale ?? own) : own;
    const many: Way = { network, steps: steps[0], guidanceScale };
    for (const n of steps) {
      const few = n === steps[0] ? { isTeacher: i === 0 } : { many };
      options.onRow?.(await evaluation.measure({ ...many, steps: n }, few));
    }
  }
  const place = ({ network, steps }: Measured) => 10_000 * order.indexOf(network) + steps;
  evaluation.rows.sort((a, b) => place(a) - place(b));
  return evaluation;
}

/** The velocity of one of a pipeline's networks, which may be a diffusion's. */
function flowOf(pipeline: Pipeline, which: NetworkName): ConditionalNetwork {
  const network = pipeline.conditional(which);
  const { defaults, scheduler: common } = pipeline.parts;
  const scheduler = defaults[which]?.scheduler ?? common;
  if (!scheduler || /RectifiedFlow/.test(scheduler._class_name ?? ''))
    return (z, t, text) => network(z, timestepOf(t), text);
  const config = readConfig('eval', scheduler, trainingFields);
  return velocityOfDiffusion(network, new NoiseSchedule(config), config.prediction_type);
}
