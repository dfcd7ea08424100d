/** What is asked of the making of pairs, told meanwhile, and what comes of it. */
import type { Teaching } from './solve.ts';

/** What to make. */
export interface PairRequest extends Teaching {
  /** Pairs of the whole set (one for each prompt). */
  count?: number;
  batchSize: number;
  /** This is worker `index` of `count`: it makes every count-th shard. */
  worker?: { index: number; count: number };
  /** Stop early after so many minutes; the set then ends with what there is. For one worker alone. */
  minutes?: number;
}

/** How far it is. */
export interface PairProgress {
  /** Pairs of this worker that are there or were left out, and all of them. */
  done: number;
  total: number;
  skipped: number;
  shard: string;
  /** Pairs a second, since it was started. */
  rate: number;
  /** Seconds. */
  remaining: number;
}

/** What is told and asked meanwhile. All are optional. */
export interface PairHooks {
  /** A line for people. */
  say?(line: string): void;
  /** After every batch. */
  progress?(progress: PairProgress): void;
  /** Stops after the batch that is being made. */
  signal?: AbortSignal;
}

/** What came of it. */
export interface PairResult {
  /** Every shard of this worker is there, */
  finished: boolean;
  /** and of all workers. */
  complete: boolean;
  /** Pairs of all workers in the manifest, and those left out. */
  samples: number;
  skipped: number;
  /** Pairs made by this call. */
  made: number;
}
