/**
 * What there is of a blob while it is fetched: `blobs/<etag>.<host>-<process>-<tag>-<n>.incomplete`.
 *
 * A partial file belongs to the process in its name, and only that one writes to it. Another process waits while the
 * owner lives (it touches the file every few seconds), and takes the file over, by renaming it, when the owner is gone.
 * Renaming is atomic: of two that try, one gets it. `blobs/<etag>.incomplete` is what Python left before its version 2;
 * what later ones write, `<etag>.<8 hex digits>.incomplete`, is theirs alone.
 */
import { randomBytes } from 'node:crypto';
import { open, readdir, rename, rm, stat, utimes, type FileHandle } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { HubDisk } from './cache-node.ts';

const TOUCH = 5; // seconds
const STALE = 30; // seconds without a touch after which an owner on another machine counts as gone
const STALE_PYTHON = 60; // it does not touch, but writes

const host = hostname().replace(/\W/g, '_').slice(0, 40) || 'host';
const tag = randomBytes(4).toString('hex'); // containers may share a host's name, and all have a process 1
const owned = new Set<string>();
let count = 0;

interface Found {
  name: string;
  bytes: number;
  isLive: boolean;
}

/** One process's hold on a partial file. */
export class PartialBlob {
  #file?: FileHandle;
  #timer: NodeJS.Timeout;

  private constructor(
    readonly blobs: string,
    readonly name: string,
    /** Bytes that are in it. */
    public bytes: number,
  ) {
    owned.add(name);
    this.#timer = setInterval(() => void utimes(this.path, new Date(), new Date()).catch(() => {}), 1000 * TOUCH);
    this.#timer.unref();
  }

  get path(): string {
    return join(this.blobs, this.name);
  }

  /** Take over what was left of a blob, or begin; undefined while another is at work on it. */
  static async claim(
    blobs: string,
    etag: string,
    disk: Pick<HubDisk, 'open'> = { open },
  ): Promise<PartialBlob | undefined> {
    const others = await find(blobs, etag);
    if (others.some(({ isLive }) => isLive)) return undefined;
    const partial = new PartialBlob(blobs, `${etag}.${host}-${process.pid}-${tag}-${count++}.incomplete`, 0);
    try {
      const [left, ...smaller] = others.sort((a, b) => b.bytes - a.bytes);
      const taken = left && (await takeOver(join(blobs, left.name), partial.path));
      for (const { name } of smaller) await rm(join(blobs, name), { force: true });
      partial.#file = await disk.open(partial.path, taken ? 'r+' : 'wx+');
      partial.bytes = (await partial.#file.stat()).size;
    } catch (error) {
      await partial.leave();
      throw error;
    }
    // Two that began in the same instant see each other now: the first by name goes on.
    const rivals = (await find(blobs, etag)).filter(({ name, isLive }) => isLive && name < partial.name);
    if (rivals.length === 0) return partial;
    await partial.leave();
    return undefined;
  }

  /** The bytes in it, for their checksum. */
  async *read(): AsyncGenerator<Uint8Array> {
    const buffer = Buffer.allocUnsafe(1 << 20);
    for (let at = 0; at < this.bytes;) {
      const { bytesRead } = await this.#file!.read(buffer, 0, Math.min(buffer.length, this.bytes - at), at);
      if (bytesRead === 0) throw new Error(`cannot read ${this.path}: it ended at byte ${at} while being read`);
      yield buffer.subarray(0, bytesRead);
      at += bytesRead;
    }
  }

  async append(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      const { bytesWritten } = await this.#file!.write(bytes, at, bytes.length - at, this.bytes);
      at += bytesWritten;
      this.bytes += bytesWritten;
    }
  }

  /** Forget all bytes. */
  async clear(): Promise<void> {
    await this.#file!.truncate(0);
    this.bytes = 0;
  }

  /** It is whole: on the disk for good, then under its final name. */
  async become(blob: string): Promise<void> {
    await this.#file!.sync();
    await this.#close();
    await rename(this.path, blob);
  }

  /** Let go; what there is stays for the next one. */
  async leave(): Promise<void> {
    await this.#close();
    if (this.bytes === 0) await rm(this.path, { force: true });
    this.#release();
  }

  async #close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
  }

  #release(): void {
    clearInterval(this.#timer);
    owned.delete(this.name);
  }
}

/** Bytes of a blob that were left by a download that stopped. */
export async function leftBytes(blobs: string, etag: string): Promise<number> {
  return Math.max(0, ...(await find(blobs, etag)).map(({ bytes }) => bytes));
}

async function find(blobs: string, etag: string): Promise<Found[]> {
  const names = await readdir(blobs).catch(() => [] as string[]);
  const known = names.filter(
    (name) => name === `${etag}.incomplete` || (name.startsWith(`${etag}.`) && ours.test(name)),
  );
  const found = await Promise.all(
    known.map(async (name) => {
      const info = await stat(join(blobs, name)).catch(() => undefined); // it may be gone by now
      return info && { name, bytes: info.size, isLive: isLive(name, (Date.now() - info.mtimeMs) / 1000) };
    }),
  );
  return found.filter((one) => one !== undefined);
}

const ours = /\.(\w+)-(\d+)-([0-9a-f]{8})-\d+\.incomplete$/;

/** Whether its owner is still at work. `age`: seconds since it was touched or written. */
function isLive(name: string, age: number): boolean {
  const owner = ours.exec(name);
  if (!owner) return age < STALE_PYTHON;
  const [, itsHost, pid, itsTag] = owner;
  if (itsTag === tag) return owned.has(name);
  if (age > STALE || itsHost !== host || Number(pid) === process.pid) return age <= STALE;
  try {
    return process.kill(Number(pid), 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'; // somebody else's, but alive
  }
}

/** False when another one was quicker. */
async function takeOver(left: string, name: string): Promise<boolean> {
  try {
    await utimes(left, new Date(), new Date()); // before it has our name, or it would look left behind under it too
    await rename(left, name);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
