/** The lines of `npm run bench`: shapes that Stable Diffusion and the shipped model really use. */
import { preset } from '../src/flow/recipe/recipe.ts';
import { flowLoss } from '../src/flow/rectified-flow.ts';
import { AdamW, EMA, UNet2DConditionModel } from '../src/nn/index.ts';
import { normal } from '../src/tensor/random.ts';
import * as T from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { forward } from './measure.ts';
import type { Line } from './measure.ts';

const random = (...shape: number[]): Tensor =>
  T.keep(
    T.tensor(
      normal(
        1,
        shape.join(),
        shape.reduce((a, b) => a * b, 1),
      ),
      shape,
    ),
  );

/** Forward and backward of Σ y, with gradients of every input. */
function training(fn: () => Tensor, inputs: Tensor[]): () => void {
  return () => {
    for (const x of inputs) x.requiresGrad = true;
    T.sum(fn()).backward();
    for (const x of inputs) {
      x.grad?.dispose();
      x.grad = undefined;
      x.requiresGrad = false;
    }
  };
}

export function matmulLines(): Line[] {
  const shapes = [
    [512, 512, 512],
    [1024, 1024, 1024],
    [4096, 320, 320],
    [4096, 320, 2560],
    [2048, 64, 256],
    [512, 128, 512],
  ];
  return shapes.flatMap(([M, K, N]) => {
    const [x, w] = [random(M, K), random(N, K)];
    const name = `f32[${M}, ${K}] × [${K}, ${N}]`;
    return [
      { name: `linear ${name}`, flop: 2 * M * K * N, run: forward(() => T.linear(x, w)) },
      { name: `linear forward + backward ${name}`, flop: 6 * M * K * N, run: training(() => T.linear(x, w), [x, w]) },
    ];
  });
}

export function convLines(): Line[] {
  const shapes = [
    [1, 32, 32, 320, 320],
    [1, 64, 64, 64, 64],
    [4, 16, 16, 128, 128],
    [32, 8, 8, 64, 64],
    [32, 4, 4, 128, 128],
  ];
  return shapes.flatMap(([B, H, W, C, O]) => {
    const [x, w] = [random(B, H, W, C), random(O, 3, 3, C)];
    const name = `3×3 f32[${B}, ${H}, ${W}, ${C}] → ${O}`;
    const flop = 2 * 9 * B * H * W * C * O;
    return [
      { name: `conv2d ${name}`, flop, run: forward(() => T.conv2d(x, w, undefined, { padding: 1 })) },
      {
        name: `conv2d forward + backward ${name}`,
        flop: 3 * flop,
        run: training(() => T.conv2d(x, w, undefined, { padding: 1 }), [x, w]),
      },
    ];
  });
}

export function attentionLines(): Line[] {
  const shapes = [
    [1, 8, 1024, 1024, 40],
    [1, 8, 4096, 77, 40],
    [32, 4, 64, 64, 16],
    [32, 4, 64, 16, 16],
  ];
  return shapes.flatMap(([B, heads, Tq, Tk, D]) => {
    const [q, k, v] = [random(B, Tq, heads * D), random(B, Tk, heads * D), random(B, Tk, heads * D)];
    const name = `f32[${B}, ${heads}, ${Tq}, ${D}] over ${Tk}`;
    const flop = 4 * B * heads * Tq * Tk * D;
    return [
      { name: `attention ${name}`, flop, run: forward(() => T.attention(q, k, v, { heads })) },
      {
        name: `attention forward + backward ${name}`,
        flop: 3.5 * flop,
        run: training(() => T.attention(q, k, v, { heads }), [q, k, v]),
      },
    ];
  });
}

export function normLines(): Line[] {
  const [x, w, b] = [random(1, 64, 64, 320), random(320), random(320)];
  const [tokens, scores] = [random(4096, 320), random(8, 1024, 1024)];
  const [a, c] = [random(2 ** 24), random(2 ** 24)];
  return [
    {
      name: 'groupNorm + silu f32[1, 64, 64, 320], 32 groups',
      bytes: 8 * x.size,
      run: forward(() => T.groupNorm(x, w, b, { groups: 32, silu: true })),
    },
    { name: 'layerNorm f32[4096, 320]', bytes: 8 * tokens.size, run: forward(() => T.layerNorm(tokens, w, b)) },
    { name: 'softmax f32[8, 1024, 1024]', bytes: 8 * scores.size, run: forward(() => T.softmax(scores)) },
    { name: 'add f32[16777216]', bytes: 12 * a.size, run: forward(() => T.add(a, c)) },
  ];
}

/** One step of the shipped model's teacher: forward, backward, clipping, AdamW and EMA, batch 16. */
export function trainingLines(): Line[] {
  const { unet: config } = preset('emoji');
  const unet = new UNet2DConditionModel(config).initialize(1).requiresGrad(true);
  const parameters = unet.namedParameters();
  const optimizer = new AdamW(parameters, { maxGradNorm: 1, ema: new EMA(parameters) });
  const [batch, side, channels] = [16, 8, 8];
  const [x, target, text] = [
    random(batch, side, side, channels),
    random(batch, side, side, channels),
    random(batch, 16, 64),
  ];
  const timesteps = Array.from({ length: batch }, (_, i) => (1000 * (i + 0.5)) / batch);
  const run = () => {
    flowLoss(unet.forward(x, timesteps, text), target).backward();
    optimizer.step();
  };
  return [
    { name: `training step, U-Net of ${(unet.parameterCount / 1e6).toFixed(2)} M parameters, batch ${batch}`, run },
  ];
}
