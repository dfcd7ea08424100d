/**
 * The cache that huggingface_hub for Python keeps, one folder for each model:
 *
 *     models--owner--name/blobs/<etag>                  the bytes, under their sha256 (LFS) or git-sha1 (small files)
 *                         snapshots/<commit>/<path>     a link to a blob: the model as its authors see it
 *                         refs/<revision>               the commit that a branch or tag stood at
 *
 * @see https://huggingface.co/docs/huggingface_hub/guides/manage-cache
 */
import { randomUUID } from 'node:crypto';
import { copyFile, link, mkdir, readdir, readFile, readlink, rename, rm, stat, symlink } from 'node:fs/promises';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { writeAtomic } from '../files-node.ts';
import { HubError } from './errors-node.ts';

/** The calls that links need; a test replaces them by a disk that has none. */
export interface LinkingDisk {
  symlink(target: string, path: string): Promise<void>;
  link(target: string, path: string): Promise<void>;
}

/** A file of a model, as the hub lists it. */
export interface HubFile {
  /** Relative to the model, with slashes. */
  path: string;
  bytes: number;
  /** Name of its blob: sha256 of its bytes (64 digits), or git's sha1 (40). */
  etag: string;
}

const commitPattern = /^[0-9a-f]{40}$/;

/** One model's folder in the cache. */
export class CachedModel {
  readonly folder: string;

  constructor(cache: string, id: string) {
    this.folder = join(cache, `models--${id.replace('/', '--')}`);
  }

  get blobs(): string {
    return join(this.folder, 'blobs');
  }

  snapshot(commit: string): string {
    return join(this.folder, 'snapshots', commit);
  }

  /** The commit that a revision stood at when it was last downloaded. */
  async commitOf(revision: string): Promise<string | undefined> {
    if (commitPattern.test(revision)) return revision;
    const text = await readFile(join(this.folder, 'refs', revision), 'utf8').catch(() => '');
    return commitPattern.test(text.trim()) ? text.trim() : undefined;
  }

  /** Note where a revision stands; a commit is its own name. */
  async setCommit(revision: string, commit: string): Promise<void> {
    if (revision === commit) return;
    const ref = join(this.folder, 'refs', revision);
    await mkdir(dirname(ref), { recursive: true });
    if ((await this.commitOf(revision)) !== commit) await writeAtomic(ref, commit);
  }

  /** The files of a snapshot that are there, not only linked. */
  async files(commit: string): Promise<string[]> {
    const folder = this.snapshot(commit);
    const entries = await readdir(folder, { recursive: true }).catch(() => [] as string[]);
    const isFile = (entry: string) =>
      stat(join(folder, entry)).then(
        (info) => info.isFile(),
        () => false,
      );
    const there = await Promise.all(entries.map(isFile));
    return entries.filter((_, i) => there[i]).map((entry) => entry.split(sep).join('/'));
  }

  /** Whether a file is in a snapshot, whole. */
  async has(commit: string, { path, bytes }: HubFile): Promise<boolean> {
    return (await sizeOf(join(this.snapshot(commit), path))) === bytes;
  }

  async hasBlob({ etag, bytes }: HubFile): Promise<boolean> {
    return (await sizeOf(join(this.blobs, etag))) === bytes;
  }

  /** Make a blob appear in a snapshot: a symbolic link, else a hard one, else a copy. */
  async link(commit: string, { path, etag }: HubFile, disk: LinkingDisk = { symlink, link }): Promise<void> {
    const blob = join(this.blobs, etag);
    const pointer = join(this.snapshot(commit), path);
    const target = relative(dirname(pointer), blob);
    if ((await readlink(pointer).catch(() => '')) === target) return;
    await mkdir(dirname(pointer), { recursive: true });
    const beside = `${blob}.${randomUUID()}.part`; // not in the snapshot, where it would look like a file of the model
    try {
      await disk
        .symlink(target, beside)
        .catch(() => disk.link(blob, beside))
        .catch(() => copyFile(blob, beside));
      await rename(beside, pointer);
    } finally {
      await rm(beside, { force: true });
    }
  }
}

const sizeOf = (path: string): Promise<number | undefined> =>
  stat(path).then(
    (info) => (info.isFile() ? info.size : undefined),
    () => undefined,
  );

/** @throws HubError when the server names a commit that is none */
export function checkCommit(id: string, commit: unknown): string {
  if (typeof commit === 'string' && commitPattern.test(commit)) return commit;
  throw new HubError(`${id}: the server names a commit that is none\n  ${JSON.stringify(commit)}`);
}

/**
 * A file from the server's list. What it says becomes names on this disk, so all of it is looked at.
 * @throws HubError when a path leaves the folder of the model on any system, or a checksum or size is none
 */
export function checkFile(
  id: string,
  entry: { path: string; size: number; oid?: string; lfs?: { oid: string; size: number } },
): HubFile {
  const { path } = entry;
  const etag = entry.lfs?.oid ?? entry.oid;
  const bytes = entry.lfs?.size ?? entry.size;
  if (typeof path !== 'string' || !isInside(path))
    throw new HubError(
      `${id}: the server lists a file that would lie outside the model's folder\n  ${JSON.stringify(path)}`,
    );
  if (typeof etag !== 'string' || !(entry.lfs ? /^[0-9a-f]{64}$/ : commitPattern).test(etag))
    throw new HubError(`${id}: the server lists a file without a checksum\n  ${path}  ${JSON.stringify(etag)}`);
  if (!Number.isSafeInteger(bytes) || bytes < 0)
    throw new HubError(`${id}: the server lists a file of an impossible size\n  ${path}  ${bytes} bytes`);
  return { path, bytes, etag };
}

/** No step upwards, no drive, no root, no name that a disk takes for something else. */
function isInside(path: string): boolean {
  const strange = /[\\:\0]/.test(path) || path.split('/').some((part) => part === '' || part === '.' || part === '..');
  return !strange && resolve('/model', path).startsWith(resolve('/model') + sep);
}
