/** One shard while it is made: a file beside its place that grows batch by batch, so that a kill loses the batch in flight. */
import { open, rename, stat } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { exists } from '../../../tensor/io/files-node.ts';
import { tarEnd, tarPart } from '../../../tensor/io/tar-node.ts';
import type { TarFile } from '../../../tensor/io/tar-node.ts';
import { PairError } from './manifest.ts';
import { readSamples } from './samples.ts';
import type { SampleFacts } from './samples.ts';

/** What a shard is to hold. */
export interface ShardPlan {
  /** The file in its place; it grows in `<path>.part`. */
  path: string;
  /** Numbers of its pairs: first … first + count − 1. */
  first: number;
  count: number;
  batchSize: number;
  /** What the sample with a number must say. */
  expected(number: number, batchSize: number): SampleFacts;
}

export class ShardWriter {
  #end: number;

  private constructor(
    readonly plan: ShardPlan,
    readonly file: FileHandle,
    end: number,
    /** Pairs that are in it. */
    public samples: number,
    /** Pairs that were tried: the next has the number first + tried. */
    public tried: number,
    /** That of the samples that were there. */
    readonly batchSize: number,
  ) {
    this.#end = end;
  }

  /**
   * Begin a shard, or go on with what is there of it: with whole batches, so that it comes out as if made in one go.
   * @throws PairError when it was begun with other settings
   */
  static async open(plan: ShardPlan): Promise<ShardWriter> {
    const part = partOf(plan.path);
    // In its place and yet to be made: it was to have fewer pairs, or the manifest never heard of it.
    if (!(await exists(part)) && (await exists(plan.path))) await rename(plan.path, part).catch(explainWrite(part));
    const { samples } = (await exists(part)) ? await readSamples(part) : { samples: [] };
    const batchSize = samples[0]?.facts.batch_size ?? plan.batchSize;
    for (const { number, facts } of samples) {
      const wanted = plan.expected(number, batchSize);
      const odd = (Object.keys(wanted) as (keyof SampleFacts)[]).filter((name) => facts[name] !== wanted[name]);
      if (odd.length === 0) continue;
      const lines = odd.map((name) => `  ${name}  ${JSON.stringify(facts[name])}, not ${JSON.stringify(wanted[name])}`);
      throw new PairError(`${part}: was begun with other settings\n${lines.join('\n')}\n  delete it, or give those`);
    }
    const inside = samples.filter(({ number }) => number >= plan.first && number < plan.first + plan.count);
    const reached = inside.length ? inside.at(-1)!.number - plan.first + 1 : 0;
    const tried = reached === plan.count ? reached : reached - (reached % batchSize);
    const kept = inside.filter(({ number }) => number < plan.first + tried);
    const end = kept.at(-1)?.end ?? 0;
    const file = await open(part, 'a+').catch(explainWrite(part));
    await file.truncate(end).catch(explainWrite(part));
    return new ShardWriter(plan, file, end, kept.length, tried, batchSize);
  }

  /** Add what became of the next `tried` pairs. @throws PairError on a full disk; what was there stays */
  async append(samples: readonly TarFile[][], tried: number): Promise<void> {
    if (samples.length) await this.#write(await tarPart(samples.flat()));
    this.samples += samples.length;
    this.tried += tried;
  }

  async #write(bytes: Uint8Array): Promise<void> {
    const name = partOf(this.plan.path);
    try {
      for (let at = 0; at < bytes.length;) at += (await this.file.write(bytes, at)).bytesWritten;
      await this.file.datasync();
      this.#end += bytes.length;
    } catch (error) {
      await this.file.truncate(this.#end).catch(() => {});
      return explainWrite(name)(error);
    }
  }

  /** End the archive and put it in its place. @returns what the manifest says of the file */
  async finish(): Promise<{ bytes: number; sha256: string }> {
    const { path } = this.plan;
    await this.#write(tarEnd);
    await this.file.sync();
    await this.file.close();
    const { sha256, bytes } = await readSamples(partOf(path));
    await rename(partOf(path), path).catch(explainWrite(path));
    return { bytes, sha256 };
  }

  /** Leave it as it is, to go on later. */
  close(): Promise<void> {
    return this.file.close();
  }
}

export const partOf = (path: string): string => `${path}.part`;

/** Bytes of a file, or undefined where there is none. */
export const sizeOf = (path: string): Promise<number | undefined> =>
  stat(path).then(
    ({ size }) => size,
    () => undefined,
  );

const reasons: Record<string, string> = {
  ENOSPC: 'the disk is full',
  EDQUOT: 'the disk quota is used up',
  EACCES: 'permission denied',
  EROFS: 'the disk is read-only',
};

/** An error of the disk, in words. */
export const explainWrite =
  (path: string) =>
  (error: unknown): never => {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new PairError(
      `cannot write ${path}: ${reasons[code ?? ''] ?? message}\n  all pairs before it are kept: mend that and run the same command again`,
      { cause: error },
    );
  };
