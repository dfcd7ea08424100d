import { readFile } from 'node:fs/promises';
import { inflateSync } from 'node:zlib';
import sharp from 'sharp';
import { writeAtomic } from '../../tensor/io/files-node.ts';
import { encodePng, type RgbImage } from './image.ts';

/** PNG files that say how they were made, in the `parameters` text that other image tools write and read. */

/** Write one picture; the file appears whole or not at all. */
export async function writePng(path: string, image: RgbImage, parameters?: string): Promise<void> {
  const png = await encodePng(image);
  await writeAtomic(path, parameters === undefined ? png : withPngText(png, 'parameters', parameters));
}

export async function readPng(path: string): Promise<{ image: RgbImage; parameters?: string }> {
  const bytes = await readFile(path);
  const { parameters } = readPngText(bytes);
  try {
    const { data, info } = await sharp(bytes, { failOn: 'truncated' })
      .flatten({ background: 'white' })
      .toColourspace('srgb')
      .raw()
      .toBuffer({ resolveWithObject: true });
    return { image: { width: info.width, height: info.height, data }, parameters };
  } catch (error) {
    throw new Error(`${path}: cannot be read as PNG: ${(error as Error).message.split('\n')[0].trim()}`);
  }
}

/** How a picture was made. */
export interface Parameters {
  prompt: string;
  negativePrompt?: string;
  settings: Record<string, string | number>; // Steps, Sampler, 'CFG scale', Seed, Size, Model, …
}

/**
 *     red apple
 *     Negative prompt: worm
 *     Steps: 1, Sampler: Euler, CFG scale: 1, Seed: 7, Size: 32x32, Model: emoji
 */
export function formatParameters({ prompt, negativePrompt, settings }: Parameters): string {
  const quote = (value: string | number) => (/[,:\n"]/.test(String(value)) ? JSON.stringify(String(value)) : value);
  const last = Object.entries(settings)
    .map(([name, value]) => `${name}: ${quote(value)}`)
    .join(', ');
  return [prompt, ...(negativePrompt ? [`Negative prompt: ${negativePrompt}`] : []), last].join('\n');
}

export function parseParameters(text: string): {
  prompt: string;
  negativePrompt: string;
  settings: Record<string, string>;
} {
  const lines = text.trim().split('\n');
  const settings: Record<string, string> = {};
  if (/^[\w ]+: ("|[^\n]*, [\w ]+: |[^\n,]*$)/.test(lines.at(-1)!) && !lines.at(-1)!.startsWith('Negative prompt:')) {
    for (const [, name, quoted, bare] of lines
      .pop()!
      .matchAll(/\s*([\w ]+):\s*(?:("(?:\\.|[^\\"])*")|([^,]*))(?:,|$)/g)) {
      settings[name] = quoted ? JSON.parse(quoted) : bare.trim();
    }
  }
  const split = lines.findIndex((line) => line.startsWith('Negative prompt:'));
  const prompt = lines.slice(0, split < 0 ? lines.length : split).join('\n');
  const negative =
    split < 0
      ? ''
      : lines
          .slice(split)
          .join('\n')
          .replace(/^Negative prompt:\s*/, '');
  return { prompt, negativePrompt: negative, settings };
}

const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);

/** Adds a text after the header chunk: tEXt where Latin-1 can hold it, else iTXt (UTF-8). PNG 1.2, §4.2.3. */
export function withPngText(png: Buffer, keyword: string, text: string): Buffer {
  const latin1 = /^[\n\x20-\x7E\xA0-\xFF]*$/.test(text);
  const body = latin1
    ? Buffer.from(`${keyword}\0${text}`, 'latin1')
    : Buffer.from(`${keyword}\0\0\0\0\0${text}`, 'utf8');
  const afterHeader = signature.length + 12 + png.readUInt32BE(signature.length);
  return Buffer.concat([
    png.subarray(0, afterHeader),
    chunk(latin1 ? 'tEXt' : 'iTXt', body),
    png.subarray(afterHeader),
  ]);
}

/** All texts of a PNG file by keyword; what follows damage is left out. */
export function readPngText(png: Buffer): Record<string, string> {
  const texts: Record<string, string> = {};
  if (!png.subarray(0, 8).equals(signature)) return texts;
  for (let at = 8; at + 12 <= png.length;) {
    const length = png.readUInt32BE(at);
    const type = png.toString('latin1', at + 4, at + 8);
    const body = png.subarray(at + 8, at + 8 + length);
    at += 12 + length;
    if (at > png.length || type === 'IEND') break;
    if (type !== 'tEXt' && type !== 'zTXt' && type !== 'iTXt') continue;
    const end = body.indexOf(0);
    if (end < 0) continue;
    try {
      texts[body.toString('latin1', 0, end)] = textOf(type, body.subarray(end + 1));
    } catch {
      continue; // compressed text that does not unpack
    }
  }
  return texts;
}

function textOf(type: string, rest: Buffer): string {
  if (type === 'tEXt') return rest.toString('latin1');
  const limit = { maxOutputLength: 1 << 24 };
  if (type === 'zTXt') return inflateSync(rest.subarray(1), limit).toString('latin1');
  const language = rest.indexOf(0, 2),
    translated = rest.indexOf(0, language + 1);
  const text = rest.subarray(translated + 1);
  return (rest[0] === 1 ? inflateSync(text, limit) : text).toString('utf8');
}

function chunk(type: string, body: Buffer): Buffer {
  const typed = Buffer.concat([Buffer.from(type, 'latin1'), body]);
  const out = Buffer.alloc(typed.length + 8);
  out.writeUInt32BE(body.length, 0);
  typed.copy(out, 4);
  out.writeUInt32BE(crc32(typed), typed.length + 4);
  return out;
}

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/** zlib.crc32 is not in every Node 20. */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = crcTable[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
