/** One training run: its folder, recipe and data, and what happens around the stages. */
import { access, constants, mkdir, readFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { CaptionedImages } from '../data/captioned-images.ts';
import { exists, writeTensors } from '../../tensor/io/files-node.ts';
import { lock, LockedError } from '../../tensor/io/lock-node.ts';
import { train } from '../trainer.ts';
import type { LogLine, Progress, TrainOptions, TrainResult, TrainTask } from '../trainer.ts';
import { CheckpointFolder, cannotWrite } from './checkpoints.ts';
import { withAdvice } from './memory-advice.ts';
import { writeJson } from './model-folder.ts';
import { loadData } from './recipe-data.ts';
import type { Recipe, StageName } from './recipe.ts';
import { noteSession, readReport } from './run-report.ts';
import type { RunReport } from './run-report.ts';
import { TrainingLog } from './training-log.ts';

/** Rows of images [size, size, 3] in −1 … 1, with words around them. */
export interface SampleSheet {
  title: string;
  subtitle?: string;
  columns?: { title: string; note?: string }[];
  rows: { title?: string; images: Float32Array[] }[];
  size: number;
  footer?: string;
}

/** Pictures that a run draws; the command line gives the pencil. */
export interface Artist {
  /** Rows and columns of samples. */
  sheet(file: string, sheet: SampleSheet): Promise<void>;
  /** The loss over the steps. */
  curve(file: string, options: { title: string; log: LogLine[] }): Promise<void>;
  /** All that is known of a run, as a page that needs nothing else. */
  report(file: string, report: RunReport): Promise<void>;
}

/** What a run tells and asks the outside. All are optional. */
export interface RunHooks {
  /** A line for people. */
  say?(line: string): void;
  /** After every training step. */
  progress?(progress: Progress): void;
  artist?: Artist;
  signal?: AbortSignal;
  /** Minutes between sample sheets, */
  pictureMinutes?: number;
  /** or steps. */
  validationSteps?: number;
  /** What the sample sheets ask for, in place of captions of the data. */
  validationPrompts?: string[];
  /** Where decoded images are kept between runs. */
  cacheFolder?: string;
  /** Threads that read images. */
  dataWorkers?: number;
  /** As --resume_from_checkpoint. */
  resumeFrom?: string;
  /** Which of several that make pairs in one folder this is. */
  worker?: { index: number; count: number };
  /** Go on with other hyper-parameters than a stage was begun with. */
  force?: boolean;
  /** A model folder whose teacher is taken instead of trained. */
  pretrained?: string;
  /** Whether each step also goes into files for TensorBoard ('tensorboard'), */
  reportTo?: 'tensorboard' | 'none';
  /** and where: a path from the run's folder ('logs'), with a folder for each stage. */
  loggingDir?: string;
}

/** Training was asked to stop; what is done is saved. */
export class Interrupted extends Error {
  override name = 'Interrupted';
}

export class Run {
  #data: Promise<CaptionedImages> | undefined;
  readonly #logs = new Map<StageName, TrainingLog>();

  constructor(
    readonly folder: string,
    readonly recipe: Recipe,
    readonly hooks: RunHooks = {},
  ) {}

  /** The model that the stages make, in diffusers' layout. */
  get model(): string {
    return join(this.folder, 'model');
  }

  /** Be the only trainer in this folder; or one of those that make its pairs. @returns what gives it back */
  async lock(): Promise<() => Promise<void>> {
    const { worker } = this.hooks;
    const file = join(this.folder, worker && worker.count > 1 ? `train-${worker.index}.lock` : 'train.lock');
    try {
      await mkdir(this.folder, { recursive: true }).catch(() => whyNotIn(this.folder)); // its own reason may be wrong
      await mkdir(this.model, { recursive: true });
      return await lock(file, (owner) => this.say(`${this.folder}: taken over from ${owner}, which is gone`));
    } catch (error) {
      if (!(error instanceof LockedError)) throw cannotWrite(error, this.folder);
      const fix = `wait, or give another --output_dir; if that process is gone, delete ${file}`;
      throw new LockedError(`${this.folder}: ${error.owner} is training here\n  ${fix}`, error.owner);
    }
  }

  say(line: string): void {
    this.hooks.say?.(line);
  }

  /** A folder for a stage's own files. */
  async stageFolder(stage: StageName): Promise<string> {
    const folder = join(this.folder, stage);
    await mkdir(folder, { recursive: true }).catch((error) => {
      throw cannotWrite(error, folder);
    });
    return folder;
  }

  /** What a finished stage left: undefined while it is not finished. */
  async finished(stage: StageName): Promise<Record<string, unknown> | undefined> {
    const text = await readFile(join(this.folder, stage, 'done.json'), 'utf8').catch(() => undefined);
    return text === undefined ? undefined : JSON.parse(text);
  }

  async finish(stage: StageName, facts: Record<string, unknown>): Promise<void> {
    const folder = await this.stageFolder(stage);
    await writeJson(join(folder, 'done.json'), facts);
    await new CheckpointFolder(folder).clear();
    await this.report();
  }

  /** Draw a stage's samples into its folder, the TensorBoard files and the report. */
  async sheet(stage: StageName, sheet: SampleSheet, name = 'samples'): Promise<void> {
    const { artist } = this.hooks;
    if (!artist) return;
    const file = join(await this.stageFolder(stage), `${name}.png`);
    await artist.sheet(file, sheet);
    this.#logs.get(stage)?.sheet(await readFile(file));
    await this.report();
  }

  /** Write report.html anew. A run does not end because that fails. */
  async report(): Promise<void> {
    const { artist } = this.hooks;
    if (!artist) return;
    try {
      await artist.report(join(this.folder, 'report.html'), await readReport(this.folder, this.recipe));
    } catch (error) {
      this.say(`no report: ${(error as Error).message}`);
    }
  }

  checkInterrupt(): void {
    if (this.hooks.signal?.aborted) throw new Interrupted('stopped');
  }

  data(): Promise<CaptionedImages> {
    const { cacheFolder, dataWorkers: workers } = this.hooks;
    return (this.#data ??= loadData(this.recipe, { cacheFolder, workers, onWarning: (message) => this.say(message) }));
  }

  /** Train one stage in its folder: log, checkpoints, curves, previews. @throws Interrupted when asked to stop */
  async train(stage: StageName, task: TrainTask, options: TrainOptions): Promise<TrainResult> {
    const folder = await this.stageFolder(stage);
    const { resumeFrom = 'latest' } = this.hooks;
    const isFirst = this.#logs.size === 0;
    // A checkpoint's name is for the stage that goes on, not for those after it; a stage's second part goes on from its first.
    const isAsked = isFirst || (resumeFrom === 'none' && !this.#logs.has(stage));
    const from = isAsked ? resumeFrom : 'latest';
    const store = new CheckpointFolder(folder, options.checkpointsTotalLimit, from, (line) => this.say(line));
    const resumed = await store.latest();
    if (resumed) this.say(`${stage}: going on from step ${resumed.step}`);
    const { reportTo = 'tensorboard', loggingDir = 'logs' } = this.hooks;
    const log = await TrainingLog.open(join(folder, 'log.jsonl'), {
      upTo: resumed?.step ?? 0,
      events: reportTo === 'none' ? undefined : resolve(this.folder, loggingDir, stage),
      settings: { stage, ...options, recipe: this.recipe },
    });
    if (isFirst) await noteSession(this.folder);
    this.#logs.set(stage, log);
    const drawCurve = async () => {
      if (log.steps.length < 2) return;
      const title = `${this.recipe.name} · ${stage}`;
      await this.hooks.artist?.curve(join(folder, 'loss.png'), { title, log: log.steps });
    };
    const preview =
      task.preview &&
      (async (step: number) => {
        await drawCurve();
        await task.preview!(step);
      });
    const result = await train({ ...task, preview: preview && this.hooks.artist ? preview : undefined }, options, {
      store: { latest: async () => resumed, save: (checkpoint) => store.save(checkpoint) },
      log: (line) => log.add(line),
      progress: this.hooks.progress,
      warn: (message) => this.say(message),
      signal: this.hooks.signal,
      previewMinutes: this.hooks.pictureMinutes,
      previewSteps: this.hooks.validationSteps,
    }).catch((error) => {
      throw withAdvice(error, stage, options);
    });
    await drawCurve();
    await this.report();
    if (!result.finished) throw new Interrupted(`${stage}: stopped at step ${result.step}; saved in ${folder}`);
    const { lora, ...facts } = result;
    if (lora) {
      const file = join(folder, 'pytorch_lora_weights.safetensors');
      await writeTensors(file, lora.tensors, lora.metadata);
      this.say(`${stage}: the LoRA is in ${file}; the model has it merged`);
    }
    return facts;
  }
}

/** @throws what the first folder above that exists says to being written */
async function whyNotIn(folder: string): Promise<void> {
  let above = resolve(folder);
  while (!(await exists(above)) && dirname(above) !== above) above = dirname(above);
  await access(above, constants.W_OK);
}
