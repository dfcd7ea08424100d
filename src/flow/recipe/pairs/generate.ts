/**
 * Make pairs, shard by shard: a noise x0 by its seed, and what the teacher makes of it. What is there is not made again.
 * @see Liu et al. 2023, InstaFlow, §3.1. https://arxiv.org/abs/2309.06380
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { lock, LockedError } from '../../../tensor/io/lock-node.ts';
import { currentGpu } from '../../../tensor/index.ts';
import { differences, PairError, readManifest, shardName, updateManifest } from './manifest.ts';
import type { PairShard } from './manifest.ts';
import { sampleFacts, sampleFiles } from './samples.ts';
import type { PairHooks, PairRequest, PairResult } from './request.ts';
import { explainWrite, ShardWriter, sizeOf } from './shard-writer.ts';
import type { ShardPlan } from './shard-writer.ts';
import { PairSolver } from './solve.ts';
import type { SolvedPair } from './solve.ts';

/** Tried in a row, and none can be used: something is wrong with the teacher. */
const HOPELESS = 32;

/** mt19937 sees the low 32 bits of a seed. */
const SEEDS = 2 ** 32;

/** Make the shards that are not there yet. @throws PairError when the folder holds other pairs, or none can be used */
export async function generatePairs(folder: string, request: PairRequest, hooks: PairHooks = {}): Promise<PairResult> {
  using solver = new PairSolver(request);
  const generator = new Generator(folder, request, hooks, solver);
  await generator.begin();
  await generator.makeAll();
  for (const words of solver.notes()) hooks.say?.(words);
  return generator.result();
}

class Generator {
  readonly #count: number;
  readonly #start = performance.now();
  /** Pairs of this worker that are there or were left out; those left out; made and tried by this call. */
  readonly #tally = { done: 0, skipped: 0, made: 0, tried: 0 };
  #isLate = false;

  constructor(
    readonly folder: string,
    readonly request: PairRequest,
    readonly hooks: PairHooks,
    readonly solver: PairSolver,
  ) {
    this.#count = request.count ?? request.prompts.length;
  }

  /** Refuse what cannot be made here. */
  async begin(): Promise<void> {
    const { facts } = this.solver;
    const { minutes, worker } = this.request;
    const last = facts.first_seed + this.#count - 1;
    if (last >= SEEDS)
      throw new PairError(
        `the last seed would be ${last}: PyTorch's CPU generator takes 32 bits, so seeds repeat from ${SEEDS} on\n  begin with a lower --seed`,
      );
    if (minutes !== undefined && worker && worker.count > 1)
      throw new PairError(
        'a limit in minutes ends the whole set, so it is for one worker\n  leave it out, or --num_shards',
      );
    await mkdir(this.folder, { recursive: true }).catch(explainWrite(this.folder));
    const shards = await readManifest(this.folder);
    const [there] = shards;
    const odd = there ? differences(there, facts) : [];
    // A set that a limit has ended stays as it is: training may have begun with it.
    this.#isLate =
      minutes !== undefined && shards.length > 0 && isComplete(shards) && there.total_samples < this.#count;
    if (odd.length === 0) return;
    const isOther = there.teacher.sha256 !== facts.teacher.sha256;
    throw new PairError(
      `${this.folder}: holds pairs ${isOther ? 'from another teacher' : 'that were made otherwise'}\n${odd.join('\n')}\n  give another --output_dir, or remove that folder`,
    );
  }

