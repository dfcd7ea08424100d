/**
 * The training loop of every stage: steps, checkpoints, EMA, a log, a clean stop.
 *
 * Everything random is a function of (seed, step), so a run that was stopped and resumed repeats the uninterrupted one to
 * the bit. Only a budget in minutes gives that up: the learning rate then follows the clock.
 */
import type { StateDict } from '../nn/index.ts';
import { AdamW, EMA, schedule } from '../nn/index.ts';
import type { Module } from '../nn/index.ts';
import { compile, scope } from '../tensor/index.ts';
import type { Tensor } from '../tensor/index.ts';

/** How long and how fast to train. Names follow diffusers' training scripts. */
export interface TrainOptions {
  /** Optimiser steps (--max_train_steps). */
  steps: number;
  /** Stop after this many minutes if that comes first; the schedule then ends there (--max_minutes). */
  minutes?: number;
  batchSize: number;
  learningRate: number;
  /** As diffusers' --lr_scheduler. */
  scheduler: 'constant' | 'constant_with_warmup' | 'linear' | 'cosine';
  warmupSteps: number;
  maxGradNorm: number;
  weightDecay: number;
  /** 0 trains without an average of the weights. */
  emaDecay: number;
  /** A checkpoint after every so many steps, */
  checkpointingSteps: number;
  /** and after so many minutes. */
  checkpointingMinutes?: number;
  /** Keep less of the U-Net's forward pass and compute it again in backward (--gradient_checkpointing). */
  gradientCheckpointing?: boolean;
}

/** What is trained, and how one step's loss comes about. The loss is recorded at the first step and replayed (see `compile`). */
export interface TrainTask {
  name: string;
  modules: Record<string, Module>;
  /** What a step learns from: a function of `step` alone, in the same shapes each time. */
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
}

/** How far training came. */
export interface TrainResult {
  step: number;
  seconds: number;
  /** False when the signal stopped it early. */
  finished: boolean;
  loss: number;
}

/** Training cannot go on: the loss or the gradients stopped being numbers. */
export class TrainingError extends Error {
  override name = 'TrainingError';
}

/** Steps in a row that may be skipped for overflow before training stops. */
const MAX_SKIPPED = 8;

/**
 * Train. Afterwards the modules hold the averaged weights if there are any.
 * @throws TrainingError when the loss or gradients stay not-a-number; the last good checkpoint remains
 */
