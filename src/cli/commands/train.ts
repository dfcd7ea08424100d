import { join } from 'node:path';
import { DeviceLostError } from '../../kernels/index.ts';
import { currentGpu, init } from '../../tensor/index.ts';
import { preset, presetNames, stageNames } from '../../flow/recipe/recipe.ts';
import type { Recipe, StageName } from '../../flow/recipe/recipe.ts';
import { Interrupted, runRecipe, savedRecipe } from '../../flow/recipe/stages.ts';
import type { Progress, TrainOptions } from '../../flow/trainer.ts';
import { artist } from '../artist.ts';
import { choice, command, flag, float, int, text, UsageError } from '../command.ts';
import { clock, StatusLine } from '../status-line.ts';

const schedulers = ['constant', 'constant_with_warmup', 'linear', 'cosine'] as const;

export default command(
  'train',
  'teacher → pairs → reflow → distill, on OpenMoji or on your own images; resumes what is unfinished',
  {
    output_dir: text('runs/emoji', 'folder of the run: checkpoints, log, pictures, and the model itself in model/'),
    preset: choice(undefined, presetNames, 'which recipe to begin with (emoji, or what the folder was begun with)'),
    pretrained_model_name_or_path: text(undefined, 'begin with the teacher of this model: reflow and distil it'),
    stage: choice(undefined, stageNames, 'train this stage only'),
    train_data_dir: text(undefined, 'folder of your own images with metadata.jsonl, instead of OpenMoji'),
    image_column: text('image', 'column of the metadata with the image file'),
    caption_column: text('text', 'column of the metadata with the caption'),
    resolution: int(undefined, 'pixels on a side', { min: 8 }),
    max_train_samples: int(undefined, 'use only so many images', { min: 1 }),
    max_train_steps: int(undefined, 'optimiser steps of a stage', { min: 1 }),
    max_minutes: float(undefined, 'time for the stage named by --stage, else for all stages together', { min: 0 }),
    train_batch_size: int(undefined, 'images in a step', { min: 1 }),
    learning_rate: float(undefined, 'peak learning rate', { min: 0 }),
    lr_scheduler: choice(undefined, schedulers, 'how the learning rate goes'),
    lr_warmup_steps: int(undefined, 'steps over which it rises', { min: 0 }),
    max_grad_norm: float(undefined, 'clip gradients to this norm', { min: 0 }),
    adam_weight_decay: float(undefined, 'weight decay', { min: 0 }),
    gradient_checkpointing: flag(false, 'less memory for a third more time: compute the U-Net again in backward'),
    seed: int(undefined, 'of everything random', { min: 0 }),
    checkpointing_steps: int(undefined, 'steps between checkpoints', { min: 1 }),
    resume_from_checkpoint: text('latest', '"latest", "none", or the name of one, such as checkpoint-500'),
    picture_minutes: float(2, 'minutes between sample sheets; 0: none', { min: 0 }),
  },
  async (options) => {
    const recipe = await recipeOf(options);
    await init();
    const stopping = new AbortController();
    const stop = (signal: NodeJS.Signals) => {
      if (stopping.signal.aborted) process.exit(130);
      console.error(`\n${signal}: finishing this step and saving; again to quit at once`);
      stopping.abort(signal);
    };
    process.on('SIGINT', stop);
    process.on('SIGTERM', stop);
    const line = new StatusLine();
    try {
      await runRecipe(
        options.output_dir,
        recipe,
        {
          say: (words) => line.print(words),
          progress: (progress) => line.update(describeProgress(progress), progress.step === progress.steps),
          artist,
          signal: stopping.signal,
          pictureMinutes: options.picture_minutes,
          pretrained: options.pretrained_model_name_or_path,
          resumeFrom: options.resume_from_checkpoint,
        },
        options.stage,
      );
      line.print(
        `the model is in ${join(options.output_dir, 'model')}; try: rectiflow sample "red apple" --model ${join(options.output_dir, 'model')}`,
      );
    } catch (error) {
      const lost = error instanceof DeviceLostError;
      if (!lost && !(error instanceof Interrupted)) throw error;
      const reason = lost ? `the GPU device was lost (${error.reason})\n  ${error.details}` : error.message;
      line.print(
        `${reason}\nto go on: rectiflow train --output_dir ${options.output_dir}${options.stage ? ` --stage ${options.stage}` : ''}`,
      );
      process.exitCode = lost ? 1 : 130;
    } finally {
      process.off('SIGINT', stop);
      process.off('SIGTERM', stop);
      currentGpu().destroy();
    }
  },
);

