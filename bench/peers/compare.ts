/** Runs the same work in every library: compares the results with ours, then times all of them in turn. */
import { commit, median, withForeignShare } from '../machine.ts';
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
/** On a machine that never becomes quiet a row gets no more retries after this, and no more rounds than it must have. */
const PATIENCE_MS = 60_000;
const FEWEST_ROUNDS = 3;

export interface Cell {
  /** Median over the rounds, for one call. */
  milliseconds?: number;
  /** The same for the time of all processors together: on a software adapter all of the work, whoever else runs. */
  processor?: number;
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
  rounds: number;
  /** What was measured, since a file collects rows of several runs. */
  commit: string;
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
  print?(row: Row, versions: Record<string, string>): void;
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
      const row: Row = { name, flop: flopOf(work), bytes: bytesOf(work), rounds: 0, commit, peers: {} };
      for (const p of processes) row.peers[p.name] = broken[p.name] ? { error: broken[p.name] } : {};
      await prepare(row, work, processes, progress);
      await measure(row, processes, rounds, batch, progress);
      for (const p of processes) if (!row.peers[p.name].error) await p.ask({ do: 'release' }).catch(() => undefined);
      rows.push(row);
      print?.(row, versions);
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
  const batches: Record<string, Batch[]> = {};
  const deadline = performance.now() + PATIENCE_MS;
  while (row.rounds < rounds && (row.rounds < FEWEST_ROUNDS || performance.now() < deadline)) {
    row.rounds++;
    progress?.(`${row.name}: round ${row.rounds} of ${rounds}`);
    for (const p of processes) {
      const cell = row.peers[p.name];
      if (cell.error) continue;
      try {
        (batches[p.name] ??= []).push(await quietBatch(p, batch, deadline));
      } catch (error) {
        cell.error = reason(error);
      }
    }
  }
  for (const [name, list] of Object.entries(batches)) {
    const cell = row.peers[name];
    if (cell.error) continue;
    const times = list.map(({ milliseconds }) => milliseconds);
    cell.milliseconds = median(times);
    cell.processor = median(list.map(({ processor }) => processor));
    cell.fastest = Math.min(...times);
    cell.slowest = Math.max(...times);
    const shares = list.flatMap(({ foreign }) => foreign ?? []);
    if (shares.length) cell.foreign = shares.reduce((a, b) => a + b) / shares.length;
  }
}

type Timed = Extract<Answer, { calls: number }>;
type Batch = Timed & { foreign?: number };

/** One batch; of several noisy ones, that with the least noise. */
async function quietBatch(p: PeerProcess, milliseconds: number, deadline: number): Promise<Batch> {
  let best: Batch | undefined;
  for (let i = 0; i < TRIES && (!best || performance.now() < deadline); i++) {
    const [timed, foreign] = await withForeignShare(() => p.ask<Timed>({ do: 'batch', milliseconds }), [p.pid!]);
    if (!best || foreign! < best.foreign!) best = { ...timed, foreign };
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
