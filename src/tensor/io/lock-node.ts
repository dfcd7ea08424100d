/** Lock files (Node only): who has one is alone, until it is done or dead. Works between machines that share a folder. */
import { randomUUID } from 'node:crypto';
import { readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';

/** Somebody else has the lock. */
export class LockedError extends Error {
  override name = 'LockedError';
  constructor(
    message: string,
    /** Who: process and machine. */
    readonly owner: string,
  ) {
    super(message);
  }
}

interface Owner {
  pid: number;
  host: string;
  token: string;
}

/** The owner touches its file so often, */
const BEAT = 30_000;
/** and counts as dead when it has not for so long. */
const DEAD = 600_000;
/** A file that says nothing is one that is just being written, for so long. */
const NEW = 10_000;

/** Tokens of the locks that this process has. */
const held = new Set<string>();

/**
 * Take a lock by creating a file. A file that a dead process left is taken over, which `onTakeover` is told.
 * @returns what gives the lock back
 * @throws LockedError when a living process has it
 */
export async function lock(path: string, onTakeover: (owner: string) => void = () => {}): Promise<() => Promise<void>> {
  const own: Owner = { pid: process.pid, host: hostname(), token: randomUUID() };
  const create = () => writeFile(path, JSON.stringify(own), { flag: 'wx' });
  const taken = (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
    return true;
  };
  if (await create().then(() => false, taken)) {
    const owner = await ownerOf(path);
    if (await lives(owner, path)) throw locked(path, owner);
    await rm(path, { force: true });
    if (await create().then(() => false, taken)) throw locked(path, await ownerOf(path));
    // Another may have found the same dead owner and removed our file for its own.
    await new Promise((resolve) => setTimeout(resolve, 50));
    const now = await ownerOf(path);
    if (now?.token !== own.token) throw locked(path, now);
    onTakeover(describe(owner));
  }
  held.add(own.token);
  const beat = setInterval(() => void utimes(path, new Date(), new Date()).catch(() => {}), BEAT);
  beat.unref();
  return async () => {
    clearInterval(beat);
    held.delete(own.token);
    await rm(path, { force: true });
  };
}

async function ownerOf(path: string): Promise<Owner | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Owner;
  } catch {
    return undefined;
  }
}

async function lives(owner: Owner | undefined, path: string): Promise<boolean> {
  const age = await stat(path).then(
    ({ mtimeMs }) => Date.now() - mtimeMs,
    () => Infinity,
  );
  if (!owner) return age < NEW;
  if (age > DEAD) return false;
  if (owner.host !== hostname()) return true;
  if (owner.pid === process.pid) return held.has(owner.token); // a container that starts again has the same numbers
  try {
    process.kill(owner.pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'; // it lives, and belongs to another user
  }
}

function locked(path: string, owner?: Owner): LockedError {
  const who = describe(owner);
  return new LockedError(`${path}: ${who} has this lock`, who);
}

const describe = (owner?: Owner): string => (owner ? `process ${owner.pid} on ${owner.host}` : 'another process');
