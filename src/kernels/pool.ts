import { mib, OutOfMemoryError } from './errors.ts';
import type { Storage } from './array.ts';

/** What arrays take, in bytes. */
export interface Memory {
  /** Bytes in arrays that are in use. */
  live: number;
  /** Bytes that are free for the next array. */
  pooled: number;
  /** Largest sum of the two so far. */
  peak: number;
  /** Storages in use. */
  arrays: number;
  /** Arrays that the garbage collector found before anybody freed them. */
  leaked: number;
}

const USAGE = 0x80 | 0x4 | 0x8; // STORAGE | COPY_SRC | COPY_DST

/** Four classes to a doubling: at most a quarter is wasted, and sizes of one model fall into few classes. */
export function sizeClass(bytes: number): number {
  if (bytes <= 256) return 256;
  const step = 2 ** Math.max(8, Math.floor(Math.log2(bytes - 1)) - 2);
  return Math.ceil(bytes / step) * step;
}

interface PoolOptions {
  device: GPUDevice;
  /** The most bytes of one array. */
  limit: number;
  /** True when no command that uses a storage waits to be submitted. */
  isIdle(storage: Storage): boolean;
  failed(error: OutOfMemoryError): void;
}

/** Buffers by size class. A freed buffer serves the next array at once: commands run in the order they were given. */
export class Pool {
  #free = new Map<number, Storage[]>();
  #ids = 0;
  #unsure = new Set<Promise<void>>();
  readonly memory: Memory = { live: 0, pooled: 0, peak: 0, arrays: 0, leaked: 0 };

  constructor(private readonly options: PoolOptions) {}

  /** Settled when the driver has said of every buffer so far whether it could be allocated. */
  get unsure(): ReadonlySet<Promise<void>> {
    return this.#unsure;
  }

  /** `bytes`: no more than the limit. */
  take(bytes: number): Storage {
    const { limit } = this.options;
    const size = Math.min(sizeClass(bytes), Math.floor(limit / 4) * 4);
    const memory = this.memory;
    let storage = this.#free.get(size)?.pop();
    if (storage) memory.pooled -= size;
    else storage = this.make(size);
    memory.live += size;
    memory.arrays++;
    memory.peak = Math.max(memory.peak, memory.live + memory.pooled);
    return storage;
  }

  /** A new buffer. Drivers tell later that there is no memory for it: then pooled memory goes back to them for a second try. */
  make(bytes: number, usage: number = USAGE): Storage {
    const storage = { id: ++this.#ids, bytes, refs: 0, batch: -1 } as Storage;
    const known: Promise<void> = this.#allocate(storage, usage)
      .then(async (made) => {
        if (made) return;
        const { queue } = this.options.device;
        await queue.onSubmittedWorkDone();
        const given = this.trim();
        queue.submit([]); // memory of destroyed buffers comes free with the next submit
        await queue.onSubmittedWorkDone();
        if (await this.#allocate(storage, usage)) return;
        this.#forsake(storage);
        this.options.failed(this.#outOfMemory(bytes, given));
      })
      .catch(() => {}) // a device that is lost meanwhile is reported as such
      .finally(() => this.#unsure.delete(known));
    this.#unsure.add(known);
    return storage;
  }

  /** @returns whether there was memory */
  #allocate(storage: Storage, usage: number): Promise<boolean> {
    const { device } = this.options;
    device.pushErrorScope('out-of-memory');
    storage.buffer = device.createBuffer({ size: storage.bytes, usage });
    return device.popErrorScope().then((error) => !error);
  }

  /** Whoever holds it is told; nobody else gets it. */
  #forsake(storage: Storage): void {
    storage.failed = true;
    const list = this.#free.get(storage.bytes) ?? [];
    if (!list.includes(storage)) return;
    list.splice(list.indexOf(storage), 1);
    this.memory.pooled -= storage.bytes;
  }

  #outOfMemory(bytes: number, given: number): OutOfMemoryError {
    const { live, pooled, arrays } = this.memory;
    return new OutOfMemoryError(
      [
        `out of GPU memory: ${mib(bytes)} more could not be had`,
        `  live    ${mib(live)} in ${arrays} arrays, with this one`,
        `  pooled  ${mib(pooled)}, after ${mib(given)} were given back for a second try`,
        '  use a smaller batch or image, checkpoint() in training, or free more: see gpu.leaks() and docs/memory.md',
      ].join('\n'),
    );
  }

  give(storage: Storage): void {
    this.memory.live -= storage.bytes;
    this.memory.arrays--;
    if (storage.failed) return;
    this.memory.pooled += storage.bytes;
    const list = this.#free.get(storage.bytes);
    if (!list) return void this.#free.set(storage.bytes, [storage]);
    // Lowest number last: the same work takes the same buffers each time, and finds its bind groups ready.
    let low = 0,
      high = list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle].id > storage.id) low = middle + 1;
      else high = middle;
    }
    list.splice(low, 0, storage);
  }

  /** Give pooled buffers that no waiting command uses back to the driver. @returns how many bytes */
  trim(): number {
    const before = this.memory.pooled;
    for (const [size, list] of this.#free) {
      const busy = list.filter((storage) => !this.options.isIdle(storage));
      for (const storage of list) if (!busy.includes(storage)) storage.buffer.destroy();
      this.memory.pooled -= size * (list.length - busy.length);
      this.#free.set(size, busy);
    }
    return before - this.memory.pooled;
  }
}
