/**
 * Networks whose activations reach 6·10⁴ in halves. Norms undo a factor on what they read, so weights can be scaled until
 * activations are that large and yet the network computes the same: then halves must lose no more than before.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { AutoencoderKL, CLIPTextModel, UNet2DConditionModel } from '../src/nn/index.ts';
import type { Module } from '../src/nn/index.ts';
import { observe } from '../src/nn/observe.ts';
import { noGrad, scope, tensor, useGpu } from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { testGpu } from './check-op.ts';
import { randoms } from './randoms.ts';
import { skip } from './skip.ts';

const packed = await testGpu({ force: { f16: 'packed' } });
const native = packed.capabilities.f16 ? await testGpu({ force: { f16: 'native' } }) : undefined;
const test = suite('networks near the end of halves');
if (!native) skip(test, 'native halves', 'this adapter has no shader-f16');

/** What is made that large; halves end at 65504. */
const LARGE = 6e4;

/** Activations that a factor may be put on: which modules make them. */
type Place = 'stream' | 'inner' | 'values' | 'tokens' | 'gated';
type Factors = Record<Place, number>;

/** Which activations a module makes, and which factors its weights and biases get for them. */
interface Row {
  keys: RegExp;
  makes?: Place;
  weight?: (f: Factors) => number;
  bias?: (f: Factors) => number;
}

const resnets: Row[] = [
  { keys: /\bconv1$/, makes: 'inner', weight: (f) => f.inner, bias: (f) => f.inner },
  { keys: /\btime_emb_proj$/, weight: (f) => f.inner, bias: (f) => f.inner },
  { keys: /\bconv2$/, makes: 'stream', weight: (f) => f.stream, bias: (f) => f.stream },
  { keys: /\b(conv_shortcut|(down|up)samplers\.0\.conv)$/, makes: 'stream', bias: (f) => f.stream },
  { keys: /\bconv_in$/, makes: 'stream', weight: (f) => f.stream, bias: (f) => f.stream },
];
const toValues: Row = { keys: /\b(to_v|v_proj)$/, makes: 'values', weight: (f) => f.values, bias: (f) => f.values };

const rows: Record<'unet' | 'vae' | 'clip', Row[]> = {
  unet: [
    ...resnets,
    toValues,
    { keys: /\bproj_in$/, weight: (f) => f.tokens, bias: (f) => f.tokens },
    { keys: /\bto_out\.0$/, makes: 'tokens', weight: (f) => f.tokens / f.values, bias: (f) => f.tokens },
    { keys: /\bff\.net\.0$/, makes: 'gated' },
    { keys: /\bff\.net\.2$/, makes: 'tokens', weight: (f) => f.tokens / f.gated, bias: (f) => f.tokens },
    { keys: /\bproj_out$/, weight: (f) => f.stream / f.tokens, bias: (f) => f.stream },
    { keys: /\battentions\.\d$/, makes: 'stream' },
  ],
  vae: [
    ...resnets,
    toValues,
    { keys: /\bto_out\.0$/, makes: 'stream', weight: (f) => f.stream / f.values, bias: (f) => f.stream },
  ],
  clip: [
    toValues,
    { keys: /_embedding$/, makes: 'stream', weight: (f) => f.stream },
    { keys: /\bout_proj$/, makes: 'stream', weight: (f) => f.stream / f.values, bias: (f) => f.stream },
    { keys: /\bfc2$/, makes: 'stream', weight: (f) => f.stream, bias: (f) => f.stream },
    { keys: /\blayers\.\d$/, makes: 'stream' },
  ],
};

/** The largest of each kind of activation. */
async function largest(model: Module, table: Row[], run: () => Tensor): Promise<Factors> {
  const found: Factors = { stream: 0, inner: 0, values: 0, tokens: 0, gated: 0 };
  const reading: Promise<void>[] = [];
  const see = (key: string, output: Tensor) => {
    const place = table.find(({ keys }) => keys.test(key))?.makes;
    if (!place) return;
    const copy = output.read().then((numbers) => {
      for (const v of numbers) found[place] = Math.max(found[place], Math.abs(v));
    });
    reading.push(copy);
  };
  scope(() => noGrad(() => void observe(model, see, run)));
  await Promise.all(reading);
  return found;
}

