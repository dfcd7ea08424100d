import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { BasicTransformerBlock, Module, ResnetBlock2D, UNet2DConditionModel } from '../src/nn/index.ts';
import { add, checkpoint, init, mean, mul, noGrad, scope, silu, sum, tensor } from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { randoms } from './randoms.ts';
import { collectGarbage } from './garbage.ts';

const gpu = await init();
void gpu.none; // made on first use, and kept
const test = suite('memory-checkpoint');

type Call = <I extends readonly Tensor[], O extends Tensor | readonly Tensor[]>(
  fn: (...inputs: I) => O,
  ...inputs: I
) => O;
const plainly: Call = (fn, ...inputs) => fn(...inputs);

/** Loss and gradients of `leaves` with and without checkpoints: the same bits, and nothing left behind. */
async function compare(leaves: readonly Tensor[], loss: (call: Call) => Tensor): Promise<void> {
  const results: number[][][] = [];
  for (const call of [plainly, checkpoint as Call]) {
    await collectGarbage();
    const before = gpu.memory().arrays;
    const value = scope(() => {
      const made = loss(call);
      made.backward();
      return made.detach();
    });
    const numbers = [[...(await value.read())]];
    for (const leaf of leaves) {
      numbers.push([...(await leaf.grad!.read())]);
      leaf.grad!.dispose();
      leaf.grad = undefined;
    }
    value.dispose();
    assert.is(gpu.memory().arrays, before, 'arrays left behind');
    results.push(numbers);
  }
  assert.ok(results[0].slice(1).every((gradient) => gradient.some((g) => g !== 0)));
  assert.equal(results[1], results[0]);
}

const leaf = (shape: readonly number[], seed: number) =>
  tensor(
    randoms(
      shape.reduce((a, b) => a * b, 1),
      seed,
    ),
    shape,
    { requiresGrad: true },
  );

test('gradients of inputs and of what the function closes over are those of a plain call, to the bit', async () => {
  using x = leaf([6, 50], 1);
  using w = leaf([50], 2);
  await compare([x, w], (call) => {
    const block = (h: Tensor) => mul(silu(mul(h, w)), add(h, w)); // w three times, in two blocks
    return mean(call(block, call(block, x)));
  });
});

test('checkpoints nest', async () => {
  using x = leaf([40], 1);
  using w = leaf([40], 2);
  await compare([x, w], (call) => {
    const inner = (h: Tensor) => silu(mul(h, w));
    const outer = (h: Tensor) => add(call(inner, call(inner, h)), mul(h, w));
    return sum(call(outer, call(outer, x)));
  });
});

test('several outputs, one unused, one that is the input itself', async () => {
  using x = leaf([30], 1);
  using y = leaf([30], 2);
  await compare([x, y], (call) => {
    const [product, same, sigmoidal] = call((x, y) => [mul(x, y), x, silu(y), add(x, y)] as const, x, y);
    return sum(add(mul(product, same), mul(sigmoidal, product)));
  });
});

test('a computed tensor that the function closes over gets its gradient', async () => {
  using x = leaf([30], 1);
  await compare([x], (call) => {
    const twice = mul(x, 2);
    return sum(call((h) => mul(silu(h), twice), silu(x)));
  });
});

test('only the closure needs a gradient', async () => {
  using w = leaf([30], 1);
  using x = tensor(randoms(30, 2), [30]);
  await compare([w], (call) => sum(call((h) => silu(mul(h, w)), x)));
});

test('inputs may be freed before backward', async () => {
  using x = leaf([30], 1);
  await compare([x], (call) => {
    const h = silu(x);
    const y = call((h) => mul(silu(h), h), h);
    h.dispose();
    return sum(y);
  });
});

test('without gradients it is a plain call', () =>
  scope(() => {
    const x = leaf([3], 1);
    let runs = 0;
    const fn = (h: Tensor) => (runs++, silu(h));
    assert.not(noGrad(() => checkpoint(fn, x)).requiresGrad);
    assert.not(checkpoint(fn, x.detach()).requiresGrad);
    assert.is(runs, 2);
    const y = sum(checkpoint(fn, x));
    assert.is(runs, 3);
    y.backward();
    assert.is(runs, 4);
    assert.throws(() => y.backward(), /already run through here/);
  }));

