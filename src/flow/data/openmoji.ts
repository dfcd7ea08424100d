import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import sharp from 'sharp';
import { fromBytes, type CaptionedImages } from './captioned-images.ts';
import { readImageCache, writeImageCache } from './image-cache.ts';
import { popular } from './openmoji-popular.ts';

/** One picture of the npm package `openmoji`. */
export interface OpenMojiEntry {
  id: string; // hexcode, '1F34E'
  emoji: string;
  file: string; // path of the colour SVG
  group: string;
  subgroup: string;
  captions: string[]; // 'red apple', then tags, then 'food fruit', 'food drink'
}

/** 256 well-known pictures, or all. */
export type OpenMojiSet = 'popular' | 'all';

/** Which pictures, how large, and where they are kept. */
export interface OpenMojiOptions {
  size?: number; // pixels on a side: 32 or 64
  set?: OpenMojiSet; // 256 well-known ones, or all (2,465; 4,495 with skin tones)
  skinTones?: boolean; // whether 'all' has the five skin tones of every person and hand
  cacheFolder?: string; // where the pixels are kept between runs
  onProgress?: (done: number, total: number) => void; // after each image
  onWarning?: (message: string) => void; // what was done without
}

const layout = 1; // part of the cache's key: change it when the drawing below changes

/** The captioned pictures of OpenMoji as pixels over white: drawn once, then read from the cache folder. */
export async function loadOpenMoji(options: OpenMojiOptions = {}): Promise<CaptionedImages> {
  const { size = 32, set = 'popular', skinTones = false, cacheFolder = '.cache/rectiflow' } = options;
  const entries = openMojiEntries(set, skinTones);
  const ids = entries.map((entry) => entry.id);
  const key = createHash('sha256')
    .update(JSON.stringify([layout, openMojiVersion(), size, ids]))
    .digest('hex');
  const cacheFile = join(cacheFolder, `openmoji-${size}-${set}-${key.slice(0, 12)}.bin`);
  const pixels = await readImageCache(cacheFile, key, entries.length * size * size * 3);
  const drawn = pixels ?? (await drawAll(entries, size, options.onProgress));
  if (!pixels) {
    // The pictures are in memory: a disk that is full or read-only costs time on the next run, nothing now.
    await writeImageCache(cacheFile, key, drawn).catch((error: Error) =>
      (options.onWarning ?? console.warn)(`openmoji: pictures are not cached: ${error.message}`),
    );
  }
  const captions = entries.map((entry) => entry.captions);
  return { size, channels: 3, images: fromBytes(drawn), captions, ids, attribution: openMojiAttribution() };
}

/** The entries of a set, in OpenMoji's order. */
export function openMojiEntries(set: OpenMojiSet = 'all', skinTones = false): OpenMojiEntry[] {
  const { folder, records } = openMoji();
  const byHexcode = new Map(records.map((record) => [record.hexcode, record]));
  const wanted = set === 'popular' ? new Set(Object.values(popular).join(' ').split(' ').map(plain)) : undefined;
  const chosen = records.filter((record) => (wanted ? wanted.has(plain(record.emoji)) : skinTones || !record.skintone));
  if (wanted && chosen.length !== wanted.size) {
    throw new Error(`openmoji ${openMojiVersion()}: has ${chosen.length} of the ${wanted.size} popular pictures`);
  }
  return chosen.map((record) => {
    const base = byHexcode.get(record.skintone_base_hexcode) ?? record; // skin tones carry no tags of their own
    return {
      id: record.hexcode,
      emoji: record.emoji,
      group: record.group,
      subgroup: record.subgroups,
      file: join(folder, 'color', 'svg', `${record.hexcode}.svg`),
      captions: captionsOf(record, base),
    };
  });
}

/** The credit that CC BY-SA asks for, for the pictures and for weights trained on them. */
export function openMojiAttribution(): string {
  return (
    `Emoji by OpenMoji ${openMojiVersion()} (https://openmoji.org), ` +
    'licence CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/)'
  );
}

export function openMojiVersion(): string {
  return openMoji().version;
}

interface OpenMojiRecord {
  emoji: string;
  hexcode: string;
  group: string;
  subgroups: string;
  annotation: string;
  tags: string;
  openmoji_tags: string;
  skintone: number | '';
  skintone_base_hexcode: string;
}

