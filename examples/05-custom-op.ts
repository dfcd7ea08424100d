/**
 * An op of your own, from kernel to gradient to check:   node scripts/run.mjs examples/05-custom-op.ts
 *
 * Every op of the library is made like this; docs/adding-an-op.md goes through it.
 */
import assert from 'node:assert/strict';
import { apply, hostArray, init, mul, spread, sum, tensor } from 'rectiflow';
import type { GpuArray, HostArray, Op, Tensor } from 'rectiflow';
import code from './05-custom-op.wgsl';

/**
 * Each row over its root mean square.
 *
 *     y = x · r,   r = 1 / √(mean(x²) + ε)       dx = r · (dy − y · mean(dy · y))           x, y: [.., cols]
 *
 * @see Zhang & Sennrich 2019, Root Mean Square Layer Normalization. https://arxiv.org/abs/1910.07467
 */
const rmsNormOp: Op<[x: GpuArray], { eps: number }> = {
  name: 'rmsNorm',
  forward(gpu, [x], { eps }) {
    const cols = x.shape.at(-1)!;
    const rows = x.size / cols;
    const y = gpu.empty(x.shape);
    const rstd = gpu.empty([rows]);
    gpu.run(code, 'forward', { rows, cols, eps }, [x, y, rstd], spread(rows));
    return { output: y, saved: [y, rstd] }; // what backward wants back; freed by the tape
  },
  backward(gpu, dy, [y, rstd], { eps }) {
    const dx = gpu.empty(y.shape);
    const [rows, cols] = [rstd.size, y.shape.at(-1)!];
    gpu.run(code, 'backward', { rows, cols, eps }, [dy, y, rstd, dx], spread(rows));
    return [dx]; // one gradient per input
  },
  reference([x], { eps }) {
    const cols = x.shape.at(-1)!;
    const y = hostArray(x.shape);
    for (let first = 0; first < x.data.length; first += cols) {
      let squares = 0;
      for (let i = first; i < first + cols; i++) squares += x.data[i] ** 2;
      for (let i = first; i < first + cols; i++) y.data[i] = x.data[i] / Math.sqrt(squares / cols + eps);
    }
    return y;
  },
};

/** The function that users call. */
const rmsNorm = (x: Tensor, { eps = 1e-6 } = {}): Tensor => apply(rmsNormOp, [x], { eps });

// Check it: the kernel against the reference, the gradient against differences of the reference in float64.
const gpu = await init();
const shape = [3, 101]; // odd on purpose: no multiple of the 64 threads
const numbers = Float32Array.from({ length: 303 }, (_, i) => Math.sin(i * i));
const weights = Float32Array.from({ length: 303 }, (_, i) => Math.cos(3 * i)); // the loss is Σ weights · y

const x = tensor(numbers, shape, { requiresGrad: true });
const y = rmsNorm(x);
sum(mul(y, tensor(weights, shape))).backward();
const [output, gradient] = [await y.read(), await x.grad!.read()];

const host = hostArray(shape, numbers);
const want = rmsNormOp.reference([host], { eps: 1e-6 }).data;
const loss = (h: HostArray) => rmsNormOp.reference([h], { eps: 1e-6 }).data.reduce((s, v, i) => s + v * weights[i], 0);
const slope = (i: number) => {
  const moved = (by: number) =>
    loss(
      hostArray(
        shape,
        Float64Array.from(host.data, (v, k) => (k === i ? v + by : v)),
      ),
    );
  return (moved(1e-5) - moved(-1e-5)) / 2e-5;
};
const worst = (errors: number[]) => Math.max(...errors.map(Math.abs));
const forwardError = worst([...output].map((v, i) => v - want[i]));
const gradientError = worst([...gradient].map((v, i) => v - slope(i)));
console.log(
  `rmsNorm: largest error forwards ${forwardError.toExponential(1)}, of the gradient ${gradientError.toExponential(1)}`,
);
assert.ok(forwardError < 2e-6 && gradientError < 2e-6);
gpu.destroy();
