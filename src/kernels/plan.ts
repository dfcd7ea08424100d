/**
 * Recorded commands with their memory planned: what `compile` replays.
 *
 * While a recorder is open the GPU does nothing. Arrays made meanwhile have no buffer, only a name; commands are noted. At
 * the end every such array's life is known, from the first command that touches it to the last, and arrays whose lives do
 * not overlap share a buffer. docs/compile.md tells it with a picture.
 */
import { sizeOf } from './array.ts';
import type { DType, GpuArray, Shape, Storage, TypedArray } from './array.ts';
import { GpuError } from './errors.ts';
import type { Pipeline, Slot } from './pipelines.ts';
import { sizeClass } from './pool.ts';
import type { Pool } from './pool.ts';

/** One thing for the GPU to do. Buffers are looked up when it is submitted: by then they are known to exist. */
export type Command =
  | {
      kind: 'run';
      pipeline: Pipeline;
      slot: Slot | undefined;
      storages: readonly Storage[];
      grid: readonly number[];
      /** Kept from the first submit for the replays. */
      group?: GPUBindGroup;
    }
  | { kind: 'write'; to: Storage; data: TypedArray }
  | { kind: 'copy'; from: Storage; to: Storage; bytes: number }
  | { kind: 'clear'; to: Storage; bytes: number };

/** Numbers that the host gives anew for each replay, such as a learning rate. */
export interface Feed {
  kind: 'feed';
  to: Storage;
  feed: () => TypedArray;
}

/** Bytes for what lives only within a replay. */
export interface PlanMemory {
  /** In the buffers of the plan. */
  planned: number;
  /** What the same commands take from the pool when they run one by one. */
  eager: number;
  /** Most that was alive at any one command: no plan can do with less. */
  least: number;
  /** In arrays that are filled once, such as seeds of gradients. */
  constants: number;
  /** Arrays, and buffers that they share. */
  arrays: number;
  buffers: number;
}

/** A described operand of the recorded function. */
export interface Described {
  shape: Shape;
  dtype: DType;
}

type Write = Command & { kind: 'write' };

export class Plan {
  disposed = false;

  constructor(
    readonly inputs: readonly (Described & { storage: Storage })[],
    readonly outputs: readonly (Described & { storage: Storage })[],
    /** Written before anything else. */
    readonly feeds: readonly Feed[],
    /** In order; a feed among them is asked when its turn comes. */
    readonly commands: readonly (Command | Feed)[],
    /** To be written once, before the first replay. */
    readonly constants: readonly Write[],
    /** Everything that a replay touches; the plan holds a reference to each. */
    readonly storages: readonly Storage[],
    readonly memory: PlanMemory,
    readonly dispatches: number,
  ) {}
}

/** Takes down commands in place of the GPU. */
export class Recorder {
  readonly #noted: (Command | Feed)[] = [];
  /** Arrays made while recording that nobody has freed. */
  readonly #alive = new Set<GpuArray>();
  readonly #eager = new DryPool();
  #ids = 0;

