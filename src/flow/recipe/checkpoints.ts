/** Checkpoints on disk: `<folder>/checkpoint-<step>/state.safetensors`, the newest few. */
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { readTensors, syncFolder, writeTensors } from '../../tensor/io/files-node.ts';
import { TrainingError } from '../training-error.ts';
import type { Checkpoint, CheckpointStore } from '../trainer.ts';

export class CheckpointFolder implements CheckpointStore {
  /** Of another way that training took: newer than what it now goes on from. */
  #superseded: string[] = [];

  constructor(
    readonly folder: string,
    /** How many to keep (--checkpoints_total_limit). */
    readonly limit = 2,
    /** Which to go on from: 'latest', the name of one, or 'none'. */
    readonly resume: string = 'latest',
    readonly say: (line: string) => void = () => {},
  ) {}

  /** The newest that can be read, or the one that was asked for. What a dead process left half written is removed. */
  async latest(): Promise<Checkpoint | undefined> {
    for (const name of await this.#list(/^checkpoint-\d+\.part$/)) await this.#remove(name);
    const names = await this.#names();
    const index = this.resume === 'latest' ? names.length - 1 : names.indexOf(this.resume);
    if (index < 0 && this.resume !== 'none' && this.resume !== 'latest')
      throw new TrainingError(`no ${this.resume} in ${this.folder}\n  there is: ${names.join(', ') || 'none'}`);
    for (let i = index; i >= 0; i--) {
      this.#superseded = names.slice(i + 1);
      try {
        return await this.#read(names[i]);
      } catch (error) {
        if (this.resume !== 'latest' || i === 0) throw error;
        this.say(`${(error as Error).message}\n  going on from ${names[i - 1]}`);
      }
    }
    this.#superseded = names;
    return undefined;
  }

  async #read(name: string): Promise<Checkpoint> {
    const file = join(this.folder, name, 'state.safetensors');
    const { tensors, metadata } = await readTensors(file);
    const number = (key: string) => {
      const value = Number(metadata[key]);
      if (!Number.isFinite(value)) throw new TrainingError(`${file}: no ${key} in its metadata`);
      return value;
    };
    return {
      step: number('step'),
      seconds: number('seconds'),
      skipped: 0,
      ...('loss_scale' in metadata
        ? { lossScale: { scale: number('loss_scale'), goodSteps: number('good_steps') } }
        : {}),
      ...('ema_steps' in metadata ? { emaSteps: number('ema_steps') } : {}),
      tensors,
    };
  }

  /** Written beside and renamed, so that what carries the name is whole. */
  async save({ step, seconds, lossScale, emaSteps, tensors }: Checkpoint): Promise<string> {
    const target = join(this.folder, `checkpoint-${step}`);
    const beside = `${target}.part`;
    const metadata = {
      step,
      seconds,
      ...(lossScale ? { loss_scale: lossScale.scale, good_steps: lossScale.goodSteps } : {}),
      ...(emaSteps === undefined ? {} : { ema_steps: emaSteps }),
    };
    try {
      await mkdir(beside, { recursive: true });
      const words = Object.fromEntries(Object.entries(metadata).map(([key, value]) => [key, String(value)]));
      await writeTensors(join(beside, 'state.safetensors'), tensors, words);
      await this.#setAside();
      await rm(target, { recursive: true, force: true });
      await rename(beside, target);
      await syncFolder(this.folder);
    } catch (error) {
      await rm(beside, { recursive: true, force: true }).catch(() => {});
      throw cannotWrite(error, target);
    }
    for (const old of (await this.#names()).slice(0, -this.limit)) await this.#remove(old);
    return target;
  }

  /** Else they would count as the latest, and the new ones, being of earlier steps, as those to remove. */
  async #setAside(): Promise<void> {
    for (const name of this.#superseded) {
      await this.#remove(`old-${name}`);
      await rename(join(this.folder, name), join(this.folder, `old-${name}`));
    }
    if (this.#superseded.length)
      this.say(`set aside in ${this.folder}: ${this.#superseded.map((name) => `old-${name}`).join(', ')}`);
    this.#superseded = [];
  }

  async clear(): Promise<void> {
    for (const name of await this.#names()) await this.#remove(name);
  }

  #remove(name: string): Promise<void> {
    return rm(join(this.folder, name), { recursive: true, force: true });
  }

  /** Oldest first. */
  async #names(): Promise<string[]> {
    const step = (name: string) => Number(name.slice('checkpoint-'.length));
    return (await this.#list(/^checkpoint-\d+$/)).sort((a, b) => step(a) - step(b));
  }

  async #list(pattern: RegExp): Promise<string[]> {
    return (await readdir(this.folder).catch(() => [] as string[])).filter((name) => pattern.test(name));
  }
}

const lasting = 'the last checkpoint is intact';
const fixes: Record<string, [reason: string, fix: string]> = {
  ENOSPC: ['the disk is full', 'free some space and run the same command again'],
  EDQUOT: ['the disk is full: the quota is used up', 'free some space and run the same command again'],
  EACCES: ['permission denied', 'give another --output_dir, or the right to write there'],
  EPERM: ['permission denied', 'give another --output_dir, or the right to write there'],
  EROFS: ['the disk is read-only', 'give another --output_dir'],
  ENOTDIR: ['part of the path is not a folder', 'give another --output_dir'],
};

/** A full disk or a folder that may not be written, where no writer has put it in words yet; and what to do. */
export function cannotWrite(error: unknown, what: string): Error {
  const { code, message } = error as NodeJS.ErrnoException;
  if (!code || !fixes[code]) return error as Error;
  const [reason, fix] = fixes[code];
  const said = /^cannot write/.test(message) ? message : `cannot write ${what}: ${reason}`;
  const isFull = code === 'ENOSPC' || code === 'EDQUOT';
  return new Error(`${said}\n  ${isFull ? `${lasting}: ` : ''}${fix}`, { cause: error });
}
