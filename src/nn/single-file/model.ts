/** Single-file checkpoints ↔ the parts of a diffusers folder, as views: nothing is read before it is asked for. */
import { dtypeBytes } from '../../tensor/io/safetensors.ts';
import {
  locate,
  renamed,
  WeightsError,
  type Rows,
  type WeightInfo,
  type WeightSource,
} from '../../tensor/io/weights.ts';
import { clipKeys, openClipKeys } from './clip.ts';
import type { KeyMap, KeyRow } from './rows.ts';
import { unetKeys } from './unet.ts';
import { currentVaeKey, vaeKeys } from './vae.ts';

/** Folders of a diffusers model that hold weights of the generator. */
export type PartName = 'unet' | 'vae' | 'text_encoder' | 'text_encoder_2';

/** Weights by part, with the keys of diffusers. */
export type Parts = Partial<Record<PartName, WeightSource>>;

/** Families of models that have a single-file layout here. */
export type Family = 'sd1' | 'sdxl' | 'sdxl-refiner';

interface Place {
  prefix: string;
  map: KeyMap;
}

const unet = { prefix: 'model.diffusion_model.', map: unetKeys };
const vae = { prefix: 'first_stage_model.', map: vaeKeys };

/** Where the parts of each family are in a single file. The first family whose text encoder is there is it. */
export const families: Record<Family, Partial<Record<PartName, Place>>> = {
  sd1: { unet, vae, text_encoder: { prefix: 'cond_stage_model.transformer.', map: clipKeys } },
  sdxl: {
    unet,
    vae,
    text_encoder: { prefix: 'conditioner.embedders.0.transformer.', map: clipKeys },
    text_encoder_2: { prefix: 'conditioner.embedders.1.model.', map: openClipKeys },
  },
  'sdxl-refiner': { unet, vae, text_encoder_2: { prefix: 'conditioner.embedders.0.model.', map: openClipKeys } },
};

/** The family of a model, by its text encoders. */
export const familyOf = (parts: Parts): Family =>
  !parts.text_encoder_2 ? 'sd1' : parts.text_encoder ? 'sdxl' : 'sdxl-refiner';

/** Does a source have the keys of a whole model in one file? */
export const isSingleFile = ({ entries }: WeightSource): boolean =>
  [...entries.keys()].some((key) => key.startsWith(unet.prefix));

/**
 * The parts of a single file. `left` are keys that belong to none: averages, tables, logit_scale.
 * @throws WeightsError when it is no model of a family that we have
 */
export function splitSingleFile(source: WeightSource): { family: Family; parts: Parts; left: string[] } {
  const keys = [...source.entries.keys()];
  const has = (prefix: string) => keys.some((key) => key.startsWith(prefix));
  const places = (family: Family) => Object.entries(families[family]) as [PartName, Place][];
  const family = (Object.keys(families) as Family[]).find((name) =>
    places(name).every(([part, { prefix }]) => !part.startsWith('text') || has(prefix)),
  );
  if (!family || !has(unet.prefix)) throw unknownFile(source, has('cond_stage_model.model.'));
  const used = new Set<string>();
  const parts: Parts = {};
  for (const [part, { prefix, map }] of places(family)) {
    const rows = map.fromSingle(keys.flatMap((key) => (key.startsWith(prefix) ? [key.slice(prefix.length)] : [])));
    if (rows.length === 0) continue;
    for (const { single } of rows) used.add(prefix + single);
    parts[part] = partView(source, prefix, rows);
  }
  return { family, parts, left: keys.filter((key) => !used.has(key)) };
}

function unknownFile(source: WeightSource, isSD2: boolean): WeightsError {
  const keys = [...source.entries.keys()].slice(0, 3).join(', ');
  return new WeightsError(
    isSD2
      ? `${source.name}: a Stable Diffusion 2 checkpoint, which is not read here\n  SD 1.x, SDXL and its refiner are`
      : `${source.name}: not a whole model in one file\n  its keys: ${keys}, …\n  wanted: ${unet.prefix}…, ${vae.prefix}…, and a text encoder`,
  );
}

/**
 * A single file of the parts of a diffusers model; which family follows from the text encoders that are there. `left` are
 * keys, with their part in front, that have no place in a single file.
 * @throws WeightsError when parts are missing, or a third of a fused matrix is
 */
export function joinSingleFile(name: string, parts: Parts): { family: Family; source: WeightSource; left: string[] } {
  const family = familyOf(parts);
  const left: string[] = [];
  const rows = new Map<string, { part: WeightSource; rows: KeyRow[] }>();
  for (const [part, { prefix, map }] of Object.entries(families[family]) as [PartName, Place][]) {
    const source = parts[part];
    if (!source)
      throw new WeightsError(`${name}: a single file needs ${part}\n  found: ${Object.keys(parts).join(', ')}`);
    const keys = [...source.entries.keys()];
    const found = map.fromDiffusers(keys);
    if (found.length === 0)
      throw new WeightsError(
        `${name}: no key of its ${part} has a place in a single file\n  its keys: ${keys.slice(0, 3).join(', ')}, …\n  write a folder`,
      );
    const known = new Set(found.map(({ diffusers }) => diffusers));
    left.push(...keys.filter((key) => !known.has(key)).map((key) => `${part}: ${key}`));
    for (const row of found) {
      const group = rows.get(prefix + row.single) ?? { part: source, rows: [] };
      group.rows.push(row);
      rows.set(prefix + row.single, group);
    }
  }
  return { family, source: joinedView(name, rows, parts), left };
}

