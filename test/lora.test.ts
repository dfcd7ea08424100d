import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { AdamW, Conv2d, Linear, Module, type StateDict, type UNet2DConditionModel } from '../src/nn/index.ts';
import { attachLoras, mergeLoras, type ScaledLora } from '../src/nn/lora-apply.ts';
import { readLora } from '../src/nn/lora-read.ts';
import { newLora, type Lora } from '../src/nn/lora.ts';
import { compile, currentGpu, mse, noGrad, scope, tensor, useGpu } from '../src/tensor/index.ts';
import { assertClose, assertNear, testGpu } from './check-op.ts';
import { collectGarbage } from './garbage.ts';
import { randoms } from './randoms.ts';
import { tinyUNet } from './tiny-unet.ts';

const test = suite('lora');
test.before(async () => void useGpu(await testGpu()));

class Layers extends Module {
  dense = new Linear(5, 7);
  one_by_one = new Conv2d(3, 4, 1);
  three_by_three = new Conv2d(3, 4, 3, { padding: 1 });
}

const host = (shape: number[], seed: number) => ({
  shape,
  data: randoms(
    shape.reduce((n, d) => n * d, 1),
    seed,
  ),
});

/** Bit for bit; says no more than where they differ. */
function assertSame(got: ArrayLike<number>, want: ArrayLike<number>, what: string): void {
  const at = Array.from(want).findIndex((v, i) => !Object.is(v, got[i]));
  assert.ok(got.length === want.length && at < 0, `${what}: at ${at} ${got[at]}, not ${want[at]}`);
}

/** Factors in the layout of files, with kohya's keys: rank 2, alpha as given. */
const kohya = (seed: number, alpha: number): StateDict => ({
  'lora_unet_dense.lora_down.weight': host([2, 5], seed),
  'lora_unet_dense.lora_up.weight': host([7, 2], seed + 1),
  'lora_unet_dense.alpha': { shape: [], data: Float32Array.of(alpha) },
  'lora_unet_one_by_one.lora_down.weight': host([2, 3, 1, 1], seed + 2),
  'lora_unet_one_by_one.lora_up.weight': host([4, 2, 1, 1], seed + 3),
  'lora_unet_one_by_one.alpha': { shape: [], data: Float32Array.of(alpha) },
  'lora_unet_three_by_three.lora_down.weight': host([2, 3, 3, 3], seed + 4),
  'lora_unet_three_by_three.lora_up.weight': host([4, 2, 1, 1], seed + 5),
  'lora_unet_three_by_three.alpha': { shape: [], data: Float32Array.of(alpha) },
});

/** s · (α / r) · up · down in the layout of files, [O, I · kh · kw], in plain arithmetic. */
function delta(file: StateDict, layer: string, s: number): number[] {
  const down = file[`lora_unet_${layer}.lora_down.weight`];
  const up = file[`lora_unet_${layer}.lora_up.weight`];
  const [alpha] = file[`lora_unet_${layer}.alpha`].data;
  const [[rank], [O]] = [down.shape, up.shape];
  const row = down.data.length / rank;
  return Array.from({ length: O * row }, (_, i) => {
    let sum = 0;
    for (let r = 0; r < rank; r++) sum += up.data[Math.floor(i / row) * rank + r] * down.data[r * row + (i % row)];
    return s * (alpha / rank) * sum;
  });
}

test('merging two LoRAs adds s · (α / r) · up · down of each, for matrices and convolutions', async () => {
  using model = new Layers().initialize(1);
  const before = await model.stateDict();
  const files = [kohya(1, 1), kohya(9, 4)];
  const [one, two] = files.map((file) => readLora(file, { unet: model }).lora);
  const applied = mergeLoras([
    { lora: one, scale: 0.7 },
    { lora: two, scale: -0.25 },
  ]);
  const after = await model.stateDict();
  for (const layer of ['dense', 'one_by_one', 'three_by_three']) {
    const [a, b] = [delta(files[0], layer, 0.7), delta(files[1], layer, -0.25)];
    const want = Array.from(before[`${layer}.weight`].data, (w, i) => w + a[i] + b[i]);
    assertClose(after[`${layer}.weight`].data, want, 1e-6, layer);
    assert.equal(after[`${layer}.bias`], before[`${layer}.bias`]);
  }
  applied.remove();
  assert.equal(await model.stateDict(), before);
});