  async makeAll(): Promise<void> {
    for (const s of this.#mine) {
      const path = join(this.folder, shardName(s));
      const known = await this.#lineOf(s);
      const size = await sizeOf(path);
      if (known && known.samples + known.skipped >= this.#planned(s) && size === known.bytes) {
        this.#tally.done += this.#planned(s);
        this.#tally.skipped += known.skipped;
        continue;
      }
      if (this.#isLate || this.hooks.signal?.aborted) return;
      const unlock = await lockShard(path);
      try {
        if (known && size !== undefined && size !== known.bytes) {
          this.#say(`${path}: ${size} bytes, the manifest has ${known.bytes}: it is made again`);
          await rm(path);
        }
        await this.#make(s, path, size === undefined ? known : undefined);
      } finally {
        await unlock();
      }
    }
  }

  async result(): Promise<PairResult> {
    const shards = await readManifest(this.folder);
    const sum = (key: 'samples' | 'skipped') => shards.reduce((n, shard) => n + shard[key], 0);
    return {
      finished: this.#isLate || this.#tally.done >= this.#total,
      complete: isComplete(shards),
      samples: sum('samples'),
      skipped: sum('skipped'),
      made: this.#tally.made,
    };
  }

  /** One shard, from where it is. `before`: what the manifest says of it, when it was lost. */
  async #make(s: number, path: string, before?: PairShard): Promise<void> {
    const { facts } = this.solver;
    const { prompts } = this.request;
    const first = s * facts.shard_size;
    const expected = (number: number, batchSize: number) =>
      sampleFacts(facts, facts.first_seed + number, prompts[number % prompts.length], batchSize);
    const plan = {
      path,
      first,
      count: this.#planned(s),
      expected,
      batchSize: before?.batch_size ?? this.request.batchSize,
    };
    const writer = await ShardWriter.open(plan);
    try {
      if (writer.batchSize !== this.request.batchSize)
        this.#say(`${shardName(s)}: in batches of ${writer.batchSize}, as it was begun`);
      if (writer.tried) this.#say(`${shardName(s)}: going on after ${writer.tried} of ${plan.count}`);
      this.#tally.done += writer.tried;
      this.#tally.skipped += writer.tried - writer.samples;
      while (writer.tried < plan.count && !this.#isLate && !this.hooks.signal?.aborted) await this.#batch(writer, plan);
      if (writer.tried === plan.count || this.#isLate) await this.#finish(s, writer, before);
    } finally {
      await writer.close();
    }
  }

  async #batch(writer: ShardWriter, plan: ShardPlan): Promise<void> {
    const { facts, shape } = this.solver;
    const n = Math.min(writer.batchSize, plan.count - writer.tried);
    const numbers = Array.from({ length: n }, (_, i) => plan.first + writer.tried + i);
    const samples = numbers.map((number) => plan.expected(number, writer.batchSize));
    const pairs = await this.solver.solve(samples);
    const files = pairs.flatMap((pair, i) =>
      pair.problem ? [] : [sampleFiles(numbers[i], samples[i], pair, shape, facts.latents_dtype)],
    );
    await writer.append(files, n);
    const tally = this.#tally;
    tally.made += files.length;
    tally.tried += n;
    tally.done += n;
    tally.skipped += n - files.length;
    const isEnd = writer.tried === plan.count;
    if (writer.samples + tally.made === 0 && (tally.tried >= HOPELESS || isEnd)) throw hopeless(tally.tried, pairs);
    const seconds = (performance.now() - this.#start) / 1000;
    const rate = tally.tried / seconds;
    const remaining = (this.#total - tally.done) / rate;
    const { done, skipped } = tally;
    this.hooks.progress?.({
      done,
      total: this.#total,
      skipped,
      shard: shardName(plan.first / facts.shard_size),
      rate,
      remaining,
    });
    this.#isLate = this.request.minutes !== undefined && seconds > 60 * this.request.minutes;
  }

  async #finish(s: number, writer: ShardWriter, before?: PairShard): Promise<void> {
    const { facts } = this.solver;
    const { samples, tried, batchSize } = writer;
    const first = s * facts.shard_size;
    const file = await writer.finish();
    if (before && before.sha256 !== file.sha256 && before.samples + before.skipped === tried)
      this.#say(
        `${shardName(s)}: not the bytes that it had: another adapter, driver or version gives other last bits\n  had  ${before.sha256}\n  has  ${file.sha256}`,
      );
    const line: PairShard = {
      shard: shardName(s),
      ...facts,
      first_sample: first,
      samples,
      skipped: tried - samples,
      seeds: [facts.first_seed + first, facts.first_seed + first + tried - 1],
      total_samples: this.#isLate ? first + tried : this.#count,
      batch_size: batchSize,
      ...file,
      model: this.request.teacher.model,
      adapter: currentGpu().capabilities.name,
    };
    const total_samples = line.total_samples;
    await updateManifest(this.folder, (shards) => [
      ...shards.flatMap((shard) =>
        shard.shard === line.shard || (this.#isLate && shard.first_sample > first) ? [] : [{ ...shard, total_samples }],
      ),
      line,
    ]);
    this.#say(`${line.shard}: ${samples} pairs${line.skipped ? `, ${line.skipped} left out` : ''}`);
  }

  /** The shards of this worker. */
  get #mine(): number[] {
    const { index, count } = this.request.worker ?? { index: 0, count: 1 };
    const all = Math.ceil(this.#count / this.solver.facts.shard_size);
    return Array.from({ length: all }, (_, s) => s).filter((s) => s % count === index);
  }

  get #total(): number {
    return this.#mine.reduce((n, s) => n + this.#planned(s), 0);
  }

  #planned(s: number): number {
    const size = this.solver.facts.shard_size;
    return Math.min(size, this.#count - s * size);
  }

  async #lineOf(s: number): Promise<PairShard | undefined> {
    return (await readManifest(this.folder)).find(({ shard }) => shard === shardName(s));
  }

  #say(line: string): void {
    this.hooks.say?.(line);
  }
}

const isComplete = (shards: readonly PairShard[]): boolean =>
  shards.length > 0 && shards.reduce((n, { samples, skipped }) => n + samples + skipped, 0) >= shards[0].total_samples;

async function lockShard(path: string): Promise<() => Promise<void>> {
  try {
    return await lock(`${path}.lock`);
  } catch (error) {
    if (!(error instanceof LockedError)) return explainWrite(`${path}.lock`)(error);
    throw new PairError(
      `${path}: is being made by ${error.owner}\n  let it finish; give each of several workers its own --shard_index; or, if it is dead, delete ${path}.lock`,
      { cause: error },
    );
  }
}

function hopeless(tried: number, pairs: readonly SolvedPair[]): PairError {
  const problems = [...new Set(pairs.map(({ problem }) => problem!))].slice(0, 3);
  return new PairError(
    `none of the first ${tried} pairs can be used\n${problems.map((problem) => `  ${problem}`).join('\n')}\n  sample this model by itself; with --dtype f16, try f32`,
  );
}
