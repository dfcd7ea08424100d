/** The pairs of a folder, for training: checked when opened, read when asked for. */
import { closeSync, openSync, readSync } from 'node:fs';
import { basename, join } from 'node:path';
import { exists } from '../../../tensor/io/files-node.ts';
import { channelsLast, latentSize, seededNoise } from '../../latents.ts';
import type { LatentShape } from '../../latents.ts';
import { differences, factsOf, PairError, readManifest, shardName } from './manifest.ts';
import type { PairFacts, PairShard } from './manifest.ts';
import { latentsOf, readSamples } from './samples.ts';
import type { TarEntry } from '../../../tensor/io/tar-node.ts';
import { sizeOf } from './shard-writer.ts';

/** Files that are open at once. */
const OPEN = 64;

interface Place {
  shard: number;
  x1: TarEntry;
  x0?: TarEntry;
}

/** How a set is opened. */
export interface OpenPairsOptions {
  /** Must have made them: the sha256 of its U-Net. */
  teacher?: string;
  /** Only this shard. */
  only?: string;
  /** Told of every shard that was checked. */
  progress?(done: number, total: number): void;
}

/** All pairs of a set by number, 0 … length − 1, in the order they were made. Latents stay on disk. */
export class PairSet {
  readonly #files = new Map<number, number>();
  readonly #places: readonly Place[];

  private constructor(
    readonly folder: string,
    readonly shards: readonly PairShard[],
    /** The prompt of each pair. */
    readonly prompts: readonly string[],
    /** The seed of each pair's noise. */
    readonly seeds: readonly number[],
    places: readonly Place[],
    /** [h, w, C] of x0 and x1. */
    readonly shape: LatentShape,
  ) {
    this.#places = places;
  }

  /**
   * Check the manifest and every shard against it, and index the pairs.
   * @throws PairError naming the shard that is missing, changed, unknown or from another teacher, and what to do
   */
  static async open(folder: string, { teacher, only, progress }: OpenPairsOptions = {}): Promise<PairSet> {
    const listed = await readManifest(folder);
    if (listed.length === 0)
      throw new PairError(`${folder}: no pairs here\n  make them first: --stage pairs, or rectiflow pairs generate`);
    const shards = only === undefined ? listed : listed.filter(({ shard }) => shard === basename(only));
    if (shards.length === 0)
      throw new PairError(
        `${join(folder, only!)}: unknown shard\n  the manifest beside it has ${listed[0].shard} … ${listed.at(-1)!.shard}`,
      );
    checkFacts(folder, shards, teacher);
    if (only === undefined) checkAllThere(folder, shards);
    const prompts: string[] = [];
    const seeds: number[] = [];
    const places: Place[] = [];
    for (const [i, shard] of shards.entries()) {
      const { samples } = await checkShard(folder, shard);
      for (const { number, facts, x1, x0 } of samples) {
        if (shard.noise === 'torch cpu, stored' && !x0)
          throw new PairError(`${join(folder, shard.shard)}: pair ${number} has no noise`);
        prompts.push(facts.prompt);
        seeds.push(facts.seed);
        places.push({ shard: i, x1, x0 });
      }
      progress?.(i + 1, shards.length);
    }
    if (places.length === 0) throw new PairError(`${folder}: every pair was left out; there is nothing to train on`);
    const [c, h, w] = shards[0].latent_shape;
    return new PairSet(folder, shards, prompts, seeds, places, [h, w, c]);
  }

  /** How many pairs there are. */
  get length(): number {
    return this.prompts.length;
  }

  /** What all shards have in common. */
  get facts(): PairFacts {
    return factsOf(this.shards[0]);
  }

  /** Number of pair `index` of shard `shard`, both counted from 0 by what is there. */
  numberOf(shard: number, index: number): number {
    const before = this.shards.slice(0, shard).reduce((n, { samples }) => n + samples, 0);
    const count = this.shards[shard]?.samples ?? 0;
    if (!(index >= 0 && index < count)) throw new RangeError(`PairSet: shard ${shard} has ${count} pairs, no ${index}`);
    return before + index;
  }

