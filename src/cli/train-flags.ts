/**
 * The flags of `train`. Names, and defaults where a recipe has none of its own, are those of diffusers'
 * train_text_to_image.py, its LoRA script and its LCM distillation script. A flag that is not given leaves the recipe as it is.
 */
import { presetNames, stageNames } from '../flow/recipe/recipe.ts';
import { interpolationModes } from '../flow/data/square.ts';
import { lrSchedulerNames } from '../flow/trainer.ts';
import { choice, flag, float, greedy, int, text } from './command.ts';
import type { Values } from './command.ts';
import { objectiveContradictions, objectiveFlags } from './objective-flags.ts';

const run = {
  output_dir: text('runs/emoji', 'folder of the run: checkpoints, log, pictures, and the model itself in model/'),
  preset: choice(undefined, presetNames, 'which recipe to begin with (emoji, or what the folder was begun with)'),
  pretrained_model_name_or_path: text(undefined, 'begin with the teacher of this model: reflow and distil it'),
  stage: choice(undefined, stageNames, 'train this stage only'),
  seed: int(undefined, 'of everything random', { min: 0 }),
  shard_index: int(undefined, 'with --stage pairs: which of --num_shards workers this is, from 0', { min: 0 }),
  num_shards: int(undefined, 'workers that share the pairs, each with this command', { min: 1 }),
  force: flag(false, 'go on with other hyper-parameters than a stage was begun with'),
};

const data = {
  train_data_dir: text(undefined, 'folder of your own images with metadata.jsonl, instead of OpenMoji'),
  image_column: text(undefined, 'column of the metadata with the image file (image)'),
  caption_column: text(undefined, 'column of the metadata with the caption (text)'),
  resolution: int(undefined, 'pixels on a side', { min: 8 }),
  center_crop: flag(undefined, 'cut the middle of an image; else a place drawn from the seed'),
  random_flip: flag(undefined, 'mirror half of the images, drawn anew each time, for the autoencoder'),
  image_interpolation_mode: choice(undefined, interpolationModes, 'how images are scaled (lanczos)'),
  max_train_samples: int(undefined, 'use only so many images', { min: 1 }),
  skip_bad: flag(undefined, 'leave out images that cannot be read and lines without a caption'),
  dataloader_num_workers: int(undefined, 'threads that decode and scale images (0: those of libvips)', { min: 0 }),
  cache_dir: text(undefined, 'where decoded images are kept between runs (.cache/rectiflow)'),
};

const loop = {
  max_train_steps: int(undefined, 'optimiser steps of a stage', { min: 1 }),
  num_train_epochs: int(undefined, 'how often a stage sees all of its data, instead of steps', { min: 1 }),
  max_minutes: float(undefined, 'time for the stage named by --stage, else for all stages together', { min: 0 }),
  train_batch_size: int(undefined, 'images in a forward pass', { min: 1 }),
  gradient_accumulation_steps: int(undefined, 'batches in an optimiser step (1)', { min: 1 }),
  gradient_checkpointing: flag(undefined, 'less memory for a third more time: compute the U-Net again in backward'),
  mixed_precision: choice(
    undefined,
    ['no', 'fp16', 'bf16'],
    'fp16: activations and copies of the weights in half precision, with a dynamic loss scale',
  ),
  rank: int(undefined, 'train a LoRA of this rank in reflow and distill, not the whole network', { min: 1 }),
};

const noise = {
  noise_offset: float(undefined, 'lift channels of the noise of the teacher by so much (0)', { min: 0 }),
  input_perturbation: float(undefined, 'more noise in what the teacher sees than in what it learns (0)', { min: 0 }),
  snr_gamma: float(undefined, 'is refused: see --t_dist', { min: 0 }),
};

const optimiser = {
  learning_rate: float(undefined, 'peak learning rate', { min: 0 }),
  scale_lr: flag(undefined, 'learning rate times batch size times accumulation steps'),
  lr_scheduler: choice(undefined, lrSchedulerNames, 'how the learning rate goes'),
  lr_warmup_steps: int(undefined, 'steps over which it rises', { min: 0 }),
  lr_num_cycles: int(undefined, 'waves of cosine_with_restarts (1)', { min: 1 }),
  lr_power: float(undefined, 'exponent of polynomial (1)', { min: 0 }),
  adam_beta1: float(undefined, 'decay of the average gradient (0.9)', { min: 0, max: 0.999999 }),
  adam_beta2: float(undefined, 'decay of the average squared gradient (0.999)', { min: 0, max: 0.999999 }),
  adam_weight_decay: float(undefined, 'weight decay', { min: 0 }),
  adam_epsilon: float(undefined, 'keeps the root from zero (1e-8)', { min: 0 }),
  max_grad_norm: float(undefined, 'clip gradients to this norm; 0: do not', { min: 0 }),
  use_ema: flag(undefined, 'keep an average of the weights, which is what comes out'),
  ema_decay: float(undefined, 'how slowly the average follows', { min: 0, max: 0.9999999 }),
  ema_inv_gamma: float(undefined, 'warm-up of the average: 1 − (1 + step / inv_gamma)^−power until ema_decay (1)', {
    min: 1e-9,
  }),
  ema_power: float(undefined, 'exponent of that warm-up (2/3)', { min: 1e-9 }),
};

