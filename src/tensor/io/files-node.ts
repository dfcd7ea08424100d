/** Files of tensors on disk (Node only): partial reads, and writes that never leave half a file behind. */
import { randomUUID } from 'node:crypto';
import { open, readFile, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { dirname, basename, join } from 'node:path';
import type { Bytes } from './bytes.ts';
import { decodeFloat32, safetensorsChunks, type Header, type HostTensor } from './safetensors.ts';
import { readSafetensorsHeader } from './safetensors-source.ts';

/** The calls that writing needs; a test replaces them by a full disk. */
export interface Disk {
  /** As in node:fs/promises. */
  open(path: string, flags: string): Promise<FileHandle>;
  /** As in node:fs/promises. */
  rename(from: string, to: string): Promise<void>;
  /** As in node:fs/promises. */
  rm(path: string, options: { force: boolean }): Promise<void>;
}

/** Is there a file or folder? */
export const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

/** The bytes of a file, or an error that says which file and why. */
export async function readBytes(path: string): Promise<Uint8Array> {
  try {
    return new Uint8Array(await readFile(path));
  } catch (error) {
    throw explain(error, `cannot read ${path}`);
  }
}

/** Header of a safetensors file; reads nothing else. */
export async function readHeader(path: string): Promise<Header> {
  return withFile(path, readSafetensorsHeader);
}

/** Tensors of a safetensors file as f32: all, or those that `wanted` accepts; only their bytes are read. */
export async function readTensors(
  path: string,
  wanted: (name: string) => boolean = () => true,
): Promise<{ tensors: Record<string, HostTensor>; metadata: Record<string, string> }> {
  return withFile(path, async (file) => {
    const { entries, metadata } = await readSafetensorsHeader(file);
    const tensors: Record<string, HostTensor> = {};
    for (const [name, entry] of entries) {
      if (!wanted(name)) continue;
      tensors[name] = decodeFloat32(name, entry, await file.read(entry.begin, entry.end - entry.begin));
    }
    return { tensors, metadata };
  });
}

/** Write a safetensors file in one step: readers see the old file or the whole new one. */
export async function writeTensors(
  path: string,
  tensors: Record<string, HostTensor>,
  metadata: Record<string, string> = {},
): Promise<void> {
  await writeAtomic(path, safetensorsChunks(tensors, metadata));
}

/**
 * Write beside the target, flush to disk, then rename over it. If anything fails (a full disk, say) the new file is
 * removed and the old one is untouched.
 */
export async function writeAtomic(
  path: string,
  chunks: string | Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  disk: Disk = { open, rename, rm },
): Promise<void> {
  const beside = join(dirname(path), `.${basename(path)}.${randomUUID()}.part`); // of this write alone
  const parts =
    typeof chunks === 'string' ? [new TextEncoder().encode(chunks)] : chunks instanceof Uint8Array ? [chunks] : chunks;
  let file: FileHandle | undefined;
  try {
    file = await disk.open(beside, 'w');
    for await (const part of parts) await writeAll(file, part);
    await file.sync();
    await file.close();
    file = undefined;
    await disk.rename(beside, path);
    await syncFolder(dirname(path), disk);
  } catch (error) {
    await file?.close().catch(() => {});
    await disk.rm(beside, { force: true }).catch(() => {});
    throw explain(error, `cannot write ${path}`);
  }
}

async function writeAll(file: FileHandle, part: Uint8Array): Promise<void> {
  const piece = 64 << 20; // one write call may take 2 GiB at most
  for (let at = 0; at < part.length;) {
    const { bytesWritten } = await file.write(part, at, Math.min(piece, part.length - at));
    at += bytesWritten;
  }
}

/** Make a rename in it durable; folders cannot be opened on Windows, where it is not needed. */
export async function syncFolder(folder: string, disk: Pick<Disk, 'open'> = { open }): Promise<void> {
  if (process.platform === 'win32') return;
  const handle = await disk.open(folder, 'r').catch(() => undefined);
  await handle?.sync().catch(() => {});
  await handle?.close();
}

/** A file that is read by ranges. @throws when it cannot be opened, saying why */
export async function openBytes(path: string): Promise<Bytes> {
  let file: FileHandle | undefined;
  try {
    file = await open(path, 'r');
    const info = await file.stat();
    if (info.isDirectory()) throw Object.assign(new Error(), { code: 'EISDIR' });
    return fileBytes(file, info.size, path);
  } catch (error) {
    await file?.close();
    throw explain(error, `cannot read ${path}`);
  }
}

function fileBytes(file: FileHandle, size: number, path: string): Bytes {
  return {
    name: path,
    size,
    async read(begin, length) {
      const bytes = new Uint8Array(length);
      for (let at = 0; at < length;) {
        const { bytesRead } = await file.read(bytes, at, Math.min(1 << 30, length - at), begin + at);
        if (bytesRead === 0) throw new Error(`cannot read ${path}: it ended at byte ${begin + at} while being read`);
        at += bytesRead;
      }
      return bytes;
    },
    close: () => file.close(),
  };
}

async function withFile<T>(path: string, use: (file: Bytes) => Promise<T>): Promise<T> {
  const file = await openBytes(path);
  try {
    return await use(file);
  } finally {
    await file.close();
  }
}

const reasons: Record<string, string> = {
  ENOENT: 'no such file or folder',
  EISDIR: 'it is a folder',
  ENOTDIR: 'part of the path is not a folder',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EROFS: 'the disk is read-only',
  ENOSPC: 'the disk is full; nothing was changed, free some space and try again',
  EDQUOT: 'the disk quota is used up; nothing was changed, free some space and try again',
};

function explain(error: unknown, what: string): Error {
  const code = (error as NodeJS.ErrnoException).code;
  const reason = (code && reasons[code]) ?? (error as Error).message;
  return Object.assign(new Error(`${what}: ${reason}`, { cause: error }), { code });
}
