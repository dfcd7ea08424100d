import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { add, currentGpu, mean, noGrad, scope, square, sub, tensor, useGpu, type Tensor } from '../src/tensor/index.ts';
import { normal, randint } from '../src/tensor/random.ts';
import { AdamW, AutoencoderKL, CLIPTextModel, UNet2DConditionModel, type Module } from '../src/nn/index.ts';
import { testGpu } from './check-op.ts';

const test = suite('nn-gradient');
test.before(async () => void useGpu(await testGpu()));

const unet = () =>
  new UNet2DConditionModel({
    in_channels: 3,
    out_channels: 2,
    down_block_types: ['CrossAttnDownBlock2D', 'DownBlock2D'],
    up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D'],
    block_out_channels: [8, 12],
    layers_per_block: 1,
    norm_num_groups: 4,
    cross_attention_dim: 5,
    attention_head_dim: 2,
  }).initialize(5);
const noise = (name: string, shape: number[]) =>
  tensor(
    normal(
      1,
      name,
      shape.reduce((n, d) => n * d, 1),
    ),
    shape,
  );

/** An odd size, two times, two texts. */
const loss = (model: UNet2DConditionModel, x: Tensor, text: Tensor): Tensor =>
  mean(square(sub(model.forward(x, [100, 700], text), noise('target', [2, 5, 7, 2]))));

/** Move all parameters along a random direction: the slope of the loss must be the gradient along it. */
async function checkSlope(
  model: Module,
  run: () => Tensor,
  keys: RegExp,
  step: number,
  tolerance: number,
): Promise<void> {
  model.requiresGrad(true);
  scope(() => run().backward());
  let want = 0;
  const chosen = [...model.namedParameters()].filter(([key]) => keys.test(key));
  assert.ok(chosen.length > 0, `no key matches ${keys}`);
  const moves: { p: Tensor; start: Float32Array; direction: Float32Array }[] = [];
  for (const [key, p] of chosen) {
    assert.ok(p.grad, `no gradient reached ${key}`);
    const g = (await p.grad!.read()) as Float32Array,
      start = (await p.read()) as Float32Array;
    const length = Math.sqrt(g.reduce((n, x) => n + x * x, 0)) || 1;
    const direction = normal(2, key, p.size).map((x, i) => g[i] / length + (0.3 * x) / Math.sqrt(p.size));
    want += direction.reduce((n, d, i) => n + d * g[i], 0);
    moves.push({ p, start, direction });
  }
  const at = async (s: number) => {
    for (const { p, start, direction } of moves) p.array.write(start.map((x, i) => x + s * direction[i]));
    return scope(() => noGrad(run)).item();
  };
  const slope = ((await at(step)) - (await at(-step))) / (2 * step);
  for (const { p, start } of moves) p.array.write(start);
  model.zeroGrad();
  assert.ok(Math.abs(slope - want) <= tolerance * Math.abs(want), `${keys}: slope ${slope}, gradient ${want}`);
}

test('the gradient of a U-Net is the slope of its loss, in every kind of layer', async () => {
  using model = unet();
  const x = noise('x', [2, 5, 7, 3]),
    text = noise('text', [2, 4, 5]);
  for (const keys of [
    /./,
    /^conv_in/,
    /time_embedding/,
    /attn1/,
    /attn2\.to_[kv]/,
    /ff\.net\.0/,
    /norm/,
    /conv1\.weight/,
    /time_emb_proj/,
    /downsamplers/,
    /upsamplers/,
    /conv_shortcut/,
    /proj_in/,
    /conv_out/,
  ]) {
    await checkSlope(model, () => loss(model, x, text), keys, keys.source === '.' ? 2e-3 : 5e-3, 0.02);
  }
});

test('the gradient reaches the image and the text', async () => {
  using model = unet();
  const x = noise('x', [2, 5, 7, 3]),
    text = noise('text', [2, 4, 5]);
  x.requiresGrad = true;
  text.requiresGrad = true;
  scope(() => loss(model, x, text).backward());
  for (const t of [x, text]) {
    const g = await t.grad!.read(),
      start = await t.read();
    const length = Math.sqrt((g as Float32Array).reduce((n, v) => n + v * v, 0));
    const at = async (s: number) => {
      t.array.write((start as Float32Array).map((v, i) => v + (s * g[i]) / length));
      return scope(() => noGrad(() => loss(model, x, text))).item();
    };
    const slope = ((await at(0.02)) - (await at(-0.02))) / 0.04;
    t.array.write(start);
    assert.ok(Math.abs(slope - length) < 0.02 * length, `slope ${slope}, gradient ${length}`);
  }
});

test('the gradient of a text encoder is the slope of its loss', async () => {
  using model = new CLIPTextModel({
    vocab_size: 11,
    hidden_size: 12,
    intermediate_size: 20,
    num_hidden_layers: 2,
    num_attention_heads: 3,
    max_position_embeddings: 6,
    hidden_act: 'quick_gelu',
  }).initialize(3);
  const ids = [
    [1, 4, 4, 9, 10],
    [2, 10, 10, 10, 10],
  ];
  const run = () => mean(square(sub(model.forward(ids).lastHiddenState, noise('target', [2, 5, 12]))));
  for (const keys of [/./, /token_embedding/, /position_embedding/, /self_attn\.[qkv]_proj\.weight/, /mlp/, /norm/]) {
    await checkSlope(model, run, keys, keys.source === '.' ? 2e-3 : 5e-3, 0.02);
  }
});

test('the gradient of an autoencoder is the slope of its loss', async () => {
  using model = new AutoencoderKL({
    block_out_channels: [4, 8],
    layers_per_block: 1,
    norm_num_groups: 2,
    latent_channels: 3,
  }).initialize(3);
  const image = noise('image', [1, 6, 4, 3]),
    eps = noise('noise', [1, 3, 2, 3]);
  const run = () => mean(square(sub(model.decode(model.sample(model.encode(image), eps)), image)));
  for (const keys of [/./, /^encoder/, /attentions/, /^quant_conv/, /downsamplers/])
    await checkSlope(model, run, keys, 2e-3, 0.02);
});

test('training makes the loss fall, in flat memory', async () => {
  using model = unet().requiresGrad(true);
  using optimizer = new AdamW(model.namedParameters(), { lr: 3e-3, maxGradNorm: 1 });
  const x = noise('x', [2, 5, 7, 3]),
    text = noise('text', [2, 4, 5]);
  const losses: number[] = [],
    live: number[] = [];
  for (let step = 0; step < 12; step++) {
    const { value } = await scope(async () => {
      const value = loss(model, x, text);
      value.backward();
      return { value: await value.item() };
    });
    optimizer.step();
    losses.push(value);
    live.push(currentGpu().memory().live);
  }
  assert.ok(losses.at(-1)! < 0.7 * losses[0], losses.join(' '));
  assert.ok((await optimizer.report()).finite);
  assert.ok(live.at(-1)! <= live[1], `memory ${live.join(' ')}`);
});

test('a text model without a batch and one without words say so', () => {
  using model = new CLIPTextModel({
    vocab_size: 11,
    hidden_size: 12,
    intermediate_size: 20,
    num_hidden_layers: 1,
    num_attention_heads: 3,
    max_position_embeddings: 6,
  });
  assert.throws(() => model.forward([[1, 2], [1]]), /texts differ in length/);
  assert.throws(() => model.forward([Array.from(randint(1, 'ids', 7, 0, 11))]), /only 6 places/);
  assert.throws(() => add(tensor([1, 2]), tensor([1, 2, 3])), /\[2\]/);
});

test.after(() => currentGpu().idle());
test.run();
