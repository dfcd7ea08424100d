/**
 * The training loop of every stage: steps, checkpoints, EMA, a log, a clean stop.
 *
 * Everything random is a function of (seed, step), so a run that was stopped and resumed repeats the uninterrupted one to
 * the bit. Only a budget in minutes gives that up: the learning rate then follows the clock.
 */
import type { Module, StateDict } from '../nn/index.ts';
import { schedule, scheduleNames } from '../nn/index.ts';
import type { ScheduleName } from '../nn/optim/schedule.ts';
import type { Tensor } from '../tensor/index.ts';
import { allFinite, firstBad } from './first-bad.ts';
import { Learner } from './learner.ts';
import { TrainingError } from './training-error.ts';

/** As diffusers' --lr_scheduler: those that no rules need to be given for. */
export const lrSchedulerNames = scheduleNames.filter(
  (name): name is Exclude<ScheduleName, 'piecewise_constant'> => name !== 'piecewise_constant',
);

/** How long and how fast to train. Names follow diffusers' training scripts. */
export interface TrainOptions {
  /** Optimiser steps (--max_train_steps). */
  steps: number;
  /** How often the task's samples are seen, in place of `steps` (--num_train_epochs). */
  epochs?: number;
  /** Stop after this many minutes if that comes first; the schedule then ends there (--max_minutes). */
  minutes?: number;
  batchSize: number;
  /** Batches whose gradients are averaged in an optimiser step (--gradient_accumulation_steps, 1). */
  accumulationSteps?: number;
  learningRate: number;
  /** Multiply it by the samples in an optimiser step (--scale_lr). */
  scaleLearningRate?: boolean;
  scheduler: (typeof lrSchedulerNames)[number];
  warmupSteps: number;
  /** Waves of cosine_with_restarts (--lr_num_cycles, 1). */
  cycles?: number;
  /** Exponent of polynomial (--lr_power, 1). */
  power?: number;
  maxGradNorm: number;
  weightDecay: number;
  /** Of AdamW (0.9, 0.999). */
  betas?: readonly [number, number];
  /** Of AdamW (1e-8). */
  epsilon?: number;
  /** 0 trains without an average of the weights. */
  emaDecay: number;
  /** The decay climbs as 1 − (1 + step / invGamma)^−power, not as (1 + step) / (10 + step). */
  emaWarmup?: { invGamma: number; power: number };
  /** A checkpoint after every so many steps, */
  checkpointingSteps: number;
  /** and after so many minutes. */
  checkpointingMinutes?: number;
  /** How many checkpoints to keep (2). */
  checkpointsTotalLimit?: number;
  /** Keep less of the U-Net's forward pass and compute it again in backward (--gradient_checkpointing). */
  gradientCheckpointing?: boolean;
  /** 'fp16': activations and copies of the weights in halves, with a dynamic loss scale (--mixed_precision). */
  mixedPrecision?: 'no' | 'fp16';
  /** Train a LoRA of this rank, merged at the end, in place of the networks (--rank). */
  rank?: number;
}

/** What is trained, and how one step's loss comes about. The loss is recorded at the first step and replayed (see `compile`). */
export interface TrainTask {
  name: string;
  modules: Record<string, Module>;
  /** How many there are to learn from: an epoch. */
  samples?: number;
  /** What the n-th forward pass learns from: a function of n alone, in the same shapes each time. */
  batch(step: number): readonly Tensor[];
  /** The loss: a function of the batch and the weights, nothing else. */
  loss(...batch: Tensor[]): Tensor;
  /** With averaged weights in place: draw samples, validate. */
  preview?(step: number): Promise<void>;
}

/** Everything a run needs to go on. */
export interface Checkpoint {
  step: number;
  /** Time trained so far. */
  seconds: number;
  /** Consecutive steps that were skipped. */
  skipped: number;
  /** With mixed precision. */
  lossScale?: { scale: number; goodSteps: number };
  /** Updates of the averages. */
  emaSteps?: number;
  tensors: StateDict;
}

