/** What the files of a run say of it, for its report. */
import { readFile } from 'node:fs/promises';
import { appendFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { currentGpu } from '../../tensor/index.ts';
import type { TrainOptions } from '../trainer.ts';
import { cannotWrite } from './checkpoints.ts';
import { stageNames } from './recipe.ts';
import type { Recipe, StageName } from './recipe.ts';
import type { Metrics } from './stage-evaluate.ts';
import { parseLog } from './training-log.ts';
import type { LoggedStep } from './training-log.ts';

/** One time that a run was begun or gone on with, and on what machine. */
export interface Session {
  /** ISO 8601. */
  started: string;
  /** The GPU, as its driver calls it. */
  adapter: string;
  cpu: string;
  cores: number;
  /** Bytes of main memory. */
  memory: number;
  platform: string;
  node: string;
}

/** A stage as far as it has come. */
export interface StageReport {
  name: StageName;
  /** Empty for a stage that does not train. */
  log: LoggedStep[];
  /** Steps asked for. */
  steps?: number;
  /** The newest sheet of samples, a PNG file. */
  sheet?: Buffer;
  /** What it left when it finished. */
  done?: Record<string, unknown>;
}

/** A run as its files tell it. */
export interface RunReport {
  recipe: Recipe;
  /** ISO 8601: when this was read. */
  written: string;
  sessions: Session[];
  stages: StageReport[];
  /** Once the last stage has finished. */
  metrics?: Metrics;
}

export async function readReport(folder: string, recipe: Recipe): Promise<RunReport> {
  const text = (...path: string[]) => readFile(join(folder, ...path), 'utf8').catch(() => undefined);
  const json = async (...path: string[]) => parsed(await text(...path));
  const stages = stageNames.map(async (name): Promise<StageReport> => {
    const log = parseLog((await text(name, 'log.jsonl')) ?? '');
    const picture = join(folder, name, name === 'evaluate' ? 'sheet.png' : 'samples.png');
    const sheet = await readFile(picture).catch(() => undefined);
    const part = recipe[name as keyof Recipe] as { train?: TrainOptions } | undefined;
    const steps = part?.train?.steps;
    return { name, log, steps, sheet, done: await json(name, 'done.json') };
  });
  return {
    recipe,
    written: new Date().toISOString(),
    sessions: ((await text('sessions.jsonl')) ?? '').split('\n').flatMap((line) => parsed(line) ?? []),
    stages: await Promise.all(stages),
    metrics: await json('evaluate', 'metrics.json'),
  };
}

/** Add this process and its machine to the sessions of a run. */
export async function noteSession(folder: string): Promise<void> {
  const session: Session = {
    started: new Date().toISOString(),
    adapter: currentGpu().capabilities.name,
    cpu: cpus()[0]?.model.trim() ?? '',
    cores: availableParallelism(),
    memory: totalmem(),
    platform: `${process.platform} ${process.arch}`,
    node: process.version,
  };
  const file = join(folder, 'sessions.jsonl');
  try {
    appendFileSync(file, `${JSON.stringify(session)}\n`);
  } catch (error) {
    throw cannotWrite(error, file);
  }
}

function parsed(text: string | undefined): any {
  try {
    return text ? JSON.parse(text) : undefined;
  } catch {
    return undefined; // cut short when the process died
  }
}