const output = {
  checkpointing_steps: int(undefined, 'steps between checkpoints', { min: 1 }),
  checkpoints_total_limit: int(undefined, 'how many checkpoints to keep (2)', { min: 1 }),
  resume_from_checkpoint: text('latest', '"latest", "none", or the name of one, such as checkpoint-500'),
  validation_prompts: greedy(text(undefined, 'prompts of the sample sheets, instead of twelve captions of the data')),
  validation_steps: int(undefined, 'steps between sample sheets, instead of minutes', { min: 1 }),
  picture_minutes: float(2, 'minutes between sample sheets; 0: none', { min: 0 }),
  report_to: choice('tensorboard', ['tensorboard', 'none'], 'whether to write event files beside log.jsonl'),
  logging_dir: text('logs', 'folder of the event files, from the output folder'),
};

/** All flags of `train`, in the order of its help. */
export const trainFlags = { ...run, ...data, ...objectiveFlags, ...noise, ...loop, ...optimiser, ...output };

/** What was given, and the defaults of what was not. */
export type TrainFlags = Values<typeof trainFlags>;

/** What does not go together, or cannot be had here: a line each. */
export function contradictions(given: Partial<TrainFlags>): string[] {
  const set = (name: keyof TrainFlags) => given[name] !== undefined;
  const scheduler = given.lr_scheduler;
  const ownData = [
    ...(['image_column', 'caption_column', 'center_crop', 'image_interpolation_mode', 'skip_bad'] as const),
    'dataloader_num_workers' as const,
  ];
  const wrong: [boolean, string][] = [
    [
      given.mixed_precision === 'bf16',
      '--mixed_precision bf16: WGSL has no bfloat16, so there is nothing to compute it with; use fp16, which needs no other hardware',
    ],
    ...(['shard_index', 'num_shards'] as const).map((name): [boolean, string] => [
      set(name) && given.stage !== 'pairs',
      `--${name} is for one stage that several can share: give --stage pairs too`,
    ]),
    [
      set('snr_gamma'),
      '--snr_gamma weighs steps of a noise schedule by their signal-to-noise ratio; the paths here are straight, and all times count alike: see --t_dist',
    ],
    ...(['noise_offset', 'input_perturbation'] as const).map((name): [boolean, string] => [
      set(name) && given.stage !== undefined && given.stage !== 'teacher',
      `--${name} and --stage ${given.stage}: only the teacher learns from noise of its own, the others from pairs`,
    ]),
    [set('max_train_steps') && set('num_train_epochs'), '--num_train_epochs and --max_train_steps: give one of them'],
    [set('max_minutes') && set('num_train_epochs'), '--num_train_epochs and --max_minutes: give one of them'],
    ...(['ema_decay', 'ema_inv_gamma', 'ema_power'] as const).map((name): [boolean, string] => [
      given.use_ema === false && set(name),
      `--${name} and --no-use_ema: there is no average to keep`,
    ]),
    [
      set('lr_num_cycles') && scheduler !== undefined && scheduler !== 'cosine_with_restarts',
      `--lr_num_cycles is for --lr_scheduler cosine_with_restarts, not ${scheduler}`,
    ],
    [
      set('lr_power') && scheduler !== undefined && scheduler !== 'polynomial',
      `--lr_power is for --lr_scheduler polynomial, not ${scheduler}`,
    ],
    [
      scheduler === 'constant' && (given.lr_warmup_steps ?? 0) > 0,
      '--lr_warmup_steps and --lr_scheduler constant: that one has no warm-up, constant_with_warmup has',
    ],
    [
      set('rank') && given.stage !== undefined && given.stage !== 'reflow' && given.stage !== 'distill',
      `--rank and --stage ${given.stage}: a LoRA changes a network that is there, in the stages reflow and distill`,
    ],
    ...ownData.map((name): [boolean, string] => [
      set(name) && !set('train_data_dir'),
      `--${name} is for images of one's own: give --train_data_dir too`,
    ]),
    [
      set('cache_dir') && set('train_data_dir'),
      '--cache_dir and --train_data_dir: only OpenMoji is drawn and kept; your images are read from their folder',
    ],
    [
      given.report_to === 'none' && given.logging_dir !== 'logs',
      '--report_to none and --logging_dir: no event files to put there',
    ],
    [set('validation_steps') && given.picture_minutes === 0, '--validation_steps and --picture_minutes 0: no pictures'],
  ];
  return [...wrong.flatMap(([is, words]) => (is ? [words] : [])), ...objectiveContradictions(given)];
}