/** Put the factors on the weights. The gate of a GEGLU is not linear, so only its values get one. */
async function scale(model: Module, table: Row[], f: Factors): Promise<void> {
  for (const [key, p] of model.namedParameters()) {
    const [, path, kind] = /^(.*)\.(weight|bias)$/.exec(key)!;
    const factor = table.find(({ keys }) => keys.test(path))?.[kind as 'weight' | 'bias']?.(f);
    const isGate = /\bff\.net\.0\.proj$/.test(path);
    if (!factor && !isGate) continue;
    const half = p.size / 2;
    const numbers = (await p.read()) as Float32Array;
    p.array.write(numbers.map((v, i) => v * (factor ?? (i < half ? f.gated : 1))));
  }
}

async function numbersOf(run: () => Tensor): Promise<Float32Array> {
  using y = scope(() => noGrad(run));
  return (await y.read()) as Float32Array;
}

function distance(got: Float32Array, want: Float32Array): number {
  const norm = (list: Float32Array) => Math.hypot(...list);
  return norm(got.map((v, i) => v - want[i])) / norm(want);
}

/** `make` makes the network, `run` runs it on halves or on f32. */
function check(
  name: keyof typeof rows,
  make: () => Module,
  run: (model: any, dtype: 'f32' | 'f16') => Tensor,
  places: Place[],
): void {
  for (const gpu of native ? [native, packed] : [packed])
    test(`${gpu === packed ? 'packed' : 'native'}: ${name} with activations of 6·10⁴ loses no more than with small ones`, async () => {
      useGpu(gpu);
      const table = rows[name];
      const inHalves = async (model: Module) => {
        model.to('f16');
        const numbers = await numbersOf(() => run(model, 'f16'));
        assert.ok(numbers.every(Number.isFinite), 'numbers that are not finite');
        return numbers;
      };
      using small = make();
      const want = await numbersOf(() => run(small, 'f32'));
      const before = await largest(small, table, () => run(small, 'f32'));
      using large = make();
      const factors = Object.fromEntries(
        Object.entries(before).map(([place, most]) => [place, LARGE / most]),
      ) as Factors;
      await scale(large, table, factors);
      const after = await largest(large, table, () => run(large, 'f32'));
      for (const place of places)
        assert.ok(
          after[place] > 0.9 * LARGE && after[place] < 1.05 * LARGE,
          `${place}: ${before[place]} → ${after[place]}`,
        );
      const same = await numbersOf(() => run(large, 'f32'));
      // Norms add a little to small variances, which the scaled network notices less.
      assert.ok(distance(same, want) < 1e-2, `in f32 the network has changed by ${distance(same, want)}`);
      const usual = distance(await inHalves(small), want);
      const lost = distance(await inHalves(large), same);
      assert.ok(usual < 4e-3 && lost < 1.25 * usual, `${lost} lost in halves, ${usual} with small activations`);
    });
}

const unet = {
  down_block_types: ['CrossAttnDownBlock2D', 'DownBlock2D'],
  up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D'],
  block_out_channels: [32, 64],
  layers_per_block: 1,
  norm_num_groups: 8,
  cross_attention_dim: 24,
  attention_head_dim: 4,
};
check(
  'unet',
  () => new UNet2DConditionModel(unet).initialize(1),
  (model: UNet2DConditionModel, dtype) => {
    const sample = tensor(randoms(2 * 16 * 16 * 4, 1), [2, 16, 16, 4], { dtype });
    return model.forward(sample, 500, tensor(randoms(2 * 7 * 24, 2), [2, 7, 24], { dtype }));
  },
  ['stream', 'inner', 'values', 'tokens', 'gated'],
);

const vae = { block_out_channels: [16, 32], layers_per_block: 1, norm_num_groups: 4 };
check(
  'vae',
  () => new AutoencoderKL(vae).initialize(2),
  (model: AutoencoderKL, dtype) =>
    model.decode(model.encode(tensor(randoms(16 * 16 * 3, 3), [1, 16, 16, 3], { dtype })).mean),
  ['stream', 'inner', 'values'],
);

const clip = { vocab_size: 100, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 3, num_attention_heads: 4 };
check(
  'clip',
  () => new CLIPTextModel({ ...clip, projection_dim: 24 }).initialize(3),
  (model: CLIPTextModel) => {
    const ids = tensor(randoms(2 * 77, 4, [0, 99]).map(Math.floor), [2, 77], { dtype: 'i32' });
    return model.forward(ids).lastHiddenState;
  },
  ['stream', 'values'],
);

test.run();