/** For every layer of a small U-Net, with factors large enough to be seen. */
function everywhere(unet: UNet2DConditionModel, seed: number, rank = 3): Lora {
  const lora = newLora({ unet }, { rank, alpha: 2, layers: /./, seed });
  for (const [i, p] of [...lora.namedParameters().values()].entries())
    p.array.write(randoms(p.size, 100 * seed + i, [-0.2, 0.2]));
  return lora;
}

const run = async (unet: UNet2DConditionModel, dtype: 'f32' | 'f16' = 'f32') => {
  const x = tensor(randoms(2 * 8 * 8 * 4, 5), [2, 8, 8, 4], { dtype });
  const text = tensor(randoms(2 * 3 * 12, 6), [2, 3, 12], { dtype });
  return scope(() => noGrad(() => unet.forward(x, [900, 20], text))).read();
};

test('merged is the same as at run time, in every kind of layer of a U-Net', async () => {
  using unet = tinyUNet().initialize(2);
  const plain = await run(unet);
  const loras: ScaledLora[] = [{ lora: everywhere(unet, 1) }, { lora: everywhere(unet, 2, 5), scale: -0.6 }];
  const attached = attachLoras(loras);
  const atRunTime = await run(unet);
  attached.remove();
  assertSame(await run(unet), plain, 'detached');
  const merged = mergeLoras(loras);
  assertNear(await run(unet), atRunTime, 1e-5, 'merged');
  merged.remove();
  assertSame(await run(unet), plain, 'un-merged');
  const difference = Math.max(...plain.map((v, i) => Math.abs(v - atRunTime[i])));
  assert.ok(difference > 0.1, `the LoRAs change too little: ${difference}`);
});

test('each kind of layer alone: merged is the same as at run time, and is seen', async () => {
  using unet = tinyUNet().initialize(2);
  const plain = await run(unet);
  for (const layers of [
    /conv_in/,
    /conv1/,
    /downsamplers/,
    /conv_shortcut/,
    /time_emb_proj/,
    /ff\.net\.0/,
    /proj_in/,
  ]) {
    using lora = newLora({ unet }, { layers });
    for (const [i, p] of [...lora.namedParameters().values()].entries()) p.array.write(randoms(p.size, i, [-0.5, 0.5]));
    const attached = attachLoras([{ lora }]);
    const atRunTime = await run(unet);
    attached.remove();
    using _merged = mergeLoras([{ lora }]);
    assertNear(await run(unet), atRunTime, 1e-5, `${layers}`);
    assert.not.equal(atRunTime, plain, `${layers} has no effect`);
  }
});

test('weights in halves come back to the bit, and are rounded once when merged', async () => {
  using unet = tinyUNet().initialize(2);
  const loras = [{ lora: everywhere(unet, 1) }, { lora: everywhere(unet, 2) }];
  unet.to('f16');
  const before = await unet.stateDict();
  const plain = await run(unet, 'f16');
  const atRunTime = await (async () => {
    using _attached = attachLoras(loras);
    return run(unet, 'f16');
  })();
  const applied = mergeLoras(loras);
  assertNear(await run(unet, 'f16'), atRunTime, 4e-3, 'merged');
  assert.not.equal(await unet.stateDict(), before);
  applied.remove();
  assert.equal(await unet.stateDict(), before);
  assertSame(await run(unet, 'f16'), plain, 'un-merged');
});

test('a recorded function sees what is merged after it was recorded', async () => {
  using model = new Layers().initialize(1);
  const { lora } = readLora(kohya(3, 2), { unet: model });
  const call = compile((x) => model.dense.forward(x));
  const x = tensor(randoms(10, 1), [2, 5]);
  const plain = await call(x).read();
  const applied = mergeLoras([{ lora }]);
  assert.equal(await call(x).read(), await model.dense.forward(x).read());
  applied.remove();
  assert.equal(await call(x).read(), plain);
});

test('a layer takes LoRAs of a kind once, and a scale is a number', () => {
  using model = new Layers().initialize(1);
  const { lora } = readLora(kohya(3, 2), { unet: model }, { name: 'logo.safetensors' });
  for (const apply of [mergeLoras, attachLoras]) {
    const applied = apply([{ lora }, { lora, scale: 2 }]);
    assert.throws(() => apply([{ lora }]), /unet\.dense has a LoRA already\n {2}remove\(\) that one first/);
    applied.remove();
    applied.remove();
    apply([{ lora }]).remove();
    assert.throws(() => apply([{ lora, scale: NaN }]), /the scale of logo\.safetensors is NaN/);
  }
});

