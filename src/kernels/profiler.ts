/** How long each dispatch takes on the GPU, by timestamps around it. */
import { wait } from '#platform';
import { GpuError } from './errors.ts';

/** All dispatches of one kernel. */
export interface KernelTime {
  kernel: string;
  dispatches: number;
  /** On the GPU. Dispatches are timed alone, so the sum may exceed what they take side by side. */
  milliseconds: number;
}

const QUERIES = 4096; // the most that WebGPU allows in one set

/** Collects between construction and `result`. Dawn rounds to 0.1 ms unless `timestamp_quantization` is switched off. */
export class Profiler {
  #sets: { set: GPUQuerySet; names: string[] }[] = [];

  constructor(private readonly device: GPUDevice) {
    if (!device.features.has('timestamp-query'))
      throw new GpuError('profile: this adapter has no timestamps\n  time whole calls instead');
  }

  /** What a pass that runs one dispatch is begun with. */
  pass(kernel: string): GPUComputePassDescriptor {
    let current = this.#sets.at(-1);
    if (!current || current.names.length * 2 === QUERIES) {
      current = { set: this.device.createQuerySet({ type: 'timestamp', count: QUERIES }), names: [] };
      this.#sets.push(current);
    }
    const first = 2 * current.names.push(kernel) - 2;
    return {
      timestampWrites: { querySet: current.set, beginningOfPassWriteIndex: first, endOfPassWriteIndex: first + 1 },
    };
  }

  /** Sums by kernel, the longest first. Call when the GPU is idle. */
  async result(): Promise<KernelTime[]> {
    const total = new Map<string, KernelTime>();
    for (const { set, names } of this.#sets) {
      const bytes = names.length * 16;
      const resolved = this.device.createBuffer({ size: bytes, usage: 0x200 | 0x4 }); // QUERY_RESOLVE | COPY_SRC
      const staging = this.device.createBuffer({ size: bytes, usage: 0x1 | 0x8 }); // MAP_READ | COPY_DST
      const encoder = this.device.createCommandEncoder();
      encoder.resolveQuerySet(set, 0, names.length * 2, resolved, 0);
      encoder.copyBufferToBuffer(resolved, 0, staging, 0, bytes);
      this.device.queue.submit([encoder.finish()]);
      await wait(staging.mapAsync(0x1));
      const times = new BigUint64Array(staging.getMappedRange());
      names.forEach((kernel, i) => {
        let sum = total.get(kernel);
        if (!sum) total.set(kernel, (sum = { kernel, dispatches: 0, milliseconds: 0 }));
        sum.dispatches++;
        sum.milliseconds += Number(times[2 * i + 1] - times[2 * i]) / 1e6;
      });
      staging.destroy();
      resolved.destroy();
      set.destroy();
    }
    return [...total.values()].sort((a, b) => b.milliseconds - a.milliseconds);
  }
}
