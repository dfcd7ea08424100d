/**
 * The directory of a zip archive whose entries are stored as they are, as `torch.save` writes them. Entries are checked
 * against the size of the file and against each other; nothing is unpacked.
 *
 *     entries              30 bytes + name + extra, then the data
 *     central directory    46 bytes + name + extra + comment for each entry
 *     [zip64 end, 56 bytes, and its locator, 20 bytes]
 *     end                  22 bytes + comment
 *
 * @see PKWARE, .ZIP File Format Specification 6.3.10, §4.3. https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
 */
import { shown, viewOf, type Bytes } from './bytes.ts';

/** Where an entry is. */
export interface ZipEntry {
  name: string;
  /** Of its own header, bytes from the start of the file. */
  at: number;
  /** Bytes of data. */
  size: number;
}

export class ZipError extends Error {
  override name = 'ZipError';
}

const LOCAL = 0x04034b50,
  CENTRAL = 0x02014b50,
  END = 0x06054b50,
  END64 = 0x06064b50,
  LOCATOR = 0x07064b50;

/** All entries by name, in the order of the directory. */
export async function readZip(file: Bytes): Promise<Map<string, ZipEntry>> {
  const { begin, size, count } = await findDirectory(file);
  const bytes = await file.read(begin, size);
  const entries = new Map<string, ZipEntry>();
  for (let at = 0, i = 0; i < count; i++) {
    const { entry, next } = centralEntry(file, bytes, at, begin);
    if (entries.has(entry.name)) fail(file, `two entries are called ${shown(entry.name)}`);
    entries.set(entry.name, entry);
    at = next;
  }
  checkOverlap(file, entries, begin);
  return entries;
}

/** Where the data of an entry begins, from the header in front of it. */
export async function dataStart(file: Bytes, { name, at, size }: ZipEntry): Promise<number> {
  const view = viewOf(await file.read(at, 30));
  if (view.getUint32(0, true) !== LOCAL) fail(file, `no header of ${shown(name)} at byte ${at}`);
  const begin = at + 30 + view.getUint16(26, true) + view.getUint16(28, true);
  if (begin + size > file.size) {
    fail(file, `${shown(name)} ends at byte ${begin + size} and the file at ${file.size}`);
  }
  return begin;
}

/** The end record: last in the file but for a comment of up to 65,535 bytes. */
async function findDirectory(file: Bytes): Promise<{ begin: number; size: number; count: number }> {
  const length = Math.min(file.size, 22 + 65535);
  const tail = await file.read(file.size - length, length);
  const view = viewOf(tail);
  let at = length - 22;
  while (at >= 0 && !(view.getUint32(at, true) === END && at + 22 + view.getUint16(at + 20, true) === length)) at--;
  if (at < 0) fail(file, 'truncated: a zip archive without its directory, which is at the end');
  const end = file.size - length + at;
  const found =
    at >= 20 && view.getUint32(at - 20, true) === LOCATOR
      ? await readEnd64(file, whole(file, view.getBigUint64(at - 12, true)), end)
      : {
          count: view.getUint16(at + 10, true),
          size: view.getUint32(at + 12, true),
          begin: view.getUint32(at + 16, true),
        };
  const { begin, size, count } = found;
  if (begin + size > end) fail(file, `its directory is at bytes ${begin}…${begin + size}, its end at ${end}`);
  if (count * 46 > size) fail(file, `its directory has ${size} bytes, too few for ${count} entries`);
  return found;
}

async function readEnd64(
  file: Bytes,
  at: number,
  end: number,
): Promise<{ begin: number; size: number; count: number }> {
  if (at + 56 > end) fail(file, `its zip64 end is at byte ${at}, its end at ${end}`);
  const view = viewOf(await file.read(at, 56));
  if (view.getUint32(0, true) !== END64) fail(file, `no zip64 end at byte ${at}`);
  const number = (offset: number) => whole(file, view.getBigUint64(offset, true));
  return { count: number(32), size: number(40), begin: number(48) };
}

function centralEntry(file: Bytes, bytes: Uint8Array, at: number, end: number): { entry: ZipEntry; next: number } {
  const view = viewOf(bytes);
  if (at + 46 > bytes.length || view.getUint32(at, true) !== CENTRAL) fail(file, 'its directory is damaged');
  const [flags, method] = [view.getUint16(at + 8, true), view.getUint16(at + 10, true)];
  const nameEnd = at + 46 + view.getUint16(at + 28, true);
  const extraEnd = nameEnd + view.getUint16(at + 30, true);
  const next = extraEnd + view.getUint16(at + 32, true);
  if (next > bytes.length) fail(file, 'its directory is damaged: a name reaches beyond it');
  const name = new TextDecoder().decode(bytes.subarray(at + 46, nameEnd));
  if (flags & 1) fail(file, `${shown(name)} is encrypted`);
  if (method !== 0)
    fail(file, `${shown(name)} is compressed (method ${method})\n  torch.save stores entries as they are`);
  const sizes = [view.getUint32(at + 24, true), view.getUint32(at + 20, true), view.getUint32(at + 42, true)];
  const [size, packed, header] = wideSizes(file, view, nameEnd, extraEnd, sizes);
  if (packed !== size) fail(file, `${shown(name)} is stored as it is, yet takes ${packed} bytes for ${size}`);
  if (header + 30 + (nameEnd - at - 46) + size > end) {
    fail(file, `truncated: ${shown(name)} of ${size} bytes at byte ${header} reaches beyond ${end}`);
  }
  return { entry: { name, at: header, size }, next };
}

/** Sizes that are 0xffffffff stand in the zip64 extra field, in this order. */
function wideSizes(file: Bytes, view: DataView, begin: number, end: number, sizes: number[]): number[] {
  if (!sizes.includes(0xffffffff)) return sizes;
  let at = begin;
  while (at + 4 <= end && view.getUint16(at, true) !== 1) at += 4 + view.getUint16(at + 2, true);
  const last = Math.min(end, at + 4 + (at + 4 <= end ? view.getUint16(at + 2, true) : 0));
  at += 4;
  return sizes.map((size) => {
    if (size !== 0xffffffff) return size;
    if (at + 8 > last) fail(file, 'its directory is damaged: a zip64 size is missing');
    at += 8;
    return whole(file, view.getBigUint64(at - 8, true));
  });
}

function checkOverlap(file: Bytes, entries: Map<string, ZipEntry>, end: number): void {
  const sorted = [...entries.values()].sort((a, b) => a.at - b.at);
  for (const [i, { name, at, size }] of sorted.entries()) {
    const next = sorted[i + 1]?.at ?? end;
    if (at + 30 + size > next) fail(file, `${shown(name)} overlaps ${shown(sorted[i + 1]?.name ?? 'the directory')}`);
  }
}

function whole(file: Bytes, value: bigint): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) fail(file, `a size of ${value} bytes is impossible`);
  return Number(value);
}

function fail(file: Bytes, message: string): never {
  throw new ZipError(`${file.name}: ${message}`);
}
