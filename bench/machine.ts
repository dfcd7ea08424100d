/** Which machine a result is from, and how busy others keep it. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';

/** '2 × AMD EPYC' */
export const processors = `${cpus().length} × ${cpus()[0]?.model.trim()}`;

/** Words for a file's name: 'Mesa 25.0 (LLVM)' → 'mesa-25-0-llvm', whole words up to 40 characters. */
export function slug(name: string): string {
  const words = name
    .toLowerCase()
    .replace(/\((r|tm)\)/g, '')
    .split(/[^a-z0-9]+/)
    .filter(Boolean);
  let out = words[0] ?? 'unknown';
  for (const word of words.slice(1)) {
    if (out.length + word.length >= 40) break;
    out += `-${word}`;
  }
  return out;
}

/** '2x-amd-epyc': part of the name of every result, so that two machines do not overwrite each other. */
export const processorSlug = `${cpus().length}x-${slug(cpus()[0]?.model ?? '')}`;

/** The commit that is measured, and whether its sources were changed since. */
export const commit =
  git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', 'src') ? ' with changes' : '');

function git(...words: string[]): string {
  try {
    return execFileSync('git', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return '';
  }
}

/** Processor time so far in ticks: of the whole machine, its busy part, and that of the given processes. */
interface Ticks {
  total: number;
  busy: number;
  own: number;
}

/** @returns undefined where there is no /proc */
function ticks(pids: readonly number[]): Ticks | undefined {
  try {
    const [user, nice, system, idle, iowait, irq, softirq, steal] = readFileSync('/proc/stat', 'utf8')
      .slice(4)
      .trim()
      .split(/\s+/, 8)
      .map(Number);
    const busy = user + nice + system + irq + softirq + steal;
    let own = 0;
    for (const pid of pids) {
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)!.split(' ');
      own += Number(fields[11]) + Number(fields[12]); // utime and stime
    }
    return { total: busy + idle + iowait, busy, own };
  } catch {
    return undefined;
  }
}

/**
 * Run `work` and say which share of the machine's processors others used meanwhile, 0 … 1, or undefined where that cannot
 * be known. `pids` are the processes that belong to the work, besides this one.
 */
export async function withForeignShare<T>(work: () => Promise<T>, pids: readonly number[] = []): Promise<[T, number?]> {
  const all = [process.pid, ...pids];
  const before = ticks(all);
  const result = await work();
  const after = ticks(all);
  if (!before || !after || after.total === before.total) return [result, undefined];
  const foreign = after.busy - before.busy - (after.own - before.own);
  return [result, Math.max(0, foreign / (after.total - before.total))];
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
