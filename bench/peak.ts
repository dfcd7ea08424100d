/** The ceilings of this adapter, measured before anything else. */
import * as T from '../src/tensor/index.ts';
import { calls } from './measure.ts';
import code from './peak.wgsl';
import { numbers } from './work.ts';

export interface Peak {
  /** Our best matmul: what other products can be expected to reach. */
  gflops: number;
  /** A copy from buffer to buffer, read and write both counted. */
  gbs: number;
  /** Multiply-adds on registers: no kernel is faster. */
  registerGflops: number;
}

const BATCHES = 5;

/** `seconds` bounds the size of the matmul: the next larger one is tried while a call stays well below. */
export async function measurePeak(seconds: number): Promise<Peak> {
  return { gflops: await matmulPeak(seconds), gbs: await copyPeak(), registerGflops: await registerPeak() };
}

async function matmulPeak(seconds: number): Promise<number> {
  let best = 0;
  for (const n of [512, 1024, 2048, 4096]) {
    const [a, b] = [1, 2].map((seed) => T.keep(T.tensor(numbers(n * n, seed), [n, n])));
    const each = await fastest(() => T.noGrad(() => void T.matmul(a, b)));
    a.dispose();
    b.dispose();
    best = Math.max(best, (2 * n ** 3) / each / 1e6);
    if (each * 8 * BATCHES > 1000 * seconds) break;
  }
  return best;
}

async function copyPeak(): Promise<number> {
  const gpu = T.currentGpu();
  const [from, to] = [gpu.zeros([2 ** 23]), gpu.zeros([2 ** 23])];
  const each = await fastest(() => gpu.copy(from, to));
  from.dispose();
  to.dispose();
  return (2 * 2 ** 25) / each / 1e6;
}

async function registerPeak(): Promise<number> {
  const gpu = T.currentGpu();
  const [threads, rounds] = [64 * 1024, 256];
  const y = gpu.empty([threads]);
  const each = await fastest(() => gpu.run(code, 'multiply_add', { rounds }, [y], [threads / 64]));
  y.dispose();
  return (threads * rounds * 8 * 4 * 2) / each / 1e6;
}

/** Milliseconds of one call in the fastest of some batches: a peak is what nothing disturbs. */
async function fastest(run: () => void): Promise<number> {
  let best = Infinity;
  let repeat = 1;
  for (let batch = 0; batch <= BATCHES; batch++) {
    const start = performance.now();
    calls(run, repeat);
    await T.currentGpu().idle();
    const each = (performance.now() - start) / repeat;
    if (batch > 0) best = Math.min(best, each);
    repeat = Math.max(1, Math.ceil(20 / each));
  }
  return best;
}
