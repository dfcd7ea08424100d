/** What Node and the browser both run: every function and its gradients, a network and its training on fixed numbers. Returns every result's numbers. */
import { AdamW, EMA } from '../../src/nn/index.ts';
import { init, scope, tensor } from '../../src/tensor/index.ts';
import type { Tensor } from '../../src/tensor/index.ts';
import * as T from '../../src/tensor/index.ts';
import { normal } from '../../src/tensor/random.ts';
import { Draw, generators } from '../gradient-generators.ts';
import { tinyUNet } from '../tiny-unet.ts';

export interface Results {
  adapter: string;
  /** Bits of f32, as u32: JSON knows neither −0 nor NaN. */
  values: Record<string, number[]>;
}

const bits = (numbers: ArrayLike<number>): number[] => [...new Uint32Array(Float32Array.from(numbers).buffer)];

const random = (stream: number, shape: number[]) =>
  tensor(
    normal(
      7,
      stream,
      shape.reduce((a, b) => a * b, 1),
    ),
    shape,
  );

/** A random call of every function of tensors: what comes out, and the gradient of Σ y · w for fixed w by each operand. */
async function everyFunction(): Promise<Record<string, number[]>> {
  const values: Record<string, number[]> = {};
  for (const [index, [name, generate]] of Object.entries(generators).entries()) {
    const { operands, run } = generate(new Draw(10_007 * index), 0);
    await scope(async () => {
      const inputs = operands.map(({ shape, data, integers }) =>
        tensor(data, shape, integers ? { dtype: 'i32' } : { requiresGrad: true }),
      );
      const result = run(...inputs);
      const outputs = Array.isArray(result) ? result : [result];
      const sums = outputs.map((y, i) => T.sum(T.mul(y, random(99 + i, [...y.shape]))));
      sums.reduce((a, b) => T.add(a, b)).backward();
      for (const [i, y] of outputs.entries()) values[`${name} y${i}`] = bits(await y.read());
      for (const [i, x] of inputs.entries()) if (x.grad) values[`${name} d${i}`] = bits(await x.grad.read());
    });
  }
  return values;
}

export async function run(): Promise<Results> {
  const gpu = await init();
  const values = await everyFunction();
  Object.assign(values, await train());
  return { adapter: gpu.capabilities.name, values };
}

/** A small U-Net: its forward pass, twenty steps of AdamW with clipping and EMA, recorded and replayed, and what came of them. */
async function train(): Promise<Record<string, number[]>> {
  const unet = tinyUNet().initialize(1);
  const inputs = () => [random(50, [2, 8, 8, 4]), random(52, [2, 5, 12]), random(51, [2, 8, 8, 4])];
  const out: Record<string, number[]> = {};
  await scope(async () => {
    const [x, text] = inputs();
    out['U-Net forward'] = bits(await unet.forward(x, [900, 20], text).read());
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
  out['training losses'] = bits(losses);
  for (const [key, p] of parameters) out[`trained ${key}`] = bits(await p.read());
  for (const [key, p] of ema.shadow) out[`EMA ${key}`] = bits(await p.read());
  return out;
}
