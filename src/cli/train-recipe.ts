/** The recipe of a run: the preset, or what the folder was begun with, changed by what was given. */
import { deriveRecipe, isCheckpoint } from '../flow/recipe/derive-recipe.ts';
import { preset } from '../flow/recipe/recipe.ts';
import type { PresetName, Recipe, StageName } from '../flow/recipe/recipe.ts';
import { savedRecipe } from '../flow/recipe/stages.ts';
import type { TrainOptions } from '../flow/trainer.ts';
import { UsageError } from './command.ts';
import { objectiveProblems, setObjective } from './objective-flags.ts';
import type { TrainFlags } from './train-flags.ts';

/** @throws UsageError when the folder was begun with another preset, or the resolution does not fit the networks */
export async function recipeOf(given: TrainFlags): Promise<Recipe> {
  const saved = await savedRecipe(given.output_dir);
  if (saved && given.preset && saved.name !== given.preset) {
    throw new UsageError(`${given.output_dir} was begun with --preset ${saved.name}; give another --output_dir`);
  }
  const begunWith = given.pretrained_model_name_or_path;
  const adopted = begunWith && !given.preset ? await recipeOfModel(begunWith) : undefined;
  const recipe = saved ?? adopted ?? preset(given.preset ?? ('emoji' satisfies PresetName));
  if (given.seed !== undefined) recipe.seed = given.seed;
  setData(recipe, given);
  const trained = {
    vae: recipe.vae.train,
    teacher: recipe.teacher.train,
    reflow: recipe.reflow.train,
    distill: recipe.distill.train,
  };
  const { then } = recipe.distill;
  const inDistill = given.stage === undefined || given.stage === 'distill';
  if (then && inDistill && given.max_train_steps !== undefined)
    then.steps = Math.max(1, Math.round((then.steps * given.max_train_steps) / recipe.distill.train.steps));
  const chosen = Object.entries(trained).filter(([stage]) => given.stage === undefined || given.stage === stage);
  for (const [stage, train] of chosen) setTraining(train, given, stage as StageName);
  if (given.max_minutes !== undefined)
    setMinutes(
      recipe,
      given.max_minutes,
      given.stage,
      chosen.map(([, train]) => train),
    );
  setObjective(recipe, given);
  const wrong = objectiveProblems(recipe, given);
  if (wrong.length) throw new UsageError(wrong.join('\n'));
  return recipe;
}

/** What a model was trained by; for a checkpoint of others, what can be derived from it. */
const recipeOfModel = async (model: string): Promise<Recipe | undefined> =>
  (await isCheckpoint(model)) ? deriveRecipe(model) : savedRecipe(model);

/** Set what was given, and nothing else. */
function assign<T extends object>(target: T, values: { [K in keyof T]?: T[K] | undefined }): void {
  for (const [key, value] of Object.entries(values)) if (value !== undefined) target[key as keyof T] = value as never;
}

function setData(recipe: Recipe, given: TrainFlags): void {
  assign(recipe.data, {
    trainDataDir: given.train_data_dir,
    imageColumn: given.image_column,
    captionColumn: given.caption_column,
    maxTrainSamples: given.max_train_samples,
    centerCrop: given.center_crop,
    interpolation: given.image_interpolation_mode,
    skipBad: given.skip_bad,
  });
  assign(recipe.vae, { randomFlip: given.random_flip });
  assign(recipe.teacher, { noiseOffset: given.noise_offset, inputPerturbation: given.input_perturbation });
  if (given.resolution !== undefined) setResolution(recipe, given.resolution);
}

function setTraining(train: TrainOptions, given: TrainFlags, stage: StageName): void {
  const hasLora = stage === 'reflow' || stage === 'distill';
  const warmsEma = given.ema_inv_gamma !== undefined || given.ema_power !== undefined;
  assign(train, {
    steps: given.max_train_steps,
    epochs: given.num_train_epochs,
    batchSize: given.train_batch_size,
    accumulationSteps: given.gradient_accumulation_steps,
    gradientCheckpointing: given.gradient_checkpointing,
    mixedPrecision: given.mixed_precision as 'no' | 'fp16' | undefined, // bf16 was refused
    rank: hasLora ? given.rank : undefined,
    learningRate: given.learning_rate,
    scaleLearningRate: given.scale_lr,
    scheduler: given.lr_scheduler,
    warmupSteps: given.lr_warmup_steps,
    cycles: given.lr_num_cycles,
    power: given.lr_power,
    betas:
      given.adam_beta1 === undefined && given.adam_beta2 === undefined
        ? undefined
        : [given.adam_beta1 ?? train.betas?.[0] ?? 0.9, given.adam_beta2 ?? train.betas?.[1] ?? 0.999],
    weightDecay: given.adam_weight_decay,
    epsilon: given.adam_epsilon,
    maxGradNorm: given.max_grad_norm,
    emaDecay:
      given.use_ema === false ? 0 : (given.ema_decay ?? (given.use_ema && !train.emaDecay ? 0.9999 : undefined)),
    emaWarmup: warmsEma ? { invGamma: given.ema_inv_gamma ?? 1, power: given.ema_power ?? 2 / 3 } : undefined,
    checkpointingSteps: given.checkpointing_steps,
    checkpointsTotalLimit: given.checkpoints_total_limit,
  });
  if (given.max_train_steps !== undefined || given.max_minutes !== undefined) delete train.epochs;
  if (given.num_train_epochs !== undefined) delete train.minutes;
}

function setResolution(recipe: Recipe, resolution: number): void {
  const factor = recipe.data.resolution / recipe.unet.sample_size!;
  const levels = 2 ** (recipe.unet.block_out_channels!.length - 1);
  if (resolution % (factor * levels))
    throw new UsageError(`--resolution must be a multiple of ${factor * levels} with this preset, not ${resolution}`);
  recipe.data.resolution = recipe.vae.config.sample_size = resolution;
  recipe.unet.sample_size = resolution / factor;
}

/** One stage's budget; or all budgets in proportion. */
function setMinutes(recipe: Recipe, minutes: number, stage: StageName | undefined, chosen: TrainOptions[]): void {
  if (stage) {
    for (const train of chosen) train.minutes = minutes;
    if (stage === 'pairs') recipe.pairs.minutes = minutes;
    return;
  }
  const parts: { minutes?: number }[] = [...chosen, recipe.pairs, recipe.distill.pairs];
  const usual = [11, 33, 10, 8, 7, 4]; // vae, teacher, reflow, distill, pairs, pairs of distill
  const all = usual.reduce((a, b) => a + b);
  parts.forEach((part, i) => (part.minutes = (minutes * usual[i]) / all));
}