  /** Noise, latents and prompts of some pairs.   x0, x1: [B, h, w, C] */
  batch(numbers: ArrayLike<number>): { x0: Float32Array; x1: Float32Array; prompts: string[] } {
    const list = Array.from(numbers);
    const size = latentSize(this.shape);
    const x0 = new Float32Array(list.length * size);
    const x1 = new Float32Array(list.length * size);
    list.forEach((n, i) => {
      const place = this.#places[n];
      if (!place) throw new RangeError(`PairSet: no pair ${n}, there are ${this.length}`);
      x1.set(this.#latents(place.shard, place.x1), i * size);
      x0.set(place.x0 ? this.#latents(place.shard, place.x0) : seededNoise(this.seeds[n], this.shape), i * size);
    });
    return { x0, x1, prompts: list.map((n) => this.prompts[n]) };
  }

  /** Close the files that are open. They open again when they are read. */
  close(): void {
    for (const file of this.#files.values()) closeSync(file);
    this.#files.clear();
  }

  /** For `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  #latents(shard: number, entry: TarEntry): Float32Array {
    const name = `${join(this.folder, this.shards[shard].shard)}: ${entry.name}`;
    const bytes = new Uint8Array(entry.size);
    const read = readSync(this.#file(shard), bytes, 0, entry.size, entry.offset);
    if (read !== entry.size) throw new PairError(`${name}: the shard was changed while it was used`);
    return channelsLast(latentsOf(bytes, this.shape, name), this.shape);
  }

  /** The newest are kept open. */
  #file(shard: number): number {
    const file = this.#files.get(shard) ?? openSync(join(this.folder, this.shards[shard].shard), 'r');
    this.#files.delete(shard);
    this.#files.set(shard, file);
    if (this.#files.size > OPEN) {
      const [oldest, other] = this.#files.entries().next().value!;
      this.#files.delete(oldest);
      closeSync(other);
    }
    return file;
  }
}

/** A shard as the manifest knows it. @throws PairError when it is missing, or is not that */
export async function checkShard(folder: string, shard: PairShard) {
  const path = join(folder, shard.shard);
  const again = `delete it and make it again: rectiflow pairs generate … --output_dir ${folder}`;
  if (!(await exists(path)))
    throw new PairError(
      `${path}: missing\n  the manifest has ${shard.samples} pairs in it\n  copy it here, or run the command that made it again: it makes what is missing`,
    );
  const size = await sizeOf(path);
  const changed = (what: string, is: unknown, was: unknown) =>
    new PairError(
      `${path}: not the shard that the manifest knows: another ${what}\n  file      ${is}\n  manifest  ${was}\n  ${again}`,
    );
  if (size !== shard.bytes) throw changed('size', `${size} bytes`, `${shard.bytes} bytes`);
  const read = await readSamples(path);
  if (read.sha256 !== shard.sha256) {
    const made = read.samples[0]?.facts.teacher;
    const other = made !== undefined && made !== shard.teacher.sha256.slice(0, 16);
    if (other) throw changed('teacher', `${made}…`, shard.teacher.sha256);
    throw changed('sha256', read.sha256, shard.sha256);
  }
  if (read.samples.length !== shard.samples) throw changed('number of pairs', read.samples.length, shard.samples);
  return read;
}

/** All shards must be of one kind, and of the teacher that is wanted. */
function checkFacts(folder: string, shards: readonly PairShard[], teacher?: string): void {
  const [first] = shards;
  for (const shard of shards) {
    const odd = differences(shard, first);
    if (odd.length === 0) continue;
    const path = join(folder, shard.shard);
    const what =
      shard.teacher.sha256 === first.teacher.sha256 ? 'was made otherwise than' : 'is from another teacher than';
    throw new PairError(
      `${path}: ${what} ${first.shard}\n${odd.join('\n')}\n  keep pairs of one kind in a folder: take that shard and its line of manifest.jsonl out`,
    );
  }
  if (teacher === undefined || teacher === first.teacher.sha256) return;
  throw new PairError(
    `${join(folder, first.shard)}: is from another teacher\n  made by  ${first.teacher.sha256} (${first.model})\n  wanted   ${teacher}\n` +
      `  make pairs with this teacher in another folder, or remove ${folder} to make them here`,
  );
}

/** Shards without a gap, up to the number of pairs that were planned. */
function checkAllThere(folder: string, shards: readonly PairShard[]): void {
  const { shard_size: size } = shards[0];
  const total = Math.max(...shards.map(({ total_samples }) => total_samples));
  const has = new Map(shards.map((shard) => [shard.shard, shard]));
  const missing: string[] = [];
  for (let first = 0; first < total; first += size) {
    const name = shardName(first / size);
    const shard = has.get(name);
    if (!shard || shard.samples + shard.skipped < Math.min(size, total - first)) missing.push(name);
  }
  if (missing.length === 0) return;
  const shown = missing.slice(0, 8).join(', ') + (missing.length > 8 ? ', …' : '');
  throw new PairError(
    `${folder}: ${missing.length} of ${Math.ceil(total / size)} shards are not made yet\n  missing  ${shown}\n  run the command that made the others again: it makes what is missing`,
  );
}
