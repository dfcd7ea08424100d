import { GpuError } from './errors.ts';
import type { Storage } from './array.ts';

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

/** Buffers by size class. A freed buffer serves the next array at once: commands run in the order they were given. */
export class Pool {
  #free = new Map<number, Storage[]>();
  #ids = 0;
  readonly memory: Memory = { live: 0, pooled: 0, peak: 0, arrays: 0, leaked: 0 };

  constructor(private readonly device: GPUDevice) {}

  take(bytes: number): Storage {
    const limit = Math.min(this.device.limits.maxStorageBufferBindingSize, this.device.limits.maxBufferSize);
    if (bytes > limit) {
      throw new GpuError(
        `an array of ${mib(bytes)} is more than this adapter binds at once (${mib(limit)})\n  use a smaller batch or image`,
      );
    }
    const size = Math.min(sizeClass(bytes), Math.floor(limit / 4) * 4);
    const memory = this.memory;
    let storage = this.#free.get(size)?.pop();
    if (storage) memory.pooled -= size;
    else {
      const buffer = this.device.createBuffer({ size, usage: USAGE });
      storage = { id: ++this.#ids, buffer, bytes: size, refs: 0, batch: -1 };
    }
    memory.live += size;
    memory.arrays++;
    memory.peak = Math.max(memory.peak, memory.live + memory.pooled);
    return storage;
  }

  give(storage: Storage): void {
    this.memory.live -= storage.bytes;
    this.memory.pooled += storage.bytes;
    this.memory.arrays--;
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

  /** Give pooled buffers back to the driver. Only while no command that uses them waits. */
  trim(): void {
    for (const list of this.#free.values()) for (const storage of list) storage.buffer.destroy();
    this.#free.clear();
    this.memory.pooled = 0;
  }
}

export const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 24 ? 2 : 0)} MiB`;
