/** What Node and the browser both run: ops, gradients and a training step on fixed numbers. Returns every result's numbers. */
import { Linear } from '../../src/nn/layers/linear.ts';
import { AdamW } from '../../src/nn/optim/index.ts';
import { init, scope, tensor } from '../../src/tensor/index.ts';
import type { Tensor } from '../../src/tensor/index.ts';
import * as T from '../../src/tensor/index.ts';
import { normal } from '../../src/tensor/random.ts';

export interface Results {
  adapter: string;
  values: Record<string, number[]>;
}

const random = (stream: number, shape: number[]) =>
  tensor(
    normal(
      7,
      stream,
      shape.reduce((a, b) => a * b, 1),
    ),
    shape,
    { requiresGrad: true },
  );

/** Forward, and the gradient of Σ y · w for fixed w, of each function. */
const cases: Record<string, { shapes: number[][]; run: (...inputs: Tensor[]) => Tensor }> = {
  add: { shapes: [[5, 7], [7]], run: T.add },
  mul: {
    shapes: [
      [5, 7],
      [5, 7],
    ],
    run: T.mul,
  },
  silu: { shapes: [[33]], run: (x) => T.silu(x) },
  gelu: { shapes: [[33]], run: (x) => T.gelu(x) },
  linear: { shapes: [[19, 24], [40, 24], [40]], run: (x, w, b) => T.linear(x, w, b) },
  matmul: {
    shapes: [
      [3, 17, 20],
      [3, 20, 9],
    ],
    run: (a, b) => T.matmul(a, b),
  },
  conv2d: { shapes: [[2, 9, 7, 8], [16, 3, 3, 8], [16]], run: (x, w, b) => T.conv2d(x, w, b, { padding: 1 }) },
  groupNorm: {
    shapes: [[2, 5, 5, 16], [16], [16]],
    run: (x, w, b) => T.groupNorm(x, w, b, { groups: 4, eps: 1e-5, silu: true }),
  },
  layerNorm: { shapes: [[6, 24], [24], [24]], run: (x, w, b) => T.layerNorm(x, w, b) },
  softmax: { shapes: [[6, 24]], run: (x) => T.softmax(x) },
  attention: {
    shapes: [
      [2, 12, 32],
      [2, 9, 32],
      [2, 9, 32],
    ],
    run: (q, k, v) => T.attention(q, k, v, { heads: 4 }),
  },
};

export async function run(): Promise<Results> {
  const gpu = await init();
  const values: Record<string, number[]> = {};
  for (const [name, { shapes, run: fn }] of Object.entries(cases)) {
    await scope(async () => {
      const inputs = shapes.map((shape, i) => random(i, shape));
      const y = fn(...inputs);
      const weights = random(99, [...y.shape]).detach();
      T.sum(T.mul(y, weights)).backward();
      values[name] = [...(await y.read())];
      for (const [i, x] of inputs.entries()) values[`${name} d${i}`] = [...(await x.grad!.read())];
    });
  }
  Object.assign(values, await train());
  return { adapter: gpu.capabilities.name, values };
}

/** Two layers, five steps of AdamW on a fixed regression. */
async function train(): Promise<Record<string, number[]>> {
  const first = new Linear(6, 16).initialize(1).requiresGrad(true);
  const second = new Linear(16, 3).initialize(2).requiresGrad(true);
  const parameters = new Map<string, Tensor>();
  for (const [name, layer] of Object.entries({ first, second })) {
    for (const [key, p] of layer.namedParameters()) parameters.set(`${name}.${key}`, p);
  }
  const optimizer = new AdamW(parameters, { lr: 1e-2 });
  const losses: number[] = [];
  for (let step = 0; step < 5; step++) {
    await scope(async () => {
      const x = random(50, [32, 6]).detach();
      const target = random(51, [32, 3]).detach();
      const loss = T.mse(second.forward(T.silu(first.forward(x))), target);
      loss.backward();
      optimizer.step();
      losses.push(await loss.item());
    });
  }
  const out: Record<string, number[]> = { 'training losses': losses };
  for (const [key, p] of parameters) out[`trained ${key}`] = [...(await p.read())];
  return out;
}
