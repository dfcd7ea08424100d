import { readFile, stat } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { uniformU32 } from '../../tensor/random.ts';
import { fromBytes, type CaptionedImages } from './captioned-images.ts';
import { squareReader } from './image-workers.ts';
import { readMetadata, type MetadataRow } from './metadata.ts';
import type { Interpolation, Square } from './square.ts';

/** What a folder of images with metadata.jsonl or .csv is read as. Names follow diffusers' training scripts. */
export interface ImageFolderOptions {
  resolution?: number; // the shorter side is scaled to it, then a square is cut (512)
  centerCrop?: boolean; // cut the middle; otherwise a place drawn from the seed, one for each image (false)
  interpolation?: Interpolation; // how it is scaled ('lanczos')
  imageColumn?: string; // column with the path; 'image' means Hugging Face's 'file_name'
  captionColumn?: string; // column with the caption, or with a list of them ('text')
  maxTrainSamples?: number;
  seed?: number;
  workers?: number; // threads that decode and scale; 0: none of their own (0)
  skipBad?: boolean; // go on without images that cannot be used
  attribution?: string;
  onProgress?: (done: number, total: number) => void; // after each image
  onWarning?: (message: string) => void; // what was done without
}

/** One thing that is wrong with a data set. `line` counts from 1; 0 means the file as a whole. */
export interface DataProblem {
  file: string;
  line: number;
  reason: string;
}

/** A data set that cannot be used as it is: all that is wrong with it, the first ten in the message. */
export class DataError extends Error {
  override name = 'DataError';
  constructor(
    what: string,
    readonly problems: DataProblem[] = [],
    fix = '',
  ) {
    const shown = problems.slice(0, 10).map((p) => `  ${p.file}${p.line ? `:${p.line}` : ''}: ${p.reason}`);
    const more = problems.length > 10 ? [`  … and ${problems.length - 10} more`] : [];
    super([what, ...shown, ...more, ...(fix ? [`  ${fix}`] : [])].join('\n'));
  }
}

interface Listed {
  path: string;
  id: string;
  captions: string[];
  line: number;
}

/**
 * The user's own images, in Hugging Face's imagefolder form: a folder (or its `train` folder) with images and a
 * metadata.jsonl or metadata.csv that gives `file_name` and a caption for each.
 *
 * Pixels are made as diffusers' train_text_to_image.py makes them: turned as the camera says, over white where
 * transparent, Lanczos, cropped. Mirroring (`random_flip`) is the sampler's: see loader.ts.
 */
export async function loadImageFolder(folder: string, options: ImageFolderOptions = {}): Promise<CaptionedImages> {
  const { resolution = 512, imageColumn = 'image', captionColumn = 'text', seed = 0, skipBad = false } = options;
  if (!(Number.isInteger(resolution) && resolution > 0)) {
    throw new DataError(`image folder: resolution must be a whole number of pixels, not ${resolution}`);
  }
  const { base, file, rows, problems } = await findMetadata(folder);
  const pathColumn = imageColumn === 'image' ? 'file_name' : imageColumn;
  const listed = listImages(rows, base, file, pathColumn, captionColumn, problems).slice(0, options.maxTrainSamples);

  const stride = resolution * resolution * 3;
  const decoded: (Uint8Array | undefined)[] = [];
  let next = 0,
    done = 0;
  const reader = squareReader(options.workers ?? 0);
  const readOn = async () => {
    while (next < listed.length) {
      const i = next++;
      const place: Square['place'] = options.centerCrop
        ? [0.5, 0.5]
        : [uniformU32(seed, 'crop', 2 * i) * 2 ** -32, uniformU32(seed, 'crop', 2 * i + 1) * 2 ** -32];
      try {
        decoded[i] = await reader.read({
          path: listed[i].path,
          resolution,
          place,
          interpolation: options.interpolation,
        });
      } catch (error) {
        problems.push({ file, line: listed[i].line, reason: `${listed[i].id}: ${(error as Error).message}` });
      }
      options.onProgress?.(++done, listed.length);
    }
  };
  try {
    await Promise.all(Array.from({ length: reader.atOnce }, readOn));
  } finally {
    await reader.close();
  }

  problems.sort((a, b) => a.line - b.line);
  const good = listed.filter((_, i) => decoded[i]);
  const bad = new DataError(
    `${folder}: ${count(problems.length, 'entry', 'entries')} cannot be used`,
    problems,
    good.length > 0 ? '--skip_bad goes on without them' : '',
  );
  if (problems.length > 0 && (!skipBad || good.length === 0)) throw bad;
  if (problems.length > 0) (options.onWarning ?? console.warn)(`${bad.message.replace(/\n[^\n]*$/, '')}\n  left out`);

  const pixels = new Uint8Array(good.length * stride);
  decoded.filter((image) => image !== undefined).forEach((image, i) => pixels.set(image, i * stride));
  return {
    size: resolution,
    channels: 3,
    images: fromBytes(pixels),
    attribution: options.attribution ?? '',
    captions: good.map((image) => image.captions),
    ids: good.map((image) => image.id),
  };
}

