/** Products, 3 × 3 convolutions and attention at the shapes that networks have, in f16 and f32: TFLOP/s by the clock, and by the GPU's. */
import { attention, conv2d, currentGpu, matmul, noGrad, scope, tensor } from '../../src/tensor/index.ts';
import type { DType } from '../../src/kernels/index.ts';
import type { Tensor } from '../../src/tensor/index.ts';
import { median } from '../machine.ts';
import { numbers } from '../work.ts';
import type { PartOptions } from './part.ts';

/** One shape in one dtype. */
export interface SweepRow {
  kind: 'gemm' | 'conv' | 'attention';
  /** gemm: M, N, K. conv: side, channels, outputs. attention: queries, keys, heads, width of a head. */
  shape: number[];
  dtype: DType;
  milliseconds: number;
  /** By timestamps around each dispatch. */
  gpuMilliseconds?: number;
  tflops: number;
  error?: string;
}

/** The same list is in torch_baseline.py. */
export const SHAPES: [SweepRow['kind'], number[]][] = [
  ['gemm', [4096, 4096, 4096]],
  ['gemm', [8192, 8192, 8192]],
  ['gemm', [16384, 512, 4608]],
  ['gemm', [4096, 320, 320]],
  ['gemm', [4096, 2560, 320]],
  ['gemm', [1024, 640, 5760]],
  ['gemm', [256, 10240, 1280]],
  ['gemm', [77, 768, 768]],
  ['conv', [512, 128, 128]],
  ['conv', [512, 256, 128]],
  ['conv', [256, 256, 256]],
  ['conv', [128, 512, 512]],
  ['conv', [64, 512, 512]],
  ['conv', [64, 320, 320]],
  ['conv', [32, 640, 640]],
  ['conv', [16, 1280, 1280]],
  ['conv', [8, 1280, 1280]],
  ['attention', [4096, 4096, 8, 40]],
  ['attention', [1024, 1024, 8, 80]],
  ['attention', [256, 256, 8, 160]],
  ['attention', [4096, 77, 8, 40]],
  ['attention', [4096, 4096, 1, 512]],
];

export async function sweep({ small, say, seconds }: PartOptions): Promise<SweepRow[]> {
  const end = performance.now() + 1000 * seconds();
  const rows: SweepRow[] = [];
  const dtypes: DType[] = currentGpu().capabilities.f16 ? ['f16', 'f32'] : ['f32'];
  for (const [kind, full] of SHAPES) {
    const shape = small ? full.map((n) => Math.min(n, 16)) : full;
    for (const dtype of dtypes) {
      if (performance.now() > end) {
        say(`  ${kind} ${shape.join(' ')} ${dtype}: left out, the time is up`);
        continue;
      }
      const row = await time(kind, shape, dtype).catch((error: Error): SweepRow => ({
        kind,
        shape,
        dtype,
        milliseconds: NaN,
        tflops: NaN,
        error: error.message,
      }));
      rows.push(row);
      say(describe(row));
    }
  }
  return rows;
}

/** Calls in a row without waiting, so that starting them does not count. */
const ROW_MS = 20;

async function time(kind: SweepRow['kind'], shape: number[], dtype: DType): Promise<SweepRow> {
  const gpu = currentGpu();
  const { operands, run, flop } = make[kind](shape, dtype);
  const calls = (n: number) => {
    for (let i = 0; i < n; i++) noGrad(() => scope(() => void run()));
  };
  const clock = async (n: number) => {
    const start = performance.now();
    calls(n);
    await gpu.idle();
    return (performance.now() - start) / n;
  };
  try {
    await clock(1);
    const first = await clock(1);
    const n = Math.max(1, Math.min(200, Math.round(ROW_MS / first)));
    const times: number[] = [];
    for (let i = 0; i < 5; i++) times.push(await clock(n));
    const kernels = gpu.capabilities.timestamps ? await gpu.profile(() => calls(1)) : undefined;
    const milliseconds = median(times);
    const gpuMilliseconds = kernels?.reduce((total, k) => total + k.milliseconds, 0);
    return { kind, shape, dtype, milliseconds, gpuMilliseconds, tflops: flop / milliseconds / 1e9 };
  } finally {
    operands.forEach((x) => x.dispose());
    await gpu.trim();
  }
}

const make: Record<
  SweepRow['kind'],
  (shape: number[], dtype: DType) => { operands: Tensor[]; run(): Tensor; flop: number }
> = {
  gemm([M, N, K], dtype) {
    const [a, b] = [random([M, K], dtype), random([N, K], dtype)];
    return { operands: [a, b], run: () => matmul(a, b, { transposeB: true }), flop: 2 * M * N * K };
  },
  conv([side, C, O], dtype) {
    const [x, w] = [random([1, side, side, C], dtype), random([O, 3, 3, C], dtype)];
    return { operands: [x, w], run: () => conv2d(x, w, undefined, { padding: 1 }), flop: 18 * side * side * C * O };
  },
  attention([Q, K, heads, D], dtype) {
    const [q, k, v] = [Q, K, K].map((n) => random([1, n, heads * D], dtype));
    return { operands: [q, k, v], run: () => attention(q, k, v, { heads }), flop: 4 * Q * K * heads * D };
  },
};

const random = (shape: number[], dtype: DType): Tensor =>
  tensor(
    numbers(
      shape.reduce((a, b) => a * b),
      3,
    ),
    shape,
    { dtype },
  );

const describe = ({ kind, shape, dtype, milliseconds, gpuMilliseconds, tflops, error }: SweepRow): string =>
  `  ${kind.padEnd(9)} ${shape.join(' ').padEnd(18)} ${dtype}  ` +
  (error ??
    `${milliseconds.toFixed(3).padStart(9)} ms  ${(gpuMilliseconds ?? NaN).toFixed(3).padStart(9)} on GPU  ${tflops.toFixed(2).padStart(7)} TFLOP/s`);
