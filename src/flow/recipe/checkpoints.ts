/** Checkpoints on disk: `<folder>/checkpoint-<step>/state.safetensors`, the newest two. */
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { readTensors, writeTensors } from '../../tensor/io/files-node.ts';
import { TrainingError } from '../training-error.ts';
import type { Checkpoint, CheckpointStore } from '../trainer.ts';

export class CheckpointFolder implements CheckpointStore {
  constructor(
    readonly folder: string,
    /** How many to keep (--checkpoints_total_limit). */
    readonly limit = 2,
    /** Which to go on from: 'latest', the name of one, or 'none'. */
    readonly resume: string = 'latest',
  ) {}

  async latest(): Promise<Checkpoint | undefined> {
    if (this.resume === 'none') return undefined;
    const names = await this.#names();
    const name = this.resume === 'latest' ? names.at(-1) : this.resume;
    if (name === undefined) return undefined;
    if (!names.includes(name)) {
      throw new TrainingError(`no ${name} in ${this.folder}\n  there is: ${names.join(', ') || 'none'}`);
    }
    const { tensors, metadata } = await readTensors(join(this.folder, name, 'state.safetensors'));
    const number = (key: string) => {
      const value = Number(metadata[key]);
      if (!Number.isFinite(value)) throw new TrainingError(`${join(this.folder, name)}: no ${key} in its metadata`);
      return value;
    };
    return { step: number('step'), seconds: number('seconds'), skipped: 0, tensors };
  }

  /** Written beside and renamed, so that what carries the name is whole. */
  async save({ step, seconds, tensors }: Checkpoint): Promise<string> {
    const target = join(this.folder, `checkpoint-${step}`);
    const beside = `${target}.part`;
    try {
      await mkdir(beside, { recursive: true });
      await writeTensors(join(beside, 'state.safetensors'), tensors, { step: String(step), seconds: String(seconds) });
      await rm(target, { recursive: true, force: true });
      await rename(beside, target);
    } catch (error) {
      await rm(beside, { recursive: true, force: true }).catch(() => {});
      throw fullDisk(error, target);
    }
    for (const old of (await this.#names()).slice(0, -this.limit)) {
      await rm(join(this.folder, old), { recursive: true, force: true });
    }
    return target;
  }

  async clear(): Promise<void> {
    for (const name of await this.#names()) await rm(join(this.folder, name), { recursive: true, force: true });
  }

  /** Oldest first. */
  async #names(): Promise<string[]> {
    const names = await readdir(this.folder).catch(() => [] as string[]);
    const step = (name: string) => Number(name.slice('checkpoint-'.length));
    return names.filter((name) => /^checkpoint-\d+$/.test(name)).sort((a, b) => step(a) - step(b));
  }
}

/** ENOSPC where no writer has put it in words yet. */
export function fullDisk(error: unknown, what: string): Error {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return error as Error;
  if (message.includes('the disk'))
    return new Error(`${message}\n  the last checkpoint is intact: free some space and run the same command again`, {
      cause: error,
    });
  return new Error(
    `cannot write ${what}: the disk is full\n  the last checkpoint is intact: free some space and run the same command again`,
    { cause: error },
  );
}