interface Given {
  output_dir: string;
  pretrained_model_name_or_path?: string;
  preset?: Recipe['name'];
  stage?: StageName;
  train_data_dir?: string;
  image_column: string;
  caption_column: string;
  resolution?: number;
  max_train_samples?: number;
  max_train_steps?: number;
  max_minutes?: number;
  train_batch_size?: number;
  learning_rate?: number;
  lr_scheduler?: TrainOptions['scheduler'];
  lr_warmup_steps?: number;
  max_grad_norm?: number;
  adam_weight_decay?: number;
  gradient_checkpointing: boolean;
  seed?: number;
  checkpointing_steps?: number;
}

/** The preset, or what the folder was begun with, changed by what was given. */
async function recipeOf(given: Given): Promise<Recipe> {
  const saved = await savedRecipe(given.output_dir);
  if (saved && given.preset && saved.name !== given.preset) {
    throw new UsageError(`${given.output_dir} was begun with --preset ${saved.name}; give another --output_dir`);
  }
  const begunWith = given.pretrained_model_name_or_path;
  const adopted = begunWith && !given.preset ? await savedRecipe(begunWith) : undefined;
  const recipe = saved ?? adopted ?? preset((given.preset ?? 'emoji') as (typeof presetNames)[number]);
  if (given.seed !== undefined) recipe.seed = given.seed;
  if (given.train_data_dir !== undefined) {
    Object.assign(recipe.data, {
      trainDataDir: given.train_data_dir,
      imageColumn: given.image_column,
      captionColumn: given.caption_column,
    });
  }
  if (given.max_train_samples !== undefined) recipe.data.maxTrainSamples = given.max_train_samples;
  if (given.resolution !== undefined) setResolution(recipe, given.resolution);
  const trained = {
    vae: recipe.vae.train,
    teacher: recipe.teacher.train,
    reflow: recipe.reflow.train,
    distill: recipe.distill.train,
  };
  const chosen = given.stage
    ? given.stage in trained
      ? [trained[given.stage as keyof typeof trained]]
      : []
    : Object.values(trained);
  for (const train of chosen) {
    const set = <K extends keyof TrainOptions>(key: K, value: TrainOptions[K] | undefined) => {
      if (value !== undefined) train[key] = value;
    };
    set('steps', given.max_train_steps);
    set('batchSize', given.train_batch_size);
    set('learningRate', given.learning_rate);
    set('scheduler', given.lr_scheduler);
    set('warmupSteps', given.lr_warmup_steps);
    set('maxGradNorm', given.max_grad_norm);
    set('weightDecay', given.adam_weight_decay);
    set('checkpointingSteps', given.checkpointing_steps);
    if (given.gradient_checkpointing || train.gradientCheckpointing)
      train.gradientCheckpointing = given.gradient_checkpointing;
  }
  if (given.max_minutes !== undefined) setMinutes(recipe, given.max_minutes, given.stage, chosen);
  return recipe;
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

function describeProgress({ task, step, steps, loss, lr, stepsPerSecond, imagesPerSecond, eta, gradNorm }: Progress) {
  return (
    `${task} ${step}/${steps}  loss ${loss.toFixed(4)}  |g| ${gradNorm.toFixed(2)}  lr ${lr.toExponential(1)}  ` +
    `${stepsPerSecond.toFixed(2)} steps/s  ${imagesPerSecond.toFixed(0)} images/s  ${clock(eta)} left`
  );
}
