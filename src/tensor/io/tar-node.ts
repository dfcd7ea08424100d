/** Tar archives (Node only): written piece by piece with nothing in them that depends on when or by whom, and read with offsets. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { extract, pack } from 'tar-stream';

/** One file of an archive. */
export interface TarFile {
  name: string;
  data: Uint8Array;
}

/** What an archive ends with. */
export const tarEnd = new Uint8Array(1024);

/** Files as the part of an archive that they take up; parts one behind the other, then `tarEnd`, are an archive. */
export async function tarPart(files: readonly TarFile[]): Promise<Uint8Array> {
  const packing = pack();
  const fixed = { mode: 0o644, mtime: new Date(0), uid: 0, gid: 0, type: 'file' as const };
  for (const { name, data } of files) packing.entry({ ...fixed, name, size: data.length }, Buffer.from(data));
  packing.finalize();
  const chunks: Uint8Array[] = [];
  for await (const chunk of packing) chunks.push(chunk as Uint8Array);
  return Buffer.concat(chunks).subarray(0, -tarEnd.length);
}

/** A file in an archive, and where it lies. */
export interface TarEntry {
  name: string;
  /** Of the first byte of its data, from the start of the archive. */
  offset: number;
  size: number;
  /** Only of the files that were wanted. */
  data?: Buffer;
}

/** Where the next file begins: data is filled up to whole blocks of 512 bytes. */
export const tarNext = ({ offset, size }: TarEntry): number => offset + 512 * Math.ceil(size / 512);

/**
 * The files of an archive in their order, with the data of those that are `wanted`, and the archive's sha256. Where it is cut
 * short or damaged, the files before that, and `whole` is false.
 */
export async function readTar(
  path: string,
  wanted: (name: string) => boolean,
): Promise<{ entries: TarEntry[]; sha256: string; bytes: number; whole: boolean }> {
  const entries: TarEntry[] = [];
  const hash = createHash('sha256');
  let bytes = 0;
  const reading = extract();
  const input = createReadStream(path, { highWaterMark: 1 << 20 });
  input.on('data', (chunk) => {
    hash.update(chunk);
    bytes += chunk.length;
  });
  const ended = new Promise<void>((resolve, reject) => input.once('close', resolve).once('error', reject));
  ended.catch(() => {}); // awaited below
  input.once('error', (error) => reading.destroy(error));
  input.pipe(reading as unknown as NodeJS.WritableStream);
  let whole = true;
  try {
    for await (const entry of reading) {
      const { name, size } = entry.header;
      const kept: Buffer[] = [];
      if (wanted(name)) for await (const chunk of entry) kept.push(chunk as Buffer);
      else entry.resume();
      entries.push({ name, offset: entry.offset + 512, size, ...(wanted(name) ? { data: Buffer.concat(kept) } : {}) });
    }
  } catch {
    whole = false;
    input.unpipe();
    input.resume(); // the rest is for the hash
  }
  await ended;
  const fits = entries.filter((entry) => entry.offset + entry.size <= bytes);
  return { entries: fits, sha256: hash.digest('hex'), bytes, whole: whole && fits.length === entries.length };
}
