/** Times kernels with benchmark.js and reports the unit that shows the ceiling. */
import Benchmark from 'benchmark';
import { currentGpu, noGrad, scope } from '../src/tensor/index.ts';

export interface Line {
  /** The op and the shape that a model really uses: 'matmul f32[4096, 320] × [320, 320]'. */
  name: string;
  /** Floating-point operations of one call: a multiply-add counts as two. */
  flop?: number;
  /** Bytes that one call must move, if everything were read and written once. */
  bytes?: number;
  run(): void;
}

export interface Result {
  name: string;
  milliseconds: number;
  /** Relative margin of error, in percent. */
  margin: number;
  gflops?: number;
  gbs?: number;
}

/** A cycle repeats a short call until it takes this long, so that waiting for the GPU does not count. */
const CYCLE_MS = 40;

/** Measure one line after the other; each prints as it is done. */
export async function measure(lines: Line[], print: (text: string) => void = console.log): Promise<Result[]> {
  const results: Result[] = [];
  for (const line of lines) {
    const repeat = await calibrate(line);
    const result = await new Promise<Result>((resolve, reject) => {
      new Benchmark(line.name, {
        defer: true,
        minSamples: 5,
        maxTime: 2,
        fn(run) {
          calls(line, repeat);
          currentGpu()
            .idle()
            .then(() => run.resolve(), reject);
        },
        onComplete(event) {
          const { sample, rme } = event.target.stats;
          const seconds = median(sample) / repeat;
          resolve({
            name: line.name,
            milliseconds: seconds * 1e3,
            margin: rme,
            gflops: line.flop && line.flop / seconds / 1e9,
            gbs: line.bytes && line.bytes / seconds / 1e9,
          });
        },
      }).run({ async: true });
    });
    print(row(result));
    results.push(result);
  }
  return results;
}

export function row({ name, milliseconds, margin, gflops, gbs }: Result): string {
  const unit = gflops ? `${gflops.toFixed(1)} GFLOP/s` : gbs ? `${gbs.toFixed(2)} GB/s` : '';
  return `${name.padEnd(58)} ${milliseconds.toFixed(3).padStart(10)} ms ±${margin.toFixed(0).padStart(2)} %  ${unit}`;
}

async function calibrate(line: Line): Promise<number> {
  calls(line, 2);
  await currentGpu().idle();
  const start = performance.now();
  calls(line, 1);
  await currentGpu().idle();
  return Math.max(1, Math.round(CYCLE_MS / (performance.now() - start)));
}

function calls(line: Line, count: number): void {
  for (let i = 0; i < count; i++) scope(() => line.run());
}

/** A forward pass alone, without a tape. */
export const forward = (fn: () => unknown) => () => void noGrad(fn);

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