/** Peak bytes of one step of `loss` above what is held before it, and the gradients it leaves. */
async function step(model: Module, loss: () => Tensor): Promise<{ peak: number; gradients: number[][] }> {
  await collectGarbage();
  await gpu.trim();
  const before = gpu.memory().live;
  gpu.resetPeak();
  scope(() => loss().backward());
  const { peak } = gpu.memory();
  const gradients = [];
  for (const p of model.namedParameters().values()) gradients.push([...(await p.grad!.read())]);
  model.zeroGrad();
  return { peak: peak - before, gradients };
}

class Stack<B extends Module> extends Module {
  blocks: B[];
  constructor(n: number, make: () => B) {
    super();
    this.blocks = Array.from({ length: n }, make);
  }
}

test('eight transformer blocks peak at less than a third', async () => {
  using model = new Stack(8, () => new BasicTransformerBlock(32, { heads: 4, context: 24 }));
  model.initialize(1).requiresGrad(true);
  using x = tensor(randoms(4 * 64 * 32, 1), [4, 64, 32]);
  using text = tensor(randoms(4 * 8 * 24, 2), [4, 8, 24]);
  const loss = (call: Call) => () => {
    let h: Tensor = x;
    for (const block of model.blocks) h = call((h, text) => block.forward(h, text), h, text);
    return mean(mul(h, h));
  };
  const plain = await step(model, loss(plainly));
  const less = await step(model, loss(checkpoint as Call));
  assert.equal(less.gradients, plain.gradients);
  console.log(`  transformer blocks: ${plain.peak} → ${less.peak} bytes`);
  assert.ok(less.peak < plain.peak / 3, `${plain.peak} → ${less.peak} bytes`);
});

test('eight residual blocks peak at less than half', async () => {
  using model = new Stack(8, () => new ResnetBlock2D(32, 32, { groups: 8 }));
  model.initialize(1).requiresGrad(true);
  using x = tensor(randoms(4 * 16 * 16 * 32, 1), [4, 16, 16, 32]);
  const loss = (call: Call) => () => {
    let h: Tensor = x;
    for (const block of model.blocks) h = call((h) => block.forward(h), h);
    return mean(mul(h, h));
  };
  const plain = await step(model, loss(plainly));
  const less = await step(model, loss(checkpoint as Call));
  assert.equal(less.gradients, plain.gradients);
  console.log(`  residual blocks: ${plain.peak} → ${less.peak} bytes`);
  assert.ok(less.peak < plain.peak / 2, `${plain.peak} → ${less.peak} bytes`);
});

test('a U-Net with gradientCheckpointing trains to the same bits in less memory', async () => {
  using unet = new UNet2DConditionModel({
    sample_size: 16,
    block_out_channels: [16, 32],
    down_block_types: ['CrossAttnDownBlock2D', 'DownBlock2D'],
    up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D'],
    layers_per_block: 2,
    norm_num_groups: 8,
    cross_attention_dim: 24,
    attention_head_dim: 2,
  }).initialize(1);
  unet.requiresGrad(true);
  using x = tensor(randoms(2 * 16 * 16 * 4, 1), [2, 16, 16, 4]);
  using text = tensor(randoms(2 * 5 * 24, 2), [2, 5, 24]);
  const loss = () => {
    const y = unet.forward(x, [10, 500], text);
    return mean(mul(y, y));
  };
  const plain = await step(unet, loss);
  unet.gradientCheckpointing = true;
  const less = await step(unet, loss);
  assert.equal(less.gradients, plain.gradients);
  console.log(`  U-Net: ${plain.peak} → ${less.peak} bytes`);
  assert.ok(less.peak < 0.7 * plain.peak, `${plain.peak} → ${less.peak} bytes`);
});

test.after(() => gpu.destroy());
test.run();