  /** Memory that exists only on paper. */
  storage(bytes: number): Storage {
    this.#eager.take(bytes);
    return { id: -++this.#ids, buffer: undefined as unknown as GPUBuffer, bytes, refs: 0, batch: -1, planned: true };
  }

  watch(array: GpuArray): void {
    this.#alive.add(array);
  }
  forget(array: GpuArray): void {
    this.#alive.delete(array);
  }
  release(storage: Storage): void {
    this.#eager.give(storage.bytes);
  }

  note(command: Command | Feed): void {
    this.#noted.push(command);
  }

  /** Free what a function left behind that could not be recorded. */
  abandon(): void {
    for (const array of [...this.#alive]) array.dispose();
  }

  /** Give every array its buffer. `inputs` and `outputs` stay the caller's. @throws when other arrays are still held */
  finish(pool: Pool, inputs: readonly GpuArray[], outputs: readonly GpuArray[]): Plan {
    this.#refuseEscapes(inputs, outputs);
    const noted = this.#noted;
    const lives = new Map<Storage, Life>();
    const existing = new Set<Storage>();
    const live = (storage: Storage, at: number) => {
      if (!storage.planned) return void existing.add(storage);
      const life = lives.get(storage);
      if (life) life.last = at;
      else lives.set(storage, { storage, first: at, last: at });
    };
    for (const array of inputs) live(array.storage, -1);
    noted.forEach((command, at) => {
      for (const storage of touched(command)) live(storage, at);
    });
    for (const array of outputs) live(array.storage, noted.length);
    const constants = this.#constants(lives);
    const held = [...existing];
    for (const storage of held) storage.refs++;
    const place = new Map<Storage, Storage>();
    const take = (bytes: number): Storage => {
      const storage = pool.take(bytes);
      storage.refs++;
      held.push(storage);
      return storage;
    };
    let constantBytes = 0;
    for (const { to } of constants) {
      constantBytes += sizeClass(to.bytes);
      place.set(to, take(to.bytes));
      lives.delete(to);
    }
    const shared = share([...lives.values()]);
    for (const { bytes, lives: tenants } of shared) {
      const storage = take(bytes);
      for (const life of tenants) place.set(life.storage, storage);
    }
    const real = (storage: Storage): Storage => (storage.planned ? place.get(storage)! : storage);
    const once = new Set<Command | Feed>(constants);
    const remaining = noted.filter((c) => !once.has(c));
    const [feeds, commands] = feedsFirst(remaining);
    const described = ({ shape, dtype, storage }: GpuArray) => ({ shape, dtype, storage: real(storage) });
    return new Plan(
      inputs.map(described),
      outputs.map(described),
      feeds.map((c) => placed(c, real)),
      commands.map((c) => placed(c, real)),
      constants.map((c) => placed(c, real)),
      held,
      {
        planned: shared.reduce((n, { bytes }) => n + bytes, 0),
        eager: this.#eager.peak,
        least: leastBytes([...lives.values()], noted.length),
        constants: constantBytes,
        arrays: lives.size,
        buffers: shared.length,
      },
      commands.filter((c) => c.kind === 'run').length,
    );
  }

  #refuseEscapes(inputs: readonly GpuArray[], outputs: readonly GpuArray[]): void {
    const expected = new Set([...inputs, ...outputs]);
    const escaped = [...this.#alive].filter((array) => !expected.has(array));
    if (!escaped.length) return;
    const makers = escaped.slice(0, 4).map(({ shape, storage }) => {
      const by = this.#noted.find((c) => touched(c).includes(storage));
      return `  [${shape.join(', ')}]${by?.kind === 'run' ? `  made by ${by.pipeline.name.split('|', 1)[0]}` : ''}`;
    });
    throw new GpuError(
      [
        `compile: ${escaped.length} array${escaped.length > 1 ? 's' : ''} made by the function outlive${escaped.length > 1 ? '' : 's'} it`,
        ...makers,
        ...(escaped.length > 4 ? [`  … and ${escaped.length - 4} more`] : []),
        '  return what is wanted; let the optimiser step consume gradients, or return those of gradients(loss, …)',
      ].join('\n'),
    );
  }

  /** Writes that fill an array which nothing else changes. */
  #constants(lives: Map<Storage, Life>): Write[] {
    const changes = new Map<Storage, number>();
    for (const command of this.#noted) {
      for (const storage of changed(command)) changes.set(storage, (changes.get(storage) ?? 0) + 1);
    }
    return this.#noted.filter(
      (c): c is Write =>
        c.kind === 'write' && c.to.planned === true && changes.get(c.to) === 1 && lives.get(c.to)!.first >= 0,
    );
  }
}

interface Life {
  storage: Storage;
  /** Number of the first and the last command that touches it. */
  first: number;
  last: number;
}

/** Storages that a command reads or writes. */
export function touched(command: Command | Feed): readonly Storage[] {
  if (command.kind === 'run') return command.storages;
  if (command.kind === 'copy') return [command.from, command.to];
  return [command.to];
}

function changed(command: Command | Feed): Storage[] {
  if (command.kind !== 'run') return [command.to];
  const bound = command.pipeline.entry.bindings.filter((b) => b.access !== 'uniform');
  return command.storages.filter((_, i) => bound[i].access === 'read_write');
}

/**
 * Buffers for lives: the largest first, each into the smallest buffer that is free all its life.
 * @see Pisarchyk & Lee 2020, Efficient Memory Management for Deep Neural Net Inference, "greedy by size". https://arxiv.org/abs/2001.03288
 */
function share(lives: Life[]): { bytes: number; lives: Life[] }[] {
  const buffers: { bytes: number; lives: Life[] }[] = [];
  for (const life of [...lives].sort((a, b) => b.storage.bytes - a.storage.bytes || a.first - b.first)) {
    let best: (typeof buffers)[0] | undefined;
    for (const buffer of buffers) {
      if (best && buffer.bytes >= best.bytes) continue;
      if (buffer.lives.every((other) => other.last < life.first || life.last < other.first)) best = buffer;
    }
    if (best) best.lives.push(life);
    else buffers.push({ bytes: sizeClass(life.storage.bytes), lives: [life] });
  }
  return buffers;
}

function leastBytes(lives: Life[], commands: number): number {
  const change = new Float64Array(commands + 3);
  for (const { first, last, storage } of lives) {
    change[first + 1] += storage.bytes;
    change[last + 2] -= storage.bytes;
  }
  let now = 0,
    most = 0;
  for (const delta of change) most = Math.max(most, (now += delta));
  return most;
}

/** The same command on the storages that were planned for it. */
function placed<C extends Command | Feed>(command: C, real: (storage: Storage) => Storage): C {
  if (command.kind === 'run') return { ...command, storages: command.storages.map(real) };
  if (command.kind === 'copy') return { ...command, from: real(command.from), to: real(command.to) };
  return { ...command, to: real(command.to) };
}

/** A feed among commands ends the pass that is being encoded: those whose array nothing touches before go to the front. */
function feedsFirst(noted: readonly (Command | Feed)[]): [Feed[], (Command | Feed)[]] {
  const seen = new Set<Storage>();
  const early: Feed[] = [],
    rest: (Command | Feed)[] = [];
  for (const command of noted) {
    if (command.kind === 'feed' && !command.to.planned && !seen.has(command.to)) early.push(command);
    else rest.push(command);
    for (const storage of touched(command)) seen.add(storage);
  }
  return [early, rest];
}

/** Counts what the pool would do, without buffers. */
class DryPool {
  #free = new Map<number, number>();
  /** All bytes that the pool would have asked for: free ones stay in it. */
  peak = 0;

  take(bytes: number): void {
    const size = sizeClass(bytes);
    const free = this.#free.get(size) ?? 0;
    if (free) this.#free.set(size, free - 1);
    else this.peak += size;
  }
  give(bytes: number): void {
    const size = sizeClass(bytes);
    this.#free.set(size, (this.#free.get(size) ?? 0) + 1);
  }
}

/** @throws when a call's operand is not what was recorded */
export function checkInput(recorded: Described, given: Described, index: number): void {
  if (given.dtype === recorded.dtype && given.shape.join() === recorded.shape.join()) return;
  const show = ({ dtype, shape }: Described) => `${dtype} [${shape.join(', ')}]`;
  throw new GpuError(
    `compile: input ${index} is not what was recorded (${sizeOf(given.shape)} numbers, not ${sizeOf(recorded.shape)})\n` +
      `  recorded  ${show(recorded)}\n  given     ${show(given)}\n  compile the function once for each shape`,
  );
}