test('what is taken off gives its memory back', async () => {
  using model = new Layers().initialize(1);
  using lora = readLora(kohya(3, 2), { unet: model }).lora;
  await collectGarbage();
  const before = currentGpu().memory().live;
  mergeLoras([{ lora }]).remove();
  attachLoras([{ lora }]).remove();
  assert.is(currentGpu().memory().live, before);
});

test('a new LoRA changes nothing, and its gradient is the slope of the loss', async () => {
  using unet = tinyUNet().initialize(2);
  const plain = await run(unet);
  using lora = newLora({ unet }, { rank: 2, alpha: 4, layers: /to_q|to_out|conv1|proj_in|net\.0/ });
  using _attached = attachLoras([{ lora, scale: 0.5 }]);
  assertNear(await run(unet), plain, 1e-6, 'a new LoRA'); // the fused GEGLU sums in another order
  for (const [i, p] of [...lora.namedParameters().values()].entries()) p.array.write(randoms(p.size, i, [-0.3, 0.3]));
  lora.requiresGrad(true);
  unet.gradientCheckpointing = true;
  const x = tensor(randoms(2 * 8 * 8 * 4, 5), [2, 8, 8, 4]);
  const text = tensor(randoms(2 * 3 * 12, 6), [2, 3, 12]);
  const target = tensor(randoms(2 * 8 * 8 * 4, 7), [2, 8, 8, 4]);
  const loss = () => mse(unet.forward(x, [900, 20], text), target);
  scope(() => loss().backward());
  for (const [key, p] of unet.namedParameters()) assert.not.ok(p.grad, key);
  for (const factor of [/lora_A/, /lora_B/]) {
    let want = 0;
    const moves = await Promise.all(
      [...lora.namedParameters()].map(async ([key, p]) => {
        const start = Float32Array.from(await p.read());
        const gradient = Float32Array.from(await p.grad!.read());
        if (!factor.test(key)) return { p, start, gradient: gradient.fill(0) };
        want += gradient.reduce((sum, g) => sum + g * g, 0);
        return { p, start, gradient };
      }),
    );
    const at = async (step: number) => {
      for (const { p, start, gradient } of moves) p.array.write(start.map((v, i) => v + step * gradient[i]));
      return scope(() => noGrad(loss)).item();
    };
    const step = 0.02 / Math.sqrt(want);
    const slope = ((await at(step)) - (await at(-step))) / (2 * step);
    await at(0);
    assert.ok(Math.abs(slope - want) < 0.02 * want, `${factor}: slope ${slope}, gradient² ${want}`);
  }
});

test('training the factors alone makes the loss fall', async () => {
  using unet = tinyUNet().initialize(2);
  const before = await unet.stateDict();
  using lora = newLora({ unet }, { rank: 4 });
  using _attached = attachLoras([{ lora }]);
  using optimizer = new AdamW(lora.requiresGrad(true).namedParameters(), { lr: 2e-2, weightDecay: 0 });
  const x = tensor(randoms(2 * 8 * 8 * 4, 5), [2, 8, 8, 4]);
  const text = tensor(randoms(2 * 3 * 12, 6), [2, 3, 12]);
  const target = tensor(randoms(2 * 8 * 8 * 4, 7, [-0.5, 0.5]), [2, 8, 8, 4]);
  const losses: number[] = [];
  for (let step = 0; step < 15; step++) {
    losses.push(
      await scope(async () => {
        const loss = mse(unet.forward(x, [900, 20], text), target);
        loss.backward();
        return loss.item();
      }),
    );
    optimizer.step();
  }
  assert.ok(losses.at(-1)! < 0.9 * losses[0], losses.join(' '));
  assert.equal(await unet.stateDict(), before);
});

test('asking for layers that are not there says so', () => {
  using unet = tinyUNet();
  assert.throws(() => newLora({ unet }, { layers: /to_x$/ }), /newLora: no layer matches/);
  assert.throws(() => newLora({ unet }, { rank: 0 }), /rank is 0, must be a whole number of at least 1/);
});

test.after(() => currentGpu().idle());
test.run();
