import { join, relative } from 'node:path';
import { Pipeline } from '../pipeline.ts';
import type { NetworkName } from '../pipelines/options.ts';
import { drawPrompts } from './captions.ts';
import { cannotWrite } from './checkpoints.ts';
import { openModelFolder } from './model-folder.ts';
import { generatePairs } from './pairs/generate.ts';
import type { PairProgress, PairResult } from './pairs/request.ts';
import { PairSet } from './pairs/pair-set.ts';
import { teacherHash } from './pairs/teacher.ts';
import type { PairOptions } from './recipe.ts';
import { Interrupted } from './run.ts';
import type { Run } from './run.ts';

/** What the teacher makes of noise, with guidance: the coupling that reflow learns. */
export async function pairsStage(run: Run): Promise<void> {
  const {
    seed,
    data: { specificCaption },
    pairs: options,
  } = run.recipe;
  const data = await run.data();
  const start = performance.now();
  const prompts = drawPrompts(data, options.count, seed + 3, specificCaption).map(({ text }) => text);
  await run.stageFolder('pairs');
  const made = { which: 'unet_teacher', prompts, firstSeed: 1_000_000 } as const;
  const { samples, skipped, complete } = await recipePairs(run, 'pairs', made, options);
  if (!complete) return run.say('pairs: the shards of this worker are made, those of others are not yet');
  await run.finish('pairs', { ...options, count: samples, skipped, seconds: (performance.now() - start) / 1000 });
}

/** Pairs of one of the run's networks, in a folder of the run. @throws Interrupted when asked to stop */
export async function recipePairs(
  run: Run,
  place: string,
  made: { which: NetworkName; prompts: string[]; firstSeed: number },
  { count, steps, solver, guidanceScale, batchSize, minutes }: PairOptions,
): Promise<PairResult> {
  const folder = join(run.folder, place);
  const { parts } = await openModelFolder(run.model, { networks: [made.which] });
  const diffusion = made.which === 'unet_teacher' ? run.recipe.diffusion : undefined;
  const pipeline = new Pipeline({ ...parts, defaults: {}, scheduler: diffusion ?? { _class_name: 'RectifiedFlow' } });
  try {
    const sha256 = await hashOf(run, place, made.which);
    const teacher = { model: relative(folder, run.model), sha256 };
    const kept = { latentsDtype: 'f32', shardSize: SHARD } as const;
    const scheduler = solver ?? (diffusion ? 'dpm++' : 'euler');
    const how = { count, steps, scheduler, guidanceScale, batchSize, minutes, worker: run.hooks.worker };
    let said = performance.now();
    const result = await generatePairs(
      folder,
      { pipeline, teacher, ...made, ...kept, ...how },
      {
        say: (line) => run.say(`pairs: ${line}`),
        signal: run.hooks.signal,
        progress: (progress) => {
          if (performance.now() - said < 30_000) return;
          said = performance.now();
          run.say(`pairs: ${describePairs(progress)}`);
        },
      },
    ).catch((error) => {
      throw cannotWrite(error, folder);
    });
    if (!result.finished) throw new Interrupted(`pairs: stopped with ${result.samples} made; saved in ${folder}`);
    return result;
  } finally {
    pipeline.dispose();
  }
}

/** Pairs in a file. */
const SHARD = 1024;

/** 4096 of 12288, 12 a second, 682 s left */
export const describePairs = ({ done, total, skipped, rate, remaining }: PairProgress): string =>
  `${done} of ${total}${skipped ? `, ${skipped} left out` : ''}, ${rate.toPrecision(3)} a second, ${Math.ceil(remaining)} s left`;

/** The pairs of a folder of the run. @throws PairError unless this network of the run made them */
export async function openPairs(run: Run, place: string, which: NetworkName): Promise<PairSet> {
  return PairSet.open(join(run.folder, place), { teacher: await hashOf(run, place, which) });
}

const hashOf = (run: Run, place: string, which: NetworkName): Promise<string> =>
  teacherHash(run.model, which, { cache: join(run.folder, place, 'teacher.txt') });
