/** Many training steps: memory must stay where it was after the first few. */
import * as T from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { training } from './calls.ts';
import { teacher } from './suite.ts';
import { WORKS } from './work.ts';
import type { WorkOf } from './work.ts';

export interface Soak {
  name: string;
  steps: number;
  milliseconds: number;
  /** Bytes after the first steps, and at the end. */
  live: [number, number];
  pooled: [number, number];
  /** Memory of the process, JavaScript's included, in the same two moments. */
  resident: [number, number];
  /** Arrays that only the garbage collector freed. */
  leaked: number;
  flat: boolean;
}

const SETTLED = 10;
const LOOKS = 20;

export async function soak(steps: number, print: (text: string) => void = console.log): Promise<Soak[]> {
  const networks = {
    perceptron: () => training(WORKS.trainmlp as WorkOf<'train'>),
    'three convolutions': () => training(WORKS.traincnn as WorkOf<'train'>),
    'the emoji model’s teacher, batch 2': () => teacher(2),
  };
  const results: Soak[] = [];
  for (const [name, make] of Object.entries(networks)) {
    const { step, dispose } = make();
    const result = await run(name, steps, step);
    dispose();
    await T.currentGpu().trim();
    results.push(result);
    print(soakRow(result));
  }
  return results;
}

async function run(name: string, steps: number, step: () => Tensor): Promise<Soak> {
  const gpu = T.currentGpu();
  const before = gpu.memory().leaked;
  let first: ReturnType<typeof look> | undefined;
  let flat = true;
  const start = performance.now();
  for (let i = 1; i <= steps; i++) {
    T.scope(() => void step());
    if (i !== SETTLED && i % Math.ceil(steps / LOOKS) && i !== steps) continue;
    await gpu.idle();
    const now = look(gpu);
    if (i >= SETTLED) first ??= now;
    if (first && (now.live !== first.live || now.pooled !== first.pooled)) flat = false;
  }
  const last = look(gpu);
  first ??= last;
  return {
    name,
    steps,
    milliseconds: (performance.now() - start) / steps,
    live: [first.live, last.live],
    pooled: [first.pooled, last.pooled],
    resident: [first.resident, last.resident],
    leaked: last.leaked - before,
    flat,
  };
}

const look = (gpu: ReturnType<typeof T.currentGpu>) => ({ ...gpu.memory(), resident: process.memoryUsage.rss() });

export function soakRow({ name, steps, milliseconds, live, pooled, resident, leaked, flat }: Soak): string {
  const pair = ([first, last]: [number, number]) => (first === last ? `${first}` : `${first} → ${last}`);
  const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(0);
  return (
    `${name}: ${steps} steps of ${milliseconds.toFixed(1)} ms, live bytes ${pair(live)}, pooled ${pair(pooled)}: ${flat ? 'flat' : 'NOT FLAT'}` +
    ` (process ${mib(resident[0])} → ${mib(resident[1])} MiB, ${leaked} arrays left to the collector)`
  );
}