export async function train(task: TrainTask, options: TrainOptions, hooks: TrainHooks = {}): Promise<TrainResult> {
  const parameters = namedParameters(task.modules);
  for (const module of Object.values(task.modules)) module.requiresGrad(true);
  const ema = options.emaDecay > 0 ? new EMA(parameters, { decay: options.emaDecay }) : undefined;
  const optimizer = new AdamW(parameters, {
    lr: options.learningRate,
    weightDecay: options.weightDecay,
    maxGradNorm: options.maxGradNorm || undefined,
    ema,
  });
  const learn = compile((...batch: Tensor[]) => {
    const loss = task.loss(...batch);
    loss.backward();
    optimizer.step();
    return loss;
  });
  const state = { step: 0, seconds: 0, skipped: 0 };
  const resumed = await hooks.store?.latest();
  if (resumed) {
    restore(resumed, parameters, optimizer, ema);
    Object.assign(state, { step: resumed.step, seconds: resumed.seconds, skipped: resumed.skipped });
  }
  const save = async () => hooks.store?.save({ ...state, tensors: await collect(parameters, optimizer, ema) });
  const rate = learningRate(options);
  const before = state.seconds;
  const start = performance.now();
  const first = state.step;
  let savedAt = performance.now();
  let previewedAt = performance.now();
  let loss = NaN;
  let savedStep = resumed ? state.step : -1;
  const clock = () => before + (performance.now() - start) / 1000;
  const done = () =>
    state.step >= options.steps || (options.minutes !== undefined && state.seconds >= 60 * options.minutes);

  try {
    while (!done() && !hooks.signal?.aborted) {
      const lr = rate(state.step, state.seconds);
      optimizer.lr = lr;
      const value = scope(() => learn(...task.batch(state.step)));
      loss = await value.item();
      value.dispose();
      const { gradNorm, finite } = await optimizer.report();
      const bad = !finite || !Number.isFinite(loss);
      if (bad && ++state.skipped >= MAX_SKIPPED) throw await explain(task, state.step, parameters, loss);
      if (!bad) state.skipped = 0;
      state.step++;
      state.seconds = clock();
      const stepsPerSecond = (state.step - first) / ((performance.now() - start) / 1000);
      const line: LogLine = {
        step: state.step,
        loss,
        lr,
        gradNorm,
        seconds: round(state.seconds),
        imagesPerSecond: round(stepsPerSecond * options.batchSize),
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
      if (state.step % options.checkpointingSteps === 0 || minutes >= (options.checkpointingMinutes ?? Infinity)) {
        await save();
        savedStep = state.step;
        savedAt = performance.now();
      }
      if (task.preview && hooks.previewMinutes && performance.now() - previewedAt >= 60000 * hooks.previewMinutes) {
        await preview(task, state.step, ema, parameters, hooks);
        previewedAt = performance.now();
      }
    }
    if (savedStep !== state.step && state.skipped === 0) await save();
    const finished = done();
    if (finished && ema) ema.copyTo(parameters);
    return { step: state.step, seconds: state.seconds, finished, loss };
  } finally {
    for (const module of Object.values(task.modules)) module.requiresGrad(false);
    learn.dispose();
    ema?.dispose();
    optimizer.dispose();
  }
}

/** All parameters of several modules, as `<module>.<key>`. */
export function namedParameters(modules: Record<string, Module>): Map<string, Tensor> {
  const all = new Map<string, Tensor>();
  for (const [name, module] of Object.entries(modules)) {
    for (const [key, parameter] of module.namedParameters()) all.set(`${name}.${key}`, parameter);
  }
  return all;
}

/**
 * The learning rate by step; with a budget of time, by the share of the budget or of the steps that is used, whichever is
 * larger, so that the decay ends with the training.
 */
export function learningRate(options: TrainOptions): (step: number, seconds: number) => number {
  const { steps, minutes, scheduler, learningRate: lr, warmupSteps } = options;
  const rate = schedule(scheduler, { lr, warmupSteps, trainingSteps: steps });
  if (minutes === undefined) return rate;
  return (step, seconds) =>
    rate(step < warmupSteps ? step : Math.min(steps, Math.max(step, (steps * seconds) / (60 * minutes))));
}

async function collect(parameters: Map<string, Tensor>, optimizer: AdamW, ema: EMA | undefined): Promise<StateDict> {
  const tensors: StateDict = {};
  for (const [key, p] of parameters) {
    tensors[`model.${key}`] = { shape: [...p.shape], data: (await p.read()) as Float32Array };
  }
  const add = (prefix: string, state: StateDict) => {
    for (const [key, value] of Object.entries(state)) tensors[`${prefix}.${key}`] = value;
  };
  add('optimizer', await optimizer.stateDict());
  if (ema) add('ema', await ema.stateDict());
  return tensors;
}

function restore(
  { tensors, step }: Checkpoint,
  parameters: Map<string, Tensor>,
  optimizer: AdamW,
  ema: EMA | undefined,
): void {
  const part = (prefix: string) =>
    Object.fromEntries(
      Object.entries(tensors).flatMap(([key, value]) =>
        key.startsWith(`${prefix}.`) ? [[key.slice(prefix.length + 1), value]] : [],
      ),
    );
  const model = part('model');
  for (const [key, p] of parameters) {
    const saved = model[key];
    if (!saved || saved.data.length !== p.size) {
      throw new TrainingError(
        `the checkpoint does not fit the model: ${key}\n  train in another --output_dir, or with --no-resume`,
      );
    }
    p.array.write(saved.data);
  }
  optimizer.loadStateDict(part('optimizer'));
  ema?.loadStateDict(part('ema'), { steps: step });
}

async function preview(
  task: TrainTask,
  step: number,
  ema: EMA | undefined,
  parameters: Map<string, Tensor>,
  hooks: TrainHooks,
): Promise<void> {
  ema?.swap(parameters);
  try {
    await task.preview!(step);
  } catch (error) {
    hooks.warn?.(`no preview at step ${step}: ${(error as Error).message}`);
  } finally {
    ema?.swap(parameters);
  }
}

/** Which tensor went wrong first: run the step again and look at each gradient. */
async function explain(
  task: TrainTask,
  step: number,
  parameters: Map<string, Tensor>,
  loss: number,
): Promise<TrainingError> {
  const where: string[] = [];
  for (const [key, p] of parameters) if (!finite(await p.read())) where.push(`the weights of ${key}`);
  if (where.length === 0) {
    scope(() => task.loss(...task.batch(step)).backward());
    for (const [key, p] of parameters) {
      if (p.grad && !finite(await p.grad.read())) where.push(`the gradient of ${key}`);
      p.grad?.dispose();
      p.grad = undefined;
    }
  }
  return new TrainingError(
    [
      `${task.name}: loss ${loss} after ${MAX_SKIPPED} skipped steps, at step ${step}`,
      ...where.slice(0, 3).map((name) => `  not finite: ${name}`),
      ...(where.length > 3 ? [`  … and ${where.length - 3} more`] : []),
      '  the last checkpoint is good; go on from it with a lower --learning_rate or --max_grad_norm',
    ].join('\n'),
  );
}

const finite = (numbers: ArrayLike<number>): boolean => {
  for (let i = 0; i < numbers.length; i++) if (!Number.isFinite(numbers[i])) return false;
  return true;
};

const round = (x: number): number => Number(x.toPrecision(6));