/** Where checkpoints go; src/flow/recipe/checkpoints.ts keeps them in folders. */
export interface CheckpointStore {
  /** The newest checkpoint that is whole. */
  latest(): Promise<Checkpoint | undefined>;
  /** @returns where it lies, for messages */
  save(checkpoint: Checkpoint): Promise<string>;
}

/** What is known after a step: loss, learning rate, norm of all gradients, seconds of training, images per second. */
export interface LogLine {
  step: number;
  loss: number;
  lr: number;
  gradNorm: number;
  seconds: number;
  imagesPerSecond: number;
  /** With mixed precision. */
  lossScale?: number;
  skipped?: true;
}

/** A log line with the way that is left. */
export interface Progress extends LogLine {
  task: string;
  steps: number;
  stepsPerSecond: number;
  /** Seconds left, by the steps or by the budget. */
  eta: number;
}

/** What a run tells and asks the outside. All are optional. */
export interface TrainHooks {
  store?: CheckpointStore;
  /** Called after every step. */
  log?(line: LogLine): void;
  /** Called after every step, for a line that is redrawn. */
  progress?(progress: Progress): void;
  /** Called when something went wrong that training survives. */
  warn?(message: string): void;
  /** Finishes the step, saves a checkpoint and returns. */
  signal?: AbortSignal;
  /** Minutes between previews; 0: none. */
  previewMinutes?: number;
  /** Steps between previews, in place of minutes. */
  previewSteps?: number;
}

/** How far training came. */
export interface TrainResult {
  step: number;
  seconds: number;
  /** False when the signal stopped it early. */
  finished: boolean;
  loss: number;
  /** What was trained with `rank`, as a file of PEFT's keys has it. */
  lora?: { tensors: StateDict; metadata: Record<string, string> };
}

/** Steps in a row that may be skipped for overflow before training stops; those that lower the loss scale come free. */
const MAX_SKIPPED = 8;

/**
 * Train. Afterwards the modules hold the averaged weights if there are any.
 * @throws TrainingError when the loss or gradients stay not-a-number; the last good checkpoint remains
 */
export async function train(task: TrainTask, given: TrainOptions, hooks: TrainHooks = {}): Promise<TrainResult> {
  const options = resolve(given, task);
  const learner = new Learner(task, options);
  const state = { step: 0, seconds: 0, skipped: 0 };
  try {
    await learner.prepare();
    const resumed = await hooks.store?.latest();
    if (resumed) {
      learner.restore(resumed);
      Object.assign(state, { step: resumed.step, seconds: resumed.seconds, skipped: resumed.skipped });
    }
    const save = async () => {
      if (!hooks.store) return;
      const kept = await learner.collect();
      // After a skipped step the weights are those from before it, unless they are what is wrong.
      if (state.skipped && !Object.values(kept.tensors).every(({ data }) => allFinite(data))) return;
      await hooks.store.save({ ...state, ...kept });
    };
    const rate = learningRate(options);
    const before = state.seconds;
    const start = performance.now();
    const first = state.step;
    let savedAt = performance.now();
    let previewedAt = performance.now();
    let loss = NaN;
    let savedStep = state.step;
    const clock = () => before + (performance.now() - start) / 1000;
    const done = () =>
      state.step >= options.steps || (options.minutes !== undefined && state.seconds >= 60 * options.minutes);

    while (!done() && !hooks.signal?.aborted) {
      const lr = rate(state.step, state.seconds);
      const learned = await learner.step(state.step, lr);
      loss = learned.loss;
      const bad = !learned.finite;
      if (bad && ++state.skipped >= MAX_SKIPPED && (learner.lossScale?.isLow ?? true))
        throw await explain(learner, state.step, loss, state.skipped);
      if (!bad) state.skipped = 0;
      state.step++;
      state.seconds = clock();
      const stepsPerSecond = (state.step - first) / ((performance.now() - start) / 1000);
      const line: LogLine = {
        step: state.step,
        loss,
        lr,
        gradNorm: learned.gradNorm,
        seconds: round(state.seconds),
        imagesPerSecond: round(stepsPerSecond * options.batchSize * (options.accumulationSteps ?? 1)),
        ...(learner.lossScale ? { lossScale: learner.lossScale.scale } : {}),
        ...(bad ? { skipped: true as const } : {}),
      };
      hooks.log?.(line);
      const bySteps = (options.steps - state.step) / stepsPerSecond;
      const byTime = options.minutes === undefined ? Infinity : 60 * options.minutes - state.seconds;
      hooks.progress?.({
        ...line,
        task: task.name,
        steps: options.steps,
        stepsPerSecond,
        eta: Math.max(0, Math.min(bySteps, byTime)),
      });
      if (bad) continue;
      const minutes = (performance.now() - savedAt) / 60000;
      const part = (step: number) => Math.floor(step / options.checkpointingSteps);
      if (part(state.step) > part(savedStep) || minutes >= (options.checkpointingMinutes ?? Infinity)) {
        await save();
        savedStep = state.step;
        savedAt = performance.now();
      }
      if (task.preview && isPreviewDue(state.step, performance.now() - previewedAt, hooks)) {
        await preview(task, state.step, learner, hooks);
        previewedAt = performance.now();
      }
    }
    if (savedStep !== state.step) await save();
    const finished = done();
    const lora = finished ? await learner.finish() : undefined;
    return { step: state.step, seconds: state.seconds, finished, loss, ...(lora ? { lora } : {}) };
  } finally {
    learner.dispose();
  }
}

