/** --model as people give it: nothing, a path, or an id of the hub, which is downloaded where it is not in the cache. */
import { findModel } from '../flow/recipe/hub-model.ts';
import type { FindModelOptions } from '../flow/recipe/hub-model.ts';
import { size } from '../tensor/io/hub-node.ts';
import type { DownloadProgress } from '../tensor/io/hub-node.ts';
import { Stopped } from './command.ts';
import { shippedModel } from './default-model.ts';
import { clock, StatusLine } from './status-line.ts';

/** What --model says of itself in --help. */
export const modelHelp =
  "a model: a folder in diffusers' layout, a single file, or owner/name[@revision] on the Hugging Face hub";

/** Path of the model; the one that ships when none is named. Ctrl-C ends a download; what came is kept. */
export async function modelPath(
  word: string | undefined,
  options: Pick<FindModelOptions, 'variant' | 'safetyChecker' | 'refresh'> = {},
): Promise<string> {
  if (word === undefined) return shippedModel();
  const line = new StatusLine(process.stderr);
  const stopping = new AbortController();
  const stop = () => stopping.abort(new Stopped('stopped; the same command goes on from there'));
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  try {
    return await findModel(word, {
      ...options,
      signal: stopping.signal,
      onNote: (words) => line.print(words),
      onProgress: (progress) => line.update(describe(progress), progress.done === progress.total),
    });
  } finally {
    line.clear();
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
  }
}

function describe({ done, total, rate, remaining }: DownloadProgress): string {
  const percent = total > 0 ? Math.floor((100 * done) / total) : 100;
  return `downloading ${percent} %  ${size(done)} of ${size(total)}  ${size(Math.round(rate))}/s  ${clock(remaining)} left`;
}
