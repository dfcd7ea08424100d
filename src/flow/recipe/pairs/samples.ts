/**
 * Pairs as the samples of a WebDataset shard: files with one key, in this order.
 *
 *     000003072.json          seed, prompt, and how it was made
 *     000003072.latents.npy   x1: [C, h, w], as diffusers has it, at the scale of the U-Net
 *     000003072.noise.npy     x0: [C, h, w] in f32, where it was asked for
 *     000003072.txt           the prompt
 *
 * @see https://github.com/webdataset/webdataset
 */
import { decodeNpy, encodeNpy } from '../../../tensor/io/npy.ts';
import { readTar, tarNext } from '../../../tensor/io/tar-node.ts';
import type { TarEntry, TarFile } from '../../../tensor/io/tar-node.ts';
import { channelsFirst } from '../../latents.ts';
import type { LatentShape } from '../../latents.ts';
import { PairError } from './manifest.ts';
import type { PairFacts } from './manifest.ts';

/** What the .json of a sample says. */
export interface SampleFacts {
  seed: number;
  prompt: string;
  /** The beginning of its sha256. */
  teacher: string;
  scheduler: string;
  steps: number;
  guidance_scale: number;
  dtype: string;
  batch_size: number;
}

/** A sample in a shard, and where its numbers lie. */
export interface StoredSample {
  /** Number in the whole set. */
  number: number;
  facts: SampleFacts;
  x1: TarEntry;
  x0?: TarEntry;
  /** Where the next sample begins. */
  end: number;
}

/** Number of a pair in its set → what its files are called. */
export const keyOf = (number: number): string => String(number).padStart(9, '0');

/** What a sample of these facts says of itself. */
export const sampleFacts = (facts: PairFacts, seed: number, prompt: string, batchSize: number): SampleFacts => ({
  seed,
  prompt,
  teacher: facts.teacher.sha256.slice(0, 16),
  scheduler: facts.scheduler,
  steps: facts.steps,
  guidance_scale: facts.guidance_scale,
  dtype: facts.dtype,
  batch_size: batchSize,
});

/** A pair as files. x0, x1: [h, w, C] */
export function sampleFiles(
  number: number,
  facts: SampleFacts,
  { x0, x1 }: { x0?: Float32Array; x1: Float32Array },
  shape: LatentShape,
  dtype: 'f16' | 'f32',
): TarFile[] {
  const key = keyOf(number);
  const text = new TextEncoder();
  const [h, w, c] = shape;
  const npy = (z: Float32Array, kind: 'F16' | 'F32') => encodeNpy(channelsFirst(z, shape), [c, h, w], kind);
  return [
    { name: `${key}.json`, data: text.encode(JSON.stringify(facts)) },
    { name: `${key}.latents.npy`, data: npy(x1, dtype === 'f16' ? 'F16' : 'F32') },
    ...(x0 ? [{ name: `${key}.noise.npy`, data: npy(x0, 'F32') }] : []),
    { name: `${key}.txt`, data: text.encode(facts.prompt) },
  ];
}

/** The samples of a shard that are whole, and the sha256 of the file. */
export async function readSamples(
  path: string,
): Promise<{ samples: StoredSample[]; sha256: string; bytes: number; whole: boolean }> {
  const { entries, ...rest } = await readTar(path, (name) => name.endsWith('.json'));
  const samples: StoredSample[] = [];
  let open: Partial<StoredSample> & { key?: string } = {};
  for (const entry of entries) {
    const [, key, extension] = /^(\d{9})\.(.+)$/.exec(entry.name) ?? [];
    if (key !== open.key) open = { key, number: Number(key) };
    if (extension === 'json') open.facts = parse(entry, path);
    if (extension === 'latents.npy') open.x1 = entry;
    if (extension === 'noise.npy') open.x0 = entry;
    if (extension !== 'txt' || !open.facts || !open.x1) continue;
    const { number, facts, x1, x0 } = open as StoredSample;
    samples.push({ number, facts, x1, x0, end: tarNext(entry) });
  }
  return { samples, ...rest };
}

function parse(entry: TarEntry, path: string): SampleFacts {
  try {
    return JSON.parse(entry.data!.toString()) as SampleFacts;
  } catch (error) {
    throw new PairError(
      `${path}: ${entry.name} is not JSON (${(error as Error).message})\n  delete the file and make it again`,
    );
  }
}

/** The numbers of a .npy in a shard, which must have this shape. → [C, h, w] */
export function latentsOf(bytes: Uint8Array, [h, w, c]: LatentShape, name: string): Float32Array {
  const { shape, data } = decodeNpy(bytes, name);
  if (shape.join() === [c, h, w].join()) return data;
  throw new PairError(
    `${name}: latents of another shape\n  has     [${shape.join(', ')}]\n  wanted  [${c}, ${h}, ${w}]`,
  );
}
