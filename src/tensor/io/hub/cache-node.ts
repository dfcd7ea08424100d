/**
 * The cache that huggingface_hub for Python keeps, one folder for each model:
 *
 *     models--owner--name/blobs/<etag>                  the bytes, under their sha256 (LFS) or git-sha1 (small files)
 *                         snapshots/<commit>/<path>     a link to a blob: the model as its authors see it
 *                         refs/<revision>               the commit that a branch or tag stood at
 *                         trees/<commit>.json           what files there are, here or not
 *
 * @see https://huggingface.co/docs/huggingface_hub/guides/manage-cache
 */
import { randomUUID } from 'node:crypto';
import {
  copyFile,
  link,
  mkdir,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { dirname, join, relative, sep } from 'node:path';
import { HubError } from './errors-node.ts';
import { readListing, writeListing } from './listing-node.ts';
import type { HubFile } from './listing-node.ts';

/** The calls that a test replaces by a disk that is full or knows no links. */
export interface HubDisk {
  /** As of node:fs/promises. */
  open(path: string, flags: string): Promise<FileHandle>;
  /** Likewise. */
  symlink(target: string, path: string): Promise<void>;
  /** Likewise: a hard link. */
  link(target: string, path: string): Promise<void>;
}

const commitPattern = /^[0-9a-f]{40}$/;

/** One model's folder in the cache. */
export class CachedModel {
  readonly folder: string;

  constructor(
    cache: string,
    readonly id: string,
  ) {
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
    if ((await this.commitOf(revision)) === commit) return;
    const beside = join(this.folder, `${randomUUID()}.part`); // in refs Python would take it for a branch
    await writeFile(beside, commit);
    await rename(beside, ref);
  }

  /** All files of a commit, here or not, as they were listed when it was last looked at. */
  async listing(commit: string): Promise<ReadonlyMap<string, HubFile> | undefined> {
    return readListing(this.#tree(commit), this.id);
  }

  async keepListing(commit: string, files: ReadonlyMap<string, HubFile>): Promise<void> {
    if (!(await this.listing(commit))) await writeListing(this.#tree(commit), files);
  }

  #tree(commit: string): string {
    return join(this.folder, 'trees', `${commit}.json`);
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
  async link(
    commit: string,
    { path, etag }: HubFile,
    disk: Pick<HubDisk, 'symlink' | 'link'> = { symlink, link },
  ): Promise<void> {
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
