/** Runs kernels forwards and backwards on this adapter and compares them with their plain JavaScript references. */
import { floatToHalf, halfToFloat } from '../kernels/half.ts';
import { hostArray, sizeOf } from '../kernels/index.ts';
import type { Gpu, GpuArray, HostArray, Op } from '../kernels/index.ts';
import { uniform } from '../tensor/random.ts';

export interface SelfTestCase {
  op: Op<any, any>;
  shapes: (readonly number[] | undefined)[];
  attrs: object;
  /** Of all operands, f32 when not given. */
  dtype?: 'f16';
}
export interface SelfTestResult {
  name: string;
  /** Relative error of the output, and of the derivative along a random direction. */
  forward: number;
  backward: number;
  ok: boolean;
}

const TOLERANCE = { f32: 1e-4, f16: 2e-3 };

export async function selfTest(gpu: Gpu, { op, shapes, attrs, dtype }: SelfTestCase): Promise<SelfTestResult> {
  const host = shapes.map((shape, i) => shape && random(shape, i, dtype));
  const arrays = host.map((h) => h && gpu.array(h.shape, Float32Array.from(h.data), dtype));
  const { output, saved = [] } = op.forward(gpu, arrays, attrs);
  const want = op.reference(host, attrs);
  const forward = relative(await output.read(), want.data);

  const dy = random(output.shape, 50, dtype);
  const gradients = op.backward!(
    gpu,
    gpu.array(dy.shape, Float32Array.from(dy.data), dtype),
    saved as GpuArray[],
    attrs,
    arrays.map(Boolean),
  );
  const directions = host.map((h, i) => h && random(h.shape, 60 + i));
  let got = 0;
  for (const [i, gradient] of gradients.entries()) {
    if (gradient && directions[i]) got += dot(await gradient.read(), directions[i].data);
  }
  const step = 1e-4;
  const moved = (s: number) =>
    dot(
      op.reference(
        host.map((h, i) => h && along(h, directions[i]!, s)),
        attrs,
      ).data,
      dy.data,
    );
  const expected = (moved(step) - moved(-step)) / (2 * step);
  const scale = Math.sqrt(dot(dy.data, dy.data) * directions.reduce((n, d) => n + (d ? d.data.length : 0), 0));
  const backward = Math.abs(got - expected) / Math.max(Math.abs(expected), 1e-2 * scale);
  const tolerance = TOLERANCE[dtype ?? 'f32'];
  const name = dtype ? `${op.name} ${dtype}` : op.name;
  return { name, forward, backward, ok: forward < tolerance && backward < 10 * tolerance };
}

function random(shape: readonly number[], stream: number, dtype?: 'f16'): HostArray {
  const numbers = uniform(1, stream, sizeOf(shape)).map((u) => 2 * u - 1);
  return hostArray(shape, dtype ? numbers.map((v) => halfToFloat(floatToHalf(v))) : numbers);
}

const along = (h: HostArray, d: HostArray, s: number): HostArray =>
  hostArray(
    h.shape,
    h.data.map((v, i) => v + s * d.data[i]),
  );

const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
};

function relative(got: ArrayLike<number>, want: ArrayLike<number>): number {
  let error = 0;
  let largest = 1e-30;
  for (let i = 0; i < want.length; i++) {
    const e = Math.abs(got[i] - want[i]);
    error = e <= error ? error : Number.isNaN(e) ? Infinity : e;
    largest = Math.max(largest, Math.abs(want[i]));
  }
  return error / largest;
}
