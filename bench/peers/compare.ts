/** Runs the same work in every library: compares the results with ours, then times all of them in turn. */
import { median, withForeignShare } from '../machine.ts';
import { bytesOf, flopOf } from '../work.ts';
import type { Work } from '../work.ts';
import { PeerProcess } from './process.ts';
import type { Answer } from './worker.ts';

export const PEERS = [
  'ours',
  'tfjs-webgpu',
  'jax-webgpu',
  'ort-node-webgpu',
  'ort-web-webgpu',
  'ort-node-cpu',
  'ort-web-wasm',
  'tfjs-wasm',
];

/** Largest difference to ours over the largest of our numbers. Losses differ more: each step builds on the last. */
const TOLERANCE = 1e-4;
const TRAINING_TOLERANCE = 1e-3;

/** A batch is measured again when others used more of the processors than this, at most so often. */
const FOREIGN_LIMIT = 0.12;
const TRIES = 4;

export interface Cell {
  /** Median over the rounds, for one call. */
  milliseconds?: number;
  fastest?: number;
  slowest?: number;
  /** Time of the first call, with everything compiled for it. */
  cold?: number;
  /** Largest difference to ours, over the largest of our numbers. */
  difference?: number;
  /** Mean share of the processors that other processes used in the batches that count. */
  foreign?: number;
  error?: string;
}

export interface Row {
  name: string;
  flop?: number;
  bytes?: number;
  peers: Record<string, Cell>;
}

export interface Comparison {
  versions: Record<string, string>;
  rows: Row[];
}

export interface Options {
  works: Record<string, Work>;
  peers: readonly string[];
  rounds: number;
  /** Shortest batch, in milliseconds. */
  batch: number;
  /** Told of each row as it is done. */
  print?(row: Row): void;
  progress?(text: string): void;
}

export async function compare({ works, peers, rounds, batch, print, progress }: Options): Promise<Comparison> {
  const processes = peers.map((name) => new PeerProcess(name));
  const endAll = () => processes.forEach((p) => p.end());
  process.on('exit', endAll);
  const versions: Record<string, string> = {};
  const broken: Record<string, string> = {};
  try {
    for (const p of processes) {
      progress?.(`opening ${p.name}`);
      try {
        versions[p.name] = (await p.ask<Extract<Answer, { opened: string }>>({ do: 'open' })).opened;
      } catch (error) {
        broken[p.name] = reason(error);
      }
    }
    const rows: Row[] = [];
    for (const [name, work] of Object.entries(works)) {
      const row: Row = { name, flop: flopOf(work), bytes: bytesOf(work), peers: {} };
      for (const p of processes) row.peers[p.name] = broken[p.name] ? { error: broken[p.name] } : {};
      await prepare(row, work, processes, progress);
      await measure(row, processes, rounds, batch, progress);
      for (const p of processes) if (!row.peers[p.name].error) await p.ask({ do: 'release' }).catch(() => undefined);
      rows.push(row);
      print?.(row);
    }
    return { versions, rows };
  } finally {
    endAll();
    process.off('exit', endAll);
  }
}

/** First calls, and whether their numbers are ours. */
async function prepare(row: Row, work: Work, processes: PeerProcess[], progress: Options['progress']): Promise<void> {
  let wanted: Float32Array | undefined;
  for (const p of processes) {
    const cell = row.peers[p.name];
    if (cell.error) continue;
    progress?.(`${row.name}: ${p.name} compiles and runs`);
    try {
      type Prepared = Extract<Answer, { cold: number }>;
      const { cold, numbers } = await p.ask<Prepared>({ do: 'prepare', work });
      cell.cold = cold;
      wanted ??= numbers;
      cell.difference = differenceOf(numbers, wanted);
      const tolerance = work.kind === 'train' ? TRAINING_TOLERANCE : TOLERANCE;
      if (!(cell.difference <= tolerance)) {
        cell.error = `other results: differs by ${cell.difference.toExponential(1)}`;
        await p.ask({ do: 'release' });
      }
    } catch (error) {
      cell.error = reason(error);
    }
  }
}

/** Every library once a round, so that a slow moment of the machine meets all of them. */
async function measure(
  row: Row,
  processes: PeerProcess[],
  rounds: number,
  batch: number,
  progress: Options['progress'],
): Promise<void> {
  const times: Record<string, number[]> = {};
  const shares: Record<string, number[]> = {};
  for (let round = 0; round < rounds; round++) {
    progress?.(`${row.name}: round ${round + 1} of ${rounds}`);
    for (const p of processes) {
      const cell = row.peers[p.name];
      if (cell.error) continue;
      try {
        const { milliseconds, foreign } = await quietBatch(p, batch);
        (times[p.name] ??= []).push(milliseconds);
        if (foreign !== undefined) (shares[p.name] ??= []).push(foreign);
      } catch (error) {
        cell.error = reason(error);
      }
    }
  }
  for (const [name, list] of Object.entries(times)) {
    const cell = row.peers[name];
    if (cell.error) continue;
    cell.milliseconds = median(list);
    cell.fastest = Math.min(...list);
    cell.slowest = Math.max(...list);
    const share = shares[name];
    if (share) cell.foreign = share.reduce((a, b) => a + b) / share.length;
  }
}

/** One batch; of several noisy ones, that with the least noise. */
async function quietBatch(p: PeerProcess, milliseconds: number): Promise<{ milliseconds: number; foreign?: number }> {
  type Timed = Extract<Answer, { calls: number }>;
  let best: { milliseconds: number; foreign?: number } | undefined;
  for (let i = 0; i < TRIES; i++) {
    const [timed, foreign] = await withForeignShare(() => p.ask<Timed>({ do: 'batch', milliseconds }), [p.pid!]);
    if (!best || foreign! < best.foreign!) best = { milliseconds: timed.milliseconds, foreign };
    if (foreign === undefined || foreign <= FOREIGN_LIMIT) break;
  }
  return best!;
}

export function differenceOf(got: ArrayLike<number>, want: ArrayLike<number>): number {
  if (got.length !== want.length) return Infinity;
  let [error, largest] = [0, 0];
  for (let i = 0; i < want.length; i++) {
    largest = Math.max(largest, Math.abs(want[i]));
    const e = Math.abs(got[i] - want[i]);
    if (!(e <= error)) error = Number.isNaN(e) ? Infinity : e;
  }
  return largest > 0 ? error / largest : Infinity; // nothing but zeros is nobody's result
}

const reason = (error: unknown): string =>
  String((error as Error)?.message ?? error)
    .split('\n')[0]
    .slice(0, 160);
