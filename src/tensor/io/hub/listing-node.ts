/**
 * What files a model has at a commit: as the hub lists them, and as it was once listed, kept in `trees/<commit>.json`
 * in the form of huggingface_hub for Python (version 2 and later). A commit never changes, so neither does its list.
 */
import { mkdir, readFile } from 'node:fs/promises';
import { dirname, resolve, sep } from 'node:path';
import { writeAtomic } from '../files-node.ts';
import { HubError } from './errors-node.ts';

/** A file of a model, as the hub lists it. */
export interface HubFile {
  /** Relative to the model, with slashes. */
  path: string;
  bytes: number;
  /** Name of its blob: sha256 of its bytes (LFS, 64 digits), or git's sha1 (40). */
  etag: string;
  /** git's sha1 of what git itself holds: the file, or the pointer to LFS. */
  oid?: string;
  xetHash?: string;
}

/** An entry of the hub's list. */
export interface ListedFile {
  path: string;
  size: number;
  oid?: string;
  lfs?: { oid: string; size: number };
  xetHash?: string;
}

const sha1 = /^[0-9a-f]{40}$/;
const sha256 = /^[0-9a-f]{64}$/;

/**
 * A file from the server's list. What it says becomes names on this disk, so all of it is looked at.
 * @throws HubError when a path leaves the folder of the model on any system, or a checksum or size is none
 */
export function checkFile(id: string, { path, size, oid, lfs, xetHash }: ListedFile): HubFile {
  const etag = lfs ? lfs.oid : oid;
  const bytes = lfs ? lfs.size : size;
  if (typeof path !== 'string' || !isInside(path))
    throw new HubError(
      `${id}: the server lists a file that would lie outside the model's folder\n  ${JSON.stringify(path)}`,
    );
  if (typeof etag !== 'string' || !(lfs ? sha256 : sha1).test(etag))
    throw new HubError(`${id}: the server lists a file without a checksum\n  ${path}  ${JSON.stringify(etag)}`);
  if (!Number.isSafeInteger(bytes) || bytes < 0)
    throw new HubError(`${id}: the server lists a file of an impossible size\n  ${path}  ${bytes} bytes`);
  return {
    path,
    bytes,
    etag,
    ...(oid && sha1.test(oid) ? { oid } : {}),
    ...(xetHash && sha256.test(xetHash) ? { xetHash } : {}),
  };
}

/** No step upwards, no drive, no root, no name that a disk takes for something else. */
function isInside(path: string): boolean {
  const strange = /[\\:\0]/.test(path) || path.split('/').some((part) => part === '' || part === '.' || part === '..');
  return !strange && resolve('/model', path).startsWith(resolve('/model') + sep);
}

interface Tree {
  format_version: 1;
  files: Record<
    string,
    { size: number; blob_id: string; lfs_sha256?: string; lfs_size?: number; xet_hash?: string | null }
  >;
}

/** The list that was kept; undefined when there is none that can be read. */
export async function readListing(file: string, id: string): Promise<ReadonlyMap<string, HubFile> | undefined> {
  try {
    const tree = JSON.parse(await readFile(file, 'utf8')) as Tree;
    if (tree.format_version !== 1) return undefined;
    return new Map(
      Object.entries(tree.files).map(([path, { size, blob_id: oid, lfs_sha256, lfs_size, xet_hash }]) => {
        const lfs = lfs_sha256 ? { oid: lfs_sha256, size: lfs_size ?? size } : undefined;
        return [path, checkFile(id, { path, size, oid, lfs, xetHash: xet_hash ?? undefined })];
      }),
    );
  } catch {
    return undefined; // the hub can be asked again
  }
}

/** Keep a list, unless a mirror left out what Python wants in it. */
export async function writeListing(file: string, files: ReadonlyMap<string, HubFile>): Promise<void> {
  const tree: Tree = { format_version: 1, files: {} };
  for (const [path, { bytes, etag, oid, xetHash }] of [...files].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (!oid) return;
    const lfs = etag === oid ? {} : { lfs_sha256: etag, lfs_size: bytes };
    tree.files[path] = { size: bytes, blob_id: oid, ...lfs, ...(xetHash ? { xet_hash: xetHash } : {}) };
  }
  await mkdir(dirname(file), { recursive: true });
  await writeAtomic(file, JSON.stringify(tree, undefined, 1));
}