/**
 * The captions of a folder of images, in its order, all of each image; the images are not opened.
 * @throws DataError naming every line that has none
 */
export async function listCaptions(
  folder: string,
  { imageColumn = 'image', captionColumn = 'text' }: Pick<ImageFolderOptions, 'imageColumn' | 'captionColumn'> = {},
): Promise<string[]> {
  const { base, file, rows, problems } = await findMetadata(folder);
  const pathColumn = imageColumn === 'image' ? 'file_name' : imageColumn;
  const listed = listImages(rows, base, file, pathColumn, captionColumn, problems);
  if (problems.length === 0) return listed.flatMap(({ captions }) => captions);
  throw new DataError(`${folder}: ${count(problems.length, 'entry', 'entries')} cannot be used`, problems);
}

/** Find and read the metadata file; says what was expected when there is none. */
async function findMetadata(folder: string) {
  const info = await stat(folder).catch(() => undefined);
  if (!info?.isDirectory()) throw new DataError(`image folder: ${folder} is not a folder`);
  for (const base of [folder, join(folder, 'train')]) {
    for (const name of ['metadata.jsonl', 'metadata.csv']) {
      const file = join(base, name);
      const text = await readFile(file, 'utf8').catch(() => undefined);
      if (text === undefined) continue;
      const { rows, problems } = readMetadata(text, extname(name));
      if (rows.length + problems.length === 0) throw new DataError(`${file} lists no images`);
      return { base, file, rows, problems: problems.map((problem) => ({ file, ...problem })) };
    }
  }
  throw new DataError(
    `${folder}: no metadata.jsonl or metadata.csv here or in train/`,
    [],
    'write one line for each image: {"file_name": "0001.png", "text": "a red apple"}',
  );
}

function listImages(
  rows: MetadataRow[],
  base: string,
  file: string,
  pathColumn: string,
  captionColumn: string,
  problems: DataProblem[],
): Listed[] {
  const listed: Listed[] = [];
  const seen = new Map<string, number>();
  for (const { line, values } of rows) {
    const has = `the line has ${
      Object.keys(values)
        .map((name) => `'${name}'`)
        .join(', ') || 'nothing'
    }`;
    const path = values[pathColumn];
    const captions = [values[captionColumn]]
      .flat()
      .filter((caption): caption is string => typeof caption === 'string')
      .map((caption) => caption.trim())
      .filter((caption) => caption !== '');
    const reason =
      typeof path !== 'string' || path === ''
        ? `no '${pathColumn}'; ${has}`
        : values[captionColumn] === undefined
          ? `${path}: no '${captionColumn}'; ${has}`
          : captions.length === 0
            ? `${path}: the caption is empty or not text`
            : seen.has(path)
              ? `${path}: already listed in line ${seen.get(path)}`
              : '';
    if (reason) {
      problems.push({ file, line, reason });
      continue;
    }
    seen.set(path as string, line);
    listed.push({ path: join(base, path as string), id: path as string, captions, line });
  }
  return listed;
}

function count(n: number, one: string, many: string): string {
  return `${n} ${n === 1 ? one : many}`;
}
