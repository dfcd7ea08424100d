import { mkdir, readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { writeAtomic } from '../../tensor/io/files-node.ts';

/** Pixels kept in one file: a line of JSON that says what they are, then the bytes. */

/** The bytes under `key`, or undefined when the file is missing, cut short, or about something else. */
export async function readImageCache(file: string, key: string, byteLength: number): Promise<Uint8Array | undefined> {
  const content = await readFile(file).catch(() => undefined);
  const head = header(key, byteLength);
  if (!content || content.length !== head.length + byteLength || !content.subarray(0, head.length).equals(head)) return;
  return content.subarray(head.length);
}

export async function writeImageCache(file: string, key: string, bytes: Uint8Array): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  await writeAtomic(file, [header(key, bytes.length), bytes]);
}

function header(key: string, byteLength: number): Buffer {
  return Buffer.from(`${JSON.stringify({ format: 'rectiflow images', key, byteLength })}\n`);
}
