/** Pairs of noise and what a flow makes of it: the data of reflow and distillation. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { noGrad, scope, tensor } from '../../tensor/index.ts';
import { readHeader, readTensors, writeTensors } from '../../tensor/io/files-node.ts';
import { guided } from '../guidance.ts';
import type { ConditionalNetwork } from '../guidance.ts';
import { latentSize, seededNoise } from '../latents.ts';
import type { LatentShape } from '../latents.ts';
import { concatenate } from '../pipelines/arrays.ts';
import { fixedStepSolvers } from '../solvers.ts';
import type { PairOptions } from './recipe.ts';
import type { Run } from './run.ts';
import type { TextTable } from './texts.ts';

/** x0 is drawn from its seed again whenever it is wanted; x1 is stored. */
export interface Pairs {
  seeds: number[]; // [N], of x0
  prompts: string[]; // [N]
  x1: Float32Array; // [N, h, w, C]
}

export interface PairSource {
  network: ConditionalNetwork;
  texts: TextTable;
  shape: LatentShape;
  /** The prompt of each pair. */
  prompts: string[];
  /** Seed of the first pair's noise; the others count on. Below 2²⁴. */
  firstSeed: number;
}

/**
 * x1 = ODE[v](x0 | text), one file for each batch, so that a run that was stopped goes on after the last.
 * @see Liu et al. 2023, InstaFlow, §3.1. https://arxiv.org/abs/2309.06380
 */
export async function makePairs(run: Run, folder: string, source: PairSource, options: PairOptions): Promise<Pairs> {
  const { network, texts, shape, prompts, firstSeed } = source;
  const solve = fixedStepSolvers[options.solver ?? 'euler'];
  const start = performance.now();
  let made = 0;
  for (let from = 0; from < options.count; from += options.batchSize) {
    const file = join(folder, `pairs-${String(from).padStart(7, '0')}.safetensors`);
    if (
      await readHeader(file).then(
        () => true,
        () => false,
      )
    )
      continue;
    run.checkInterrupt();
    const seconds = (performance.now() - start) / 1000;
    if (options.minutes !== undefined && seconds > 60 * options.minutes && from > 0) break;
    const count = Math.min(options.batchSize, options.count - from);
    const part = prompts.slice(from, from + count);
    const seeds = part.map((_, i) => firstSeed + from + i);
    const z = noGrad(() =>
      scope(() => {
        const nullText = options.guidanceScale > 1 ? texts.batch(part.map(() => '')) : undefined;
        const x0 = tensor(concatenate(seeds.map((seed) => seededNoise(seed, shape))), [count, ...shape]);
        return solve(guided(network, texts.batch(part), nullText, options.guidanceScale), x0, options.steps);
      }),
    );
    const x1 = (await z.read()) as Float32Array;
    z.dispose();
    if (x1.some((value) => !Number.isFinite(value)))
      throw new Error(`pairs: latents ${from} to ${from + count} are not finite`);
    await writeTensors(
      file,
      {
        x1: { shape: [count, ...shape], data: x1 },
        x0_seed: { shape: [count], data: Float32Array.from(seeds), dtype: 'I32' },
      },
      {
        prompts: JSON.stringify(part),
        solver: options.solver ?? 'euler',
        steps: String(options.steps),
        guidance_scale: String(options.guidanceScale),
      },
    );
    made += count;
    const rate = made / ((performance.now() - start) / 1000);
    run.say(
      `pairs: ${from + count} of ${options.count}, ${rate.toFixed(1)} a second, ${Math.ceil((options.count - from - count) / rate)} s left`,
    );
  }
  return readPairs(folder, latentSize(shape));
}

export async function readPairs(folder: string, size: number): Promise<Pairs> {
  const files = (await readdir(folder)).filter((name) => /^pairs-\d+\.safetensors$/.test(name)).sort();
  if (files.length === 0) throw new Error(`no pairs in ${folder}\n  run the pairs stage first`);
  const pairs: Pairs = { seeds: [], prompts: [], x1: new Float32Array(0) };
  const parts: Float32Array[] = [];
  for (const name of files) {
    const { tensors, metadata } = await readTensors(join(folder, name));
    pairs.seeds.push(...tensors.x0_seed.data);
    pairs.prompts.push(...(JSON.parse(metadata.prompts) as string[]));
    parts.push(tensors.x1.data);
  }
  pairs.x1 = concatenate(parts);
  if (pairs.x1.length !== pairs.seeds.length * size)
    throw new Error(`${folder}: pairs of another shape\n  train in another --output_dir`);
  return pairs;
}

/** x0 and x1 of some pairs. */
export function pairBatch(
  pairs: Pairs,
  indices: ArrayLike<number>,
  shape: LatentShape,
): { x0: Float32Array; x1: Float32Array; prompts: string[] } {
  const size = latentSize(shape);
  const list = Array.from(indices);
  return {
    x0: concatenate(list.map((i) => seededNoise(pairs.seeds[i], shape))),
    x1: concatenate(list.map((i) => pairs.x1.subarray(i * size, (i + 1) * size))),
    prompts: list.map((i) => pairs.prompts[i]),
  };
}