/** A part of a diffusers folder with the keys that diffusers gives it today. */
export function currentKeys(part: string, source: WeightSource): WeightSource {
  if (part !== 'vae') return source;
  return renamed(source, new Map([...source.entries.keys()].map((key) => [currentVaeKey(key), key])));
}

/** Part of a single file, with the keys and shapes of diffusers. */
export function partView(source: WeightSource, prefix: string, rows: KeyRow[]): WeightSource {
  const byKey = new Map(rows.map((row) => [row.diffusers, row]));
  const view: WeightSource = {
    name: source.name,
    metadata: {},
    entries: new Map(rows.map((row) => [row.diffusers, split(locate(source, prefix + row.single).info, row)])),
    async read(key, range) {
      const { info, begin, end } = locate(view, key, range);
      const { single, op } = byKey.get(key)!;
      if (op === 'transpose') return transposed(await source.read(prefix + single), info).slice(begin, end);
      if (typeof op !== 'object') return source.read(prefix + single, range);
      const count = info.shape[0];
      const [from, to] = range ?? [0, count];
      return source.read(prefix + single, [op.third * count + from, op.third * count + to]);
    },
    close: () => source.close(),
  };
  return view;
}

/** Parts as one file, with its keys and shapes. */
function joinedView(
  name: string,
  rows: Map<string, { part: WeightSource; rows: KeyRow[] }>,
  parts: Parts,
): WeightSource {
  const view: WeightSource = {
    name,
    metadata: {},
    entries: new Map([...rows].map(([key, { part, rows }]) => [key, join(name, key, part, rows)])),
    async read(key, range) {
      const { info, begin, end } = locate(view, key, range);
      const { part, rows: pieces } = rows.get(key)!;
      const [{ diffusers, op }] = pieces;
      if (op === 'transpose') return transposed(await part.read(diffusers), info).slice(begin, end);
      return pieces.length === 1 ? part.read(diffusers, range) : concatenated(part, pieces, range);
    },
    async close() {
      for (const part of Object.values(parts)) await part.close();
    },
  };
  return view;
}

function split({ dtype, shape }: WeightInfo, { op }: KeyRow): WeightInfo {
  if (op === 'reshape') return { dtype, shape: shape.slice(0, 2) };
  if (op === 'transpose') return { dtype, shape: [...shape].reverse() };
  return { dtype, shape: typeof op === 'object' ? [shape[0] / 3, ...shape.slice(1)] : shape };
}

function join(name: string, key: string, part: WeightSource, rows: KeyRow[]): WeightInfo {
  const infos = rows.map(({ diffusers }) => locate(part, diffusers).info);
  const [{ dtype, shape }] = infos;
  const { op } = rows[0];
  if (typeof op === 'object') {
    const alike = rows.length === 3 && infos.every((info) => info.dtype === dtype && `${info.shape}` === `${shape}`);
    if (alike) return { dtype, shape: [3 * shape[0], ...shape.slice(1)] };
    const found = rows.map(({ diffusers }, i) => `  ${diffusers}  ${infos[i].dtype} [${infos[i].shape.join(', ')}]`);
    throw new WeightsError([`${name}: ${key} is made of q, k and v of one kind`, ...found].join('\n'));
  }
  if (op === 'reshape') return { dtype, shape: [...shape, 1, 1].slice(0, 4) };
  return { dtype, shape: op === 'transpose' ? [...shape].reverse() : shape };
}

/** q, k, v one below the other, or some of those rows. */
async function concatenated(part: WeightSource, pieces: KeyRow[], range?: Rows): Promise<Uint8Array<ArrayBuffer>> {
  const inOrder = [...pieces].sort((a, b) => third(a) - third(b));
  const each = locate(part, inOrder[0].diffusers).info.shape[0];
  const [from, to] = range ?? [0, 3 * each];
  const chunks: Uint8Array[] = [];
  for (const [i, { diffusers }] of inOrder.entries()) {
    const rows: Rows = [Math.max(from - i * each, 0), Math.min(to - i * each, each)];
    if (rows[0] < rows[1]) chunks.push(await part.read(diffusers, rows));
  }
  const out = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0));
  chunks.reduce((at, chunk) => (out.set(chunk, at), at + chunk.length), 0);
  return out;
}

const third = ({ op }: KeyRow): number => (typeof op === 'object' ? op.third : 0);

/** A matrix the other way round; `shape` is that of the result. */
function transposed(
  bytes: Uint8Array<ArrayBuffer>,
  { dtype, shape: [rows, cols] }: WeightInfo,
): Uint8Array<ArrayBuffer> {
  const width = dtypeBytes[dtype];
  const out = new Uint8Array(bytes.length);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const from = (c * rows + r) * width,
        to = (r * cols + c) * width;
      for (let i = 0; i < width; i++) out[to + i] = bytes[from + i];
    }
  }
  return out;
}
