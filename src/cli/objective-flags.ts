/** The flags of `train` that say what reflow and distillation learn: loss, times, student. */
import { lossTypes } from '../flow/losses.ts';
import type { LossOptions, LossType } from '../flow/losses.ts';
import { isPerceptual, wantsLpips } from '../flow/losses.ts';
import type { Recipe, StageName } from '../flow/recipe/recipe.ts';
import { timeDistributions } from '../flow/times.ts';
import { choice, flag, float, int, repeated, text } from './command.ts';
import type { Values } from './command.ts';

export const objectiveFlags = {
  loss_type: choice(
    undefined,
    lossTypes,
    'what reflow and distill make small (l2); lpips and lpl look through the decoder',
  ),
  huber_c: float(undefined, 'where huber turns from a parabola to a line (0.001)', { min: 1e-9 }),
  lpips_model: repeated(text(undefined, 'weights of LPIPS: one file, or a network of torchvision and the heads')),
  lpips_weight: float(undefined, 'of LPIPS or LPL where it is one of two (1)', { min: 0 }),
  then_loss_type: choice(undefined, lossTypes, 'loss of the last steps of distill, as the paper has l2, then lpips'),
  then_steps: int(undefined, 'how many those are, after the others', { min: 1 }),
  t_dist: choice(undefined, timeDistributions, 'when on its paths reflow is trained (uniform)'),
  t_steepness: float(undefined, 'how steep the ends of u-shaped are (4)', { min: 1e-3, max: 100 }),
  t_grid: int(undefined, 'pieces of k-grid', { min: 1 }),
  logit_mean: float(undefined, 'of logit-normal (0)'),
  logit_std: float(undefined, 'likewise (1)', { min: 1e-6 }),
  proportion_empty_prompts: float(undefined, 'share of texts that reflow drops, for guidance', { min: 0, max: 1 }),
  prediction_type: choice(undefined, ['velocity', 'epsilon'], 'epsilon: reflow leaves a network of diffusion one'),
  windows: int(undefined, 'reflow in so many windows of time, each by itself, from the images and without pairs', {
    min: 1,
  }),
  solving_steps: int(undefined, 'steps of the teacher through a window (8)', { min: 1 }),
  negate_epsilon: flag(undefined, 'begin with minus the noise that the teacher predicts: nearer to a velocity'),
  distillation_steps: int(undefined, 'steps that the distilled network takes (1)', { min: 1 }),
  distill_from: choice(undefined, ['unet_reflow', 'unet_teacher'], 'whose weights and pairs distill begins with'),
  student: choice(undefined, ['unet', 'stacked'], 'network of distill; stacked: two U-Nets in a row (InstaFlow-1.7B)'),
};

/** What was given of them. */
export type ObjectiveFlags = Partial<Values<typeof objectiveFlags>> & { stage?: StageName };

/** Put what was given into a recipe, and nothing else. */
export function setObjective(recipe: Recipe, given: ObjectiveFlags): void {
  const { reflow, distill } = recipe;
  const here = (stage: StageName) => given.stage === undefined || given.stage === stage;
  const lossOf = (before: LossOptions = { type: 'l2' }): LossOptions => ({
    ...before,
    ...(given.loss_type && { type: given.loss_type as LossType }),
    ...(given.huber_c !== undefined && { huberC: given.huber_c }),
    ...(given.lpips_weight !== undefined && { lpipsWeight: given.lpips_weight }),
  });
  const isLossGiven = [given.loss_type, given.huber_c, given.lpips_weight].some((value) => value !== undefined);
  if (isLossGiven && here('reflow')) reflow.loss = lossOf(reflow.loss);
  if (isLossGiven && here('distill')) distill.loss = lossOf(distill.loss);
  if (given.then_loss_type && given.then_steps && here('distill'))
    distill.then = { loss: lossOf({ type: given.then_loss_type }), steps: given.then_steps };
  if (distill.then && given.then_loss_type) distill.then.loss.type = given.then_loss_type;
  if (given.lpips_model?.length) recipe.lpips = given.lpips_model;
  if (given.t_dist)
    reflow.times = {
      distribution: given.t_dist,
      ...(given.t_steepness !== undefined && { steepness: given.t_steepness }),
      ...(given.t_grid !== undefined && { steps: given.t_grid }),
      ...(given.logit_mean !== undefined && { mean: given.logit_mean }),
      ...(given.logit_std !== undefined && { std: given.logit_std }),
    };
  if (given.proportion_empty_prompts !== undefined) reflow.nullText = given.proportion_empty_prompts;
  if (given.prediction_type) reflow.predicts = given.prediction_type;
  if (given.prediction_type === 'epsilon' && !reflow.loss) reflow.loss = { type: 'huber' };
  if (given.negate_epsilon) reflow.negateEpsilon = true;
  if (given.windows !== undefined) reflow.windows = given.windows;
  if (given.solving_steps !== undefined) reflow.solvingSteps = given.solving_steps;
  if (given.distillation_steps !== undefined) distill.steps = given.distillation_steps;
  if (given.distill_from) distill.from = given.distill_from;
  if (given.student) distill.student = given.student;
}