interface Package {
  folder: string;
  version: string;
  records: OpenMojiRecord[];
}
let loaded: Package | undefined;

function openMoji(): Package {
  if (loaded) return loaded;
  let manifest: string;
  try {
    manifest = createRequire(import.meta.url).resolve('openmoji/package.json');
  } catch {
    throw new Error('openmoji: the npm package is not installed\n  npm install openmoji');
  }
  const folder = dirname(manifest);
  const json = (file: string) => JSON.parse(readFileSync(file, 'utf8'));
  return (loaded = { folder, version: json(manifest).version, records: json(join(folder, 'data', 'openmoji.json')) });
}

/** An emoji without U+FE0F, which asks for colour and which lists spell with or without. */
function plain(emoji: string): string {
  return emoji.replaceAll('\uFE0F', '');
}

function captionsOf(record: OpenMojiRecord, base: OpenMojiRecord): string[] {
  const tags = `${base.tags},${base.openmoji_tags}`.split(',');
  const kinds = [base.subgroups, base.group].filter((kind) => !/^(extras|symbol-other|other)/.test(kind));
  const captions = [record.annotation, ...tags, ...kinds.map((kind) => kind.replaceAll('-', ' '))].map(clean);
  return [...new Set(captions.filter((caption) => caption !== ''))];
}

/** 'waving hand: medium-light skin tone' → 'waving hand medium-light skin tone' */
function clean(caption: string): string {
  return caption
    .toLowerCase()
    .replaceAll('’', "'")
    .replace(/[:“”,]/g, ' ')
    .replace(/\s+/g, ' ')
    .trim();
}

async function drawAll(entries: OpenMojiEntry[], size: number, onProgress?: OpenMojiOptions['onProgress']) {
  const pixels = new Uint8Array(entries.length * size * size * 3);
  let next = 0,
    done = 0;
  const worker = async () => {
    while (next < entries.length) {
      const i = next++;
      pixels.set(await drawSvg(await readFile(entries[i].file), size), i * size * size * 3);
      onProgress?.(++done, entries.length);
    }
  };
  await Promise.all(Array.from({ length: 4 }, worker));
  return pixels;
}

const oversampling = 4; // pixels per unit of the 72 × 72 canvas while looking for the edges
const smallest = 36; // a drawing smaller than half the canvas keeps looking small

/**
 * SVG → [size, size, 3] over white. OpenMoji leaves a margin of about a sixth: the crop is the smallest square around what
 * is drawn, plus 1/32 of the frame on each side.
 */
export async function drawSvg(svg: Buffer, size: number): Promise<Uint8Array> {
  const { data, info } = await sharp(svg, { density: 72 * oversampling })
    .ensureAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true });
  const box = inkBox(data, info.width, info.height);
  const side = Math.round((Math.max(box.right - box.left, box.bottom - box.top, smallest * oversampling) * 32) / 30);
  const left = Math.round((box.left + box.right - side) / 2);
  const top = Math.round((box.top + box.bottom - side) / 2);
  const pad = Math.max(0, -left, -top, left + side - info.width, top + side - info.height);
  const padded = await sharp(data, { raw: { width: info.width, height: info.height, channels: 4 } })
    .flatten({ background: 'white' })
    .extend({ top: pad, bottom: pad, left: pad, right: pad, background: 'white' })
    .raw()
    .toBuffer();
  return sharp(padded, { raw: { width: info.width + 2 * pad, height: info.height + 2 * pad, channels: 3 } })
    .extract({ left: left + pad, top: top + pad, width: side, height: side })
    .resize(size, size, { kernel: 'mitchell' })
    .raw()
    .toBuffer();
}

function inkBox(rgba: Uint8Array, width: number, height: number) {
  const box = { left: width, top: height, right: 0, bottom: 0 };
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (rgba[4 * (y * width + x) + 3] < 16) continue;
      if (x < box.left) box.left = x;
      if (x >= box.right) box.right = x + 1;
      if (y < box.top) box.top = y;
      box.bottom = y + 1;
    }
  }
  return box.right > 0 ? box : { left: 0, top: 0, right: width, bottom: height }; // nothing drawn
}
