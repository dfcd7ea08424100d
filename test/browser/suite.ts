/** What Node and the browser both run: ops, gradients, a network and its training on fixed numbers. Returns every result's numbers. */
import { AdamW, EMA, UNet2DConditionModel } from '../../src/nn/index.ts';
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

const config = {
  sample_size: 8,
  in_channels: 4,
  out_channels: 4,
  block_out_channels: [16, 24],
  layers_per_block: 1,
  down_block_types: ['CrossAttnDownBlock2D', 'DownBlock2D'],
  up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D'],
  cross_attention_dim: 12,
  attention_head_dim: 2,
  norm_num_groups: 4,
};

/** A small U-Net: its forward pass, twenty steps of AdamW with clipping and EMA, recorded and replayed, and what came of them. */
async function train(): Promise<Record<string, number[]>> {
  const unet = new UNet2DConditionModel(config).initialize(1);
  const inputs = () =>
    [random(50, [2, 8, 8, 4]), random(52, [2, 5, 12]), random(51, [2, 8, 8, 4])].map((t) => t.detach());
  const out: Record<string, number[]> = {};
  await scope(async () => {
    const [x, text] = inputs();
    out['U-Net forward'] = [...(await unet.forward(x, [900, 20], text).read())];
  });
  unet.requiresGrad(true);
  const parameters = unet.namedParameters();
  const ema = new EMA(parameters, { decay: 0.9 });
  const optimizer = new AdamW(parameters, { lr: 1e-3, maxGradNorm: 1, ema });
  const step = T.compile((x: Tensor, text: Tensor, target: Tensor) => {
    const loss = T.mse(unet.forward(x, [900, 20], text), target);
    loss.backward();
    optimizer.step();
    return loss;
  });
  const losses: number[] = [];
  for (let i = 0; i < 20; i++) {
    await scope(async () => {
      const [x, text, target] = inputs();
      losses.push(await step(x, text, target).item());
    });
  }
  out['training losses'] = losses;
  for (const [key, p] of parameters) out[`trained ${key}`] = [...(await p.read())];
  for (const [key, p] of ema.shadow) out[`EMA ${key}`] = [...(await p.read())];
  return out;
}
