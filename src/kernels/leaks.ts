import type { GpuArray, Shape, Storage } from './array.ts';

/** Arrays of one shape from one op that nobody freed before the garbage collector found them. */
export interface Leak {
  /** The op that made them; 'array' for those made outside any. */
  op: string;
  shape: Shape;
  count: number;
  /** What they held until they were found. A view of memory that somebody else still holds counts 0. */
  bytes: number;
  /** Where they were made, if the device was opened with `traceLeaks`. */
  stack?: string;
}

interface Origin {
  storage: Storage;
  op: string;
  shape: Shape;
  stack?: string;
}

/** The net under all arrays: frees what was forgotten and remembers who made it. An array that is freed costs a name here. */
export class Leaks {
  /** Whose arrays are made now. */
  op = 'array';
  #found = new Map<string, Leak>();
  #registry: FinalizationRegistry<Origin>;

  /** `free` gives a share of a storage back and tells how many bytes that freed, or undefined when nothing counts any more. */
  constructor(
    free: (storage: Storage) => number | undefined,
    private readonly trace = false,
  ) {
    this.#registry = new FinalizationRegistry((origin) => {
      const bytes = free(origin.storage);
      if (bytes !== undefined) this.#note(origin, bytes);
    });
  }

  watch(array: GpuArray, storage: Storage): void {
    const origin: Origin = { storage, op: this.op, shape: array.shape };
    if (this.trace) origin.stack = new Error('made here').stack;
    this.#registry.register(array, origin, array);
  }

  forget(array: GpuArray): void {
    this.#registry.unregister(array);
  }

  /** The largest first. */
  list(): Leak[] {
    return [...this.#found.values()].sort((a, b) => b.bytes - a.bytes || b.count - a.count);
  }

  #note({ op, shape, stack }: Origin, bytes: number): void {
    const key = `${op} ${shape.join()} ${stack ?? ''}`;
    let leak = this.#found.get(key);
    if (!leak) this.#found.set(key, (leak = { op, shape, count: 0, bytes: 0, ...(stack && { stack }) }));
    leak.count++;
    leak.bytes += bytes;
  }
}
