/** Times lines with benchmark.js, after checking them, and reports the unit that shows the ceiling. */
import Benchmark from 'benchmark';
import { currentGpu, scope } from '../src/tensor/index.ts';
import { median } from './machine.ts';
import type { Peak } from './peak.ts';

export interface Line {
  /** The op and the shape that a model really uses: 'linear [4096, 320] × [320, 2560]'. */
  name: string;
  /** Floating-point operations of one call: a multiply-add counts as two. */
  flop?: number;
  /** Bytes that one call must move, if everything were read and written once. */
  bytes?: number;
  /** Make the operands. Not before it is this line's turn: all lines together would not fit into memory. */
  prepare(): Prepared;
}

export interface Prepared {
  run(): void;
  /** @throws when a result is wrong */
  check(): Promise<void>;
  dispose(): void;
}

export interface Result {
  name: string;
  /** One call by the clock: the median of the samples. */
  milliseconds?: number;
  /** Relative margin of error, in percent. */
  margin?: number;
  /** Time of one call on all processors together: on a software adapter the work itself, whoever else runs. */
  processorMilliseconds?: number;
  /** One call by the GPU's own timestamps, dispatch by dispatch. */
  gpuMilliseconds?: number;
  gflops?: number;
  gbs?: number;
  /** Share of the measured peak: of the best matmul, or of a copy. */
  ofPeak?: number;
  /** Why it was not timed. */
  leftOut?: string;
}

export interface Budget {
  /** Time for the samples of one line, beyond the three that it gets at least. */
  seconds: number;
  /** Leave out lines that would take longer for one call, by the measured peak. */
  longest: number;
}

/** A cycle repeats a short call until it takes this long, so that waiting for the GPU does not count. */
const CYCLE_MS = 40;

/** Check and measure one line after the other; each prints as it is done. */
export async function measure(
  lines: Line[],
  peak: Peak,
  { seconds, longest }: Budget,
  print: (text: string) => void = console.log,
): Promise<Result[]> {
  const results: Result[] = [];
  for (const line of lines) {
    const expected = ((line.flop ?? 0) / peak.gflops + (line.bytes ?? 0) / peak.gbs) / 1e6;
    const result: Result =
      expected > longest ? { name: line.name, leftOut: leftOut(expected) } : await time(line, peak, seconds);
    print(row(result));
    results.push(result);
  }
  return results;
}

const leftOut = (expected: number) => `about ${(expected / 1000).toFixed(1)} s a call: name its part to time it`;

async function time(line: Line, peak: Peak, seconds: number): Promise<Result> {
  const { run, check, dispose } = line.prepare();
  try {
    await check().catch((error: Error) => {
      throw new Error(`${line.name}: ${error.message}\n  nothing is timed that is not right`);
    });
    const repeat = await calibrate(run);
    const before = process.cpuUsage();
    const { sample, rme, calls: count } = await benchmark(line.name, seconds, run, repeat);
    const { user, system } = process.cpuUsage(before);
    const each = median(sample) / repeat;
    const gpu = currentGpu();
    const kernels = gpu.capabilities.timestamps ? await gpu.profile(() => calls(run, 1)) : undefined;
    const gflops = line.flop && line.flop / each / 1e9;
    const gbs = line.bytes && line.bytes / each / 1e9;
    return {
      name: line.name,
      milliseconds: each * 1e3,
      margin: rme,
      processorMilliseconds: gpu.capabilities.family === 'cpu' ? (user + system) / 1000 / count : undefined,
      gpuMilliseconds: kernels?.reduce((sum, k) => sum + k.milliseconds, 0),
      gflops,
      gbs,
      ofPeak: gflops ? gflops / peak.gflops : gbs && gbs / peak.gbs,
    };
  } finally {
    dispose();
    await currentGpu().trim();
  }
}

function benchmark(
  name: string,
  seconds: number,
  run: () => void,
  repeat: number,
): Promise<{ sample: number[]; rme: number; calls: number }> {
  return new Promise((resolve, reject) => {
    let count = 0;
    new Benchmark(name, {
      defer: true,
      minSamples: 3,
      maxTime: seconds,
      fn(deferred) {
        calls(run, repeat);
        count += repeat;
        currentGpu()
          .idle()
          .then(() => deferred.resolve(), reject);
      },
      onComplete: ({ target }) => resolve({ ...target.stats, calls: count }),
    }).run({ async: true });
  });
}

/** 'softmax [8, 1024, 1024]    8.900 ms ± 2 %   16.210 on CPU    7.54 GB/s   30 %' */
export function row(result: Result): string {
  const { milliseconds, margin = 0, processorMilliseconds, gpuMilliseconds, gflops, gbs, ofPeak } = result;
  const title = result.name.padEnd(62);
  if (milliseconds === undefined) return `${title} ${result.leftOut}`;
  const column = (x: number | undefined, digits: number, width: number) => (x ?? 0).toFixed(digits).padStart(width);
  // A software adapter's timestamps are the clock's.
  const inside =
    processorMilliseconds !== undefined
      ? `${column(processorMilliseconds, 3, 10)} on CPU`
      : `${column(gpuMilliseconds, 3, 10)} on GPU`;
  const unit = gflops ? `${column(gflops, 1, 8)} GFLOP/s` : gbs ? `${column(gbs, 2, 8)} GB/s   ` : '';
  const share = ofPeak ? `${column(100 * ofPeak, 0, 4)} %` : '';
  return `${title} ${column(milliseconds, 3, 10)} ms ±${column(margin, 0, 2)} % ${inside} ${unit} ${share}`.trimEnd();
}

export async function calibrate(run: () => void): Promise<number> {
  calls(run, 2);
  await currentGpu().idle();
  const start = performance.now();
  calls(run, 1);
  await currentGpu().idle();
  return Math.max(1, Math.round(CYCLE_MS / (performance.now() - start)));
}

export function calls(run: () => void, count: number): void {
  for (let i = 0; i < count; i++) scope(run);
}
