/** Going on with other hyper-parameters than a run was begun with: found, said, and refused unless forced. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { TrainingError } from '../training-error.ts';
import { stageNames } from './recipe.ts';
import type { Recipe, StageName } from './recipe.ts';

/** A number of the recipe that is not what it was. */
export interface Change {
  /** `reflow.train.learningRate` */
  path: string;
  before: unknown;
  now: unknown;
}

/** What may change between two runs without a change of what comes out. */
const free = new Set(['checkpointingSteps', 'checkpointingMinutes', 'checkpointsTotalLimit', 'gradientCheckpointing']);

/** The stage that a part of the recipe is first used in; the others are used from the beginning. */
const firstUse: Partial<Record<string, StageName>> = {
  tokenizer: 'tokenizer',
  vae: 'vae',
  textEncoder: 'teacher',
  unet: 'teacher',
  teacher: 'teacher',
  pairs: 'pairs',
  reflow: 'reflow',
  distill: 'distill',
  evaluate: 'evaluate',
};

/**
 * What differs from the recipe that `folder` was begun with, in stages that have begun. With `resumeFrom` 'none' those that are
 * not finished begin anew.
 */
export async function changesOf(
  folder: string,
  saved: Recipe,
  recipe: Recipe,
  resumeFrom = 'latest',
): Promise<Change[]> {
  const begun = new Set<StageName>();
  for (const stage of stageNames) {
    const files = await readdir(join(folder, stage)).catch(() => [] as string[]);
    if (resumeFrom === 'none' ? files.includes('done.json') : files.length) begun.add(stage);
  }
  if (!begun.size) return [];
  return differences(saved, JSON.parse(JSON.stringify(recipe))).filter(({ path }) => {
    const [part] = path.split('.');
    const stage = firstUse[part];
    return stage ? begun.has(stage) : true;
  });
}

/** @throws TrainingError with every change, unless `force` is set: then they are said */
export function allow(folder: string, changes: readonly Change[], force: boolean, say: (line: string) => void): void {
  if (!changes.length) return;
  const width = Math.max(...changes.map(({ path }) => path.length));
  const lines = changes.map(({ path, before, now }) => `  ${path.padEnd(width)}  ${show(before)} → ${show(now)}`);
  const words = [`${folder} was begun with other hyper-parameters`, ...lines];
  if (force) return say([...words, '  going on with the new ones (--force)'].join('\n'));
  throw new TrainingError(
    [...words, '  leave them as they were, go on with the new ones by --force, or give another --output_dir'].join(
      '\n',
    ),
  );
}

function differences(before: unknown, now: unknown, path: readonly string[] = []): Change[] {
  if (isObject(before) && isObject(now)) {
    const keys = new Set([...Object.keys(before), ...Object.keys(now)]);
    return [...keys].flatMap((key) => (free.has(key) ? [] : differences(before[key], now[key], [...path, key])));
  }
  return JSON.stringify(before) === JSON.stringify(now) ? [] : [{ path: path.join('.'), before, now }];
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const show = (value: unknown): string => (value === undefined ? 'not set' : JSON.stringify(value));
