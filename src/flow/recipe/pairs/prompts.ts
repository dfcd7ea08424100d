/** Prompts for pairs: a text file, JSON lines, or the captions of an image folder. */
import { stat } from 'node:fs/promises';
import { extname } from 'node:path';
import { readBytes } from '../../../tensor/io/files-node.ts';
import { DataError, listCaptions } from '../../data/image-folder.ts';
import type { DataProblem } from '../../data/image-folder.ts';
import { readMetadata } from '../../data/metadata.ts';

/**
 * The prompts of a place, in their order.
 *
 *     a folder            the captions of its metadata.jsonl or metadata.csv, all of each image
 *     .jsonl, .csv        `captionColumn` of each line: a text, or a list of texts
 *     any other file      a line each
 *
 * Blank lines of a text are left out.
 * @throws DataError when there are none, or naming every line without one
 */
export async function readPrompts(place: string, { captionColumn = 'text' } = {}): Promise<string[]> {
  const info = await stat(place).catch(() => undefined);
  if (!info)
    throw new DataError(
      `${place}: no such file or folder\n  prompts come from a text file with a line each, .jsonl, .csv, or an image folder`,
    );
  const prompts = info.isDirectory()
    ? await listCaptions(place, { captionColumn })
    : await readFile(place, captionColumn);
  if (prompts.length === 0) throw new DataError(`${place}: no prompt in it`);
  return prompts;
}

async function readFile(file: string, captionColumn: string): Promise<string[]> {
  const text = decode(await readBytes(file), file);
  const kind = extname(file).toLowerCase();
  if (kind !== '.jsonl' && kind !== '.csv') return text.split(/\r?\n/).map((line) => line.trim()).filter(Boolean); // prettier-ignore
  const { rows, problems } = readMetadata(text, kind);
  const wrong: DataProblem[] = problems.map((problem) => ({ file, ...problem }));
  const prompts = rows.flatMap(({ line, values }) => {
    const found = [values[captionColumn]].flat().filter((value) => typeof value === 'string' && value.trim() !== '');
    const has = Object.keys(values).map((name) => `'${name}'`).join(', ') || 'nothing'; // prettier-ignore
    if (found.length === 0) wrong.push({ file, line, reason: `no text in '${captionColumn}'; the line has ${has}` });
    return found.map((value) => String(value).trim());
  });
  if (wrong.length === 0) return prompts;
  wrong.sort((a, b) => a.line - b.line);
  throw new DataError(
    `${file}: ${wrong.length} of ${rows.length + problems.length} lines have no prompt`,
    wrong,
    '--caption_column names the column',
  );
}

function decode(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new DataError(`${file}: not a text in UTF-8`);
  }
}