/** What epochs and batch sizes come to. */
function resolve(options: TrainOptions, task: TrainTask): TrainOptions {
  const perStep = options.batchSize * (options.accumulationSteps ?? 1);
  const learningRate = options.learningRate * (options.scaleLearningRate ? perStep : 1);
  if (options.epochs === undefined) return { ...options, learningRate };
  if (task.samples === undefined)
    throw new TrainingError(`${task.name}: its data has no end, so it has no epochs\n  give --max_train_steps`);
  return { ...options, learningRate, steps: options.epochs * Math.ceil(task.samples / perStep) };
}

/**
 * The learning rate by step; with a budget of time, by the share of the budget or of the steps that is used, whichever is
 * larger, so that the decay ends with the training.
 */
export function learningRate(options: TrainOptions): (step: number, seconds: number) => number {
  const { steps, minutes, scheduler, learningRate: lr, warmupSteps, cycles, power } = options;
  const rate = schedule(scheduler, { lr, warmupSteps, trainingSteps: steps, cycles, power });
  if (minutes === undefined) return rate;
  return (step, seconds) =>
    rate(step < warmupSteps ? step : Math.min(steps, Math.max(step, (steps * seconds) / (60 * minutes))));
}

const isPreviewDue = (step: number, passed: number, { previewSteps, previewMinutes }: TrainHooks): boolean =>
  previewSteps ? step % previewSteps === 0 : Boolean(previewMinutes) && passed >= 60000 * previewMinutes!;

async function preview(task: TrainTask, step: number, learner: Learner, hooks: TrainHooks): Promise<void> {
  learner.swapAverages();
  try {
    await task.preview!(step);
  } catch (error) {
    hooks.warn?.(`no preview at step ${step}: ${(error as Error).message}`);
  } finally {
    learner.swapAverages();
  }
}

async function explain(learner: Learner, step: number, loss: number, skipped: number): Promise<TrainingError> {
  return new TrainingError(
    [
      `${learner.task.name}: loss ${loss} after ${skipped} skipped steps, at step ${step}`,
      ...(learner.lossScale ? [`  the loss scale is down to ${learner.lossScale.scale}`] : []),
      ...(await firstBad(learner, step)),
      '  the last checkpoint is good; go on from it with a lower --learning_rate or --max_grad_norm',
    ].join('\n'),
  );
}

const round = (x: number): number => Number(x.toPrecision(6));
