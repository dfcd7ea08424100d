/** Each op of a model by itself, at its own shapes, beside a matmul: which one falls behind it. */
import { flopsOf } from '../src/flow/estimate/work.ts';
import type { OpCall } from '../src/flow/estimate/work.ts';
import { currentGpu, matmul, noGrad, scope, tensor, Tensor } from '../src/tensor/index.ts';
import { apply } from '../src/tensor/tensor.ts';
import { median } from './machine.ts';
import { numbers } from './work.ts';

export interface OpTime {
  op: string;
  shapes: string;
  count: number;
  flop: number;
  /** One call; on a software adapter processor time of all threads, which hardly depends on what else runs. */
  seconds: number;
  /** FLOP/s of the matmul at the same time, by the same clock. */
  matmul: number;
}

/** Rates of one square matmul. */
export interface Probe {
  gflops: number;
  processorGflops: number;
}

const SIDE = 1024;
const ROUNDS = 3;

/** A square matmul to measure by turns with other work. */
export async function matmulProbe(): Promise<(() => Promise<Probe>) & { dispose(): void }> {
  const a = tensor(numbers(SIDE * SIDE, 3), [SIDE, SIDE]);
  const run = () => time(() => matmul(a, a));
  await run();
  const probe = async (): Promise<Probe> => {
    const times = [];
    for (let i = 0; i < ROUNDS; i++) times.push(await run());
    const rate = (seconds: number[]) => (2 * SIDE ** 3) / median(seconds) / 1e9;
    return { gflops: rate(times.map((t) => t.seconds)), processorGflops: rate(times.map((t) => t.processorSeconds)) };
  };
  return Object.assign(probe, { dispose: () => a.dispose() });
}

/** Time each call, after one that compiles its kernels. */
export async function opTimes(calls: readonly OpCall[]): Promise<OpTime[]> {
  const onProcessor = currentGpu().capabilities.family === 'cpu';
  const probe = await matmulProbe();
  const results: OpTime[] = [];
  let before = await probe();
  for (const call of calls) {
    const { op, inputs, attrs, count } = call;
    const tensors = inputs.map((x) => x && operand(x.shape, x.dtype));
    const run = () => time(() => apply(op, tensors, attrs));
    const first = await run();
    const repeats = first.seconds > 2 ? 1 : 3;
    const times = [];
    for (let i = 0; i < repeats; i++) times.push(await run());
    for (const x of tensors) x?.dispose();
    await currentGpu().trim();
    const after = await probe();
    const rate = (p: Probe) => 1e9 * (onProcessor ? p.processorGflops : p.gflops);
    results.push({
      op: op.name,
      shapes: `${inputs.map((x) => (x ? `[${x.shape.join(', ')}]` : '–')).join(' ')} ${brief(attrs)}`.trim(),
      count,
      flop: flopsOf(call),
      seconds: median(times.map((t) => (onProcessor ? t.processorSeconds : t.seconds))),
      matmul: 2 / (1 / rate(before) + 1 / rate(after)),
    });
    before = after;
  }
  probe.dispose();
  return results;
}

const brief = (attrs: object): string => {
  const given = Object.entries(attrs).filter(([, v]) => v !== undefined && v !== false);
  return given.length ? given.map(([k, v]) => `${k} ${JSON.stringify(v)}`).join(' ') : '';
};

async function time(call: () => Tensor): Promise<{ seconds: number; processorSeconds: number }> {
  const cpu = process.cpuUsage();
  const start = performance.now();
  noGrad(() => scope(() => void call()));
  await currentGpu().idle();
  const { user, system } = process.cpuUsage(cpu);
  return { seconds: (performance.now() - start) / 1000, processorSeconds: (user + system) / 1e6 };
}

/** Numbers as they occur: zeros would be cheaper for some adapters. */
function operand(shape: readonly number[], dtype: OpCall['output']['dtype']): Tensor {
  const size = shape.reduce((n, d) => n * d, 1);
  if (dtype === 'i32' || dtype === 'u32') return new Tensor(currentGpu().zeros(shape, dtype));
  const data = new Float32Array(size);
  const some = Math.min(size, 2 ** 16);
  data.set(numbers(some, 1));
  for (let at = some; at < size; at *= 2) data.copyWithin(at, 0, Math.min(at, size - at));
  return new Tensor(currentGpu().array(shape, data, dtype));
}