const isSet = (given: ObjectiveFlags, name: keyof ObjectiveFlags): boolean =>
  given[name] !== undefined && given[name] !== false;

const said = (wrong: [boolean, string][]): string[] => wrong.flatMap(([is, words]) => (is ? [words] : []));

/** Flags that do not go together, a line each. */
export function objectiveContradictions(given: ObjectiveFlags): string[] {
  const set = (name: keyof ObjectiveFlags) => isSet(given, name);
  const only = (name: keyof ObjectiveFlags, dist: string): [boolean, string] => [
    set(name) && given.t_dist !== dist,
    `--${name} is for --t_dist ${dist}${given.t_dist ? `, not ${given.t_dist}` : ''}`,
  ];
  return said([
    [set('then_loss_type') !== set('then_steps'), '--then_loss_type and --then_steps: give both'],
    only('t_steepness', 'u-shaped'),
    only('t_grid', 'k-grid'),
    only('logit_mean', 'logit-normal'),
    only('logit_std', 'logit-normal'),
    [given.t_dist === 'k-grid' && !set('t_grid'), '--t_dist k-grid wants --t_grid, how many pieces'],
    [
      set('t_dist') && given.stage === 'distill',
      '--t_dist and --stage distill: its times follow from --distillation_steps',
    ],
    [
      set('negate_epsilon') && given.prediction_type === 'epsilon',
      '--negate_epsilon and --prediction_type epsilon: the network goes on predicting the noise',
    ],
  ]);
}

/** What of it the run's recipe, as `setObjective` left it, cannot do: a line each. */
export function objectiveProblems(recipe: Recipe, given: ObjectiveFlags): string[] {
  const set = (name: keyof ObjectiveFlags) => isSet(given, name);
  const { reflow, distill, diffusion, lpips = [] } = recipe;
  const { stage } = given;
  const isLearnt = stage === undefined || stage === 'reflow' || stage === 'distill';
  const losses = [
    ...(stage === 'distill' ? [] : [reflow.loss]),
    ...(stage === 'reflow' ? [] : [distill.loss, distill.then?.loss]),
  ].map((loss) => loss?.type ?? 'l2');
  const blind = losses.find((type) => wantsLpips(type));
  return said([
    [
      isLearnt && blind !== undefined && lpips.length === 0,
      `--loss_type ${blind} wants --lpips_model: weights of LPIPS (AlexNet or VGG, and the heads), which do not come with this`,
    ],
    [
      set('huber_c') && !losses.some((type) => type.endsWith('huber')),
      '--huber_c is for --loss_type huber and lpips_huber',
    ],
    [
      set('lpips_weight') && !losses.some((type) => type.startsWith('lpips_') || type === 'lpl_l2'),
      '--lpips_weight is for --loss_type lpips_l2, lpips_huber and lpl_l2, of which the distance of images is a part',
    ],
    [
      set('then_steps') && distill.train.epochs !== undefined,
      '--then_steps and --num_train_epochs: steps follow upon steps, give --max_train_steps',
    ],
    [
      reflow.predicts === 'epsilon' && !diffusion,
      '--prediction_type epsilon: the teacher is a rectified flow, not a network of noise',
    ],
    [
      set('solving_steps') && !reflow.windows,
      '--solving_steps is for --windows, which has the teacher asked meanwhile',
    ],
    [
      reflow.windows !== undefined && reflow.predicts === 'epsilon',
      '--windows and --prediction_type epsilon: what is straight in a window is a velocity',
    ],
    [
      reflow.windows !== undefined && stage !== 'distill' && isPerceptual(reflow.loss?.type ?? 'l2'),
      `--windows and --loss_type ${reflow.loss?.type} for reflow: windows end in noisy latents, which are no images to compare; give l2 or huber`,
    ],
    [
      set('negate_epsilon') && !diffusion,
      '--negate_epsilon: the teacher is a rectified flow, which predicts the velocity already',
    ],
    [
      reflow.predicts === 'epsilon' && reflow.loss?.type === 'lpips_huber' && stage !== 'distill',
      '--loss_type lpips_huber and --prediction_type epsilon: its weights follow a straight path; use lpips_l2 or huber',
    ],
    [
      reflow.predicts === 'epsilon' && stage === 'distill' && distill.from !== 'unet_teacher',
      '--prediction_type epsilon and --stage distill: reflow left a network of noise, which has no velocity to distil',
    ],
  ]);
}
