/**
 * What a folder of pairs says of itself: `manifest.jsonl`, one line for each shard. A line tells all that its shard depends on,
 * so lines of several folders make one manifest when they are put together.
 */
import { join } from 'node:path';
import { exists, readBytes, writeAtomic } from '../../../tensor/io/files-node.ts';
import { lock, LockedError } from '../../../tensor/io/lock-node.ts';
import type { LatentScale } from '../../latents.ts';

/** Pairs cannot be made or read: which file, and what to do. */
export class PairError extends Error {
  override name = 'PairError';
}

/** What all shards of a set have in common: with the same facts, a seed and a prompt make the same pair. */
export interface PairFacts {
  format: 'rectiflow pairs 1';
  teacher: {
    /** The sha256 of its U-Net: every key, dtype, shape and bytes in the order of keys. */
    sha256: string;
    network: string;
  };
  /** Class in diffusers; of a rectified flow also its solver. */
  scheduler: string;
  steps: number;
  guidance_scale: number;
  /** How the teacher's weights and activations were kept. */
  dtype: 'f32' | 'f16';
  /** How x1 is kept. */
  latents_dtype: 'f32' | 'f16';
  /** [C, h, w] of one x1, at the scale that the U-Net works at. */
  latent_shape: [number, number, number];
  /** How the autoencoder's latents became these. */
  scaling: LatentScale;
  /** x0: torch.randn([1, C, h, w]) of a CPU generator with the pair's seed; stored with it where asked for. */
  noise: 'torch cpu' | 'torch cpu, stored';
  /** Pair n has the seed first_seed + n. */
  first_seed: number;
  /** Pairs in a shard, before any is left out. */
  shard_size: number;
  /** Of all prompts, a line each. */
  prompts_sha256: string;
  max_latent_rms: number | null;
  min_latent_rms: number | null;
}

/** A line of the manifest. */
export interface PairShard extends PairFacts {
  /** Its file, in the manifest's folder. */
  shard: string;
  /** Number of its first pair in the whole set. */
  first_sample: number;
  /** Pairs in it, */
  samples: number;
  /** and how many were left out: not finite, or not within the limits. */
  skipped: number;
  /** Seeds of its first and last pair, also if that one was left out. */
  seeds: [first: number, last: number];
  /** Pairs of the whole set, with those left out. */
  total_samples: number;
  /** Pairs that were made together: another number may give other last bits. */
  batch_size: number;
  bytes: number;
  sha256: string;
  /** The model as it was named, for people. */
  model: string;
  adapter: string;
}

const FILE = 'manifest.jsonl';

/** pairs-000123.tar */
export const shardName = (index: number): string => `pairs-${String(index).padStart(6, '0')}.tar`;

/** All lines, in the order of shards. None where there is no manifest. @throws PairError when one is broken */
export async function readManifest(folder: string): Promise<PairShard[]> {
  const file = join(folder, FILE);
  if (!(await exists(file))) return [];
  const text = new TextDecoder().decode(await readBytes(file));
  const lines = text.split('\n').flatMap((line, i) => (line.trim() ? [parse(line, `${file}:${i + 1}`)] : []));
  const newest = new Map(lines.map((line) => [line.shard, line]));
  return [...newest.values()].sort((a, b) => a.first_sample - b.first_sample);
}

function parse(line: string, place: string): PairShard {
  let shard: PairShard;
  try {
    shard = JSON.parse(line) as PairShard;
  } catch (error) {
    throw new PairError(
      `${place}: not a line of JSON (${(error as Error).message})\n  delete it: its shard is made again`,
    );
  }
  if (shard?.format !== 'rectiflow pairs 1')
    throw new PairError(`${place}: the format is ${JSON.stringify(shard?.format)}, must be "rectiflow pairs 1"`);
  const numbers = [shard.first_sample, shard.samples, shard.bytes, shard.total_samples, shard.shard_size];
  if (
    !/^pairs-\d{6}\.tar$/.test(shard.shard) ||
    !numbers.every(Number.isSafeInteger) ||
    !/^[\da-f]{64}$/.test(shard.sha256)
  )
    throw new PairError(`${place}: does not describe a shard\n  delete it: its shard is made again`);
  return shard;
}

/** Change the manifest: one process after the other, written beside and renamed. */
export async function updateManifest(folder: string, change: (shards: PairShard[]) => PairShard[]): Promise<void> {
  const unlock = await patiently(join(folder, `${FILE}.lock`));
  try {
    const shards = change(await readManifest(folder));
    await writeAtomic(join(folder, FILE), shards.map((shard) => `${JSON.stringify(shard)}\n`).join(''));
  } finally {
    await unlock();
  }
}

/** Another worker is at it for a moment only. */
async function patiently(path: string): Promise<() => Promise<void>> {
  for (let tries = 0; ; tries++) {
    try {
      return await lock(path);
    } catch (error) {
      if (!(error instanceof LockedError) || tries > 300) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

const factNames = [
  ...(['format', 'teacher', 'scheduler', 'steps', 'guidance_scale', 'dtype', 'latents_dtype', 'latent_shape'] as const),
  ...(['scaling', 'noise', 'first_seed', 'shard_size', 'prompts_sha256', 'max_latent_rms', 'min_latent_rms'] as const),
] satisfies (keyof PairFacts)[];

/** The facts alone. */
export const factsOf = (shard: PairFacts): PairFacts =>
  Object.fromEntries(factNames.map((name) => [name, shard[name]])) as unknown as PairFacts;

/** In which facts two differ: '  steps  25, not 8' */
export function differences(have: PairFacts, want: PairFacts): string[] {
  return factNames.flatMap((name) => {
    const [a, b] = [have[name], want[name]].map((value) => JSON.stringify(value));
    return a === b ? [] : [`  ${name}  ${a}, not ${b}`];
  });
}
