import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Gpu } from '../src/kernels/index.ts';
import { AdamW, EMA, Embedding, Linear, Module, SGD } from '../src/nn/index.ts';
import * as t from '../src/tensor/index.ts';
import { scope, tensor, useGpu } from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { assertClose } from './check-op.ts';
import { randoms } from './randoms.ts';
import { collectGarbage } from './garbage.ts';

const LIMIT = 64 * 1024;
const whole = await Gpu.create();
const split = await Gpu.create({ limits: { maxStorageBufferBindingSize: LIMIT } });
for (const gpu of [whole, split]) void gpu.none;
const test = suite('limits-split');

interface Operand {
  shape: readonly number[];
  /** i32 below this number; no gradient. */
  below?: number;
}
interface Expected {
  /** Operands whose gradients are sums over parts, and so may differ in the last bits. */
  sums?: readonly number[];
  /** The output is such a sum. */
  sum?: boolean;
}

/**
 * The same call on a device with a binding limit of 64 KiB and on one without: the same bits, forwards and backwards, and
 * nothing left behind.
 */
async function compare(
  operands: readonly (Operand | readonly number[])[],
  fn: (...x: Tensor[]) => Tensor,
  { sums = [], sum = false }: Expected = {},
): Promise<void> {
  const results: { y: Float32Array; gradients: (Float32Array | undefined)[]; parts: number }[] = [];
  for (const gpu of [whole, split]) {
    useGpu(gpu);
    await collectGarbage();
    const before = gpu.memory().arrays;
    const inputs = operands.map((operand, i) => {
      const { shape, below } = 'shape' in operand ? operand : { shape: operand, below: undefined };
      const n = shape.reduce((a, b) => a * b, 1);
      if (below) return tensor(randoms(n, i + 1, [0, below]).map(Math.floor), shape, { dtype: 'i32' });
      return tensor(randoms(n, i + 1), shape, { requiresGrad: true });
    });
    const output = scope(() => {
      const y = fn(...inputs);
      // A cotangent that differs from place to place and is made alike on both devices.
      const weights = tensor(randoms(y.size, 99, [-1, 1]), y.shape);
      t.sum(t.mul(y, weights)).backward();
      return y;
    });
    const y = (await output.read()) as Float32Array;
    const gradients = await Promise.all(inputs.map(async (x) => (await x.grad?.read()) as Float32Array | undefined));
    results.push({ y, gradients, parts: [output, ...inputs].filter((x) => x.array.parts).length });
    for (const x of [output, ...inputs]) x.dispose();
    assert.is(gpu.memory().arrays, before, 'arrays left behind');
  }
  const [want, got] = results;
  assert.is(want.parts, 0);
  assert.ok(got.parts > 0, 'nothing was in parts');
  assertClose(got.y, want.y, sum ? 1e-6 : 0, 'output');
  want.gradients.forEach((gradient, i) => {
    assert.is(Boolean(got.gradients[i]), Boolean(gradient));
    if (gradient) assertClose(got.gradients[i]!, gradient, sums.includes(i) ? 2e-6 : 0, `gradient ${i}`);
  });
}

test('what is written is read back, across parts', async () => {
  for (const shape of [[50000], [3000, 7], [5, 12000], [70, 30, 20], [1, 40, 40, 24], [3, 40, 40, 24], [1, 50000]]) {
    const n = shape.reduce((a, b) => a * b, 1);
    const numbers = randoms(n, 1);
    const x = split.array(shape, numbers);
    assert.ok(x.parts!.length > 1);
    assert.is(
      x.parts!.reduce((size, part) => size + part.size, 0),
      n,
    );
    assert.equal(await x.read(), numbers);
    const copy = split.zeros(shape);
    assert.ok((await copy.read()).every((v) => v === 0));
    split.copy(x, copy);
    const before = copy.read();
    split.write(copy, new Float32Array(n));
    assert.equal(await before, numbers, 'as it was when it was asked for');
    const i32 = split.array(shape, Array.from(numbers, Math.floor), 'i32');
    assert.equal([...(await i32.read())], Array.from(numbers, Math.floor));
    for (const array of [x, copy, i32]) array.dispose();
  }
});

const cases: [name: string, operands: (Operand | readonly number[])[], fn: (...x: Tensor[]) => Tensor, Expected?][] = [
  ['unary', [[3000, 13]], (x) => t.silu(x)],
  ['number and power', [[40000]], (x) => t.mul(t.square(x), 0.5)],
  [
    'binary of equals',
    [
      [3000, 13],
      [3000, 13],
    ],
    (a, b) => t.mul(a, b),
  ],
  ['binary with a row', [[3000, 12], [12]], (a, b) => t.add(t.mul(a, b), b), { sums: [1] }],
  [
    'binary with a column',
    [
      [3000, 12],
      [3000, 1],
    ],
    (a, b) => t.mul(a, b),
  ],
  ['binary with a number', [[3000, 12], []], (a, b) => t.mul(a, b), { sums: [1] }],
  ['where', [{ shape: [3000, 12], below: 2 }, [3000, 12], [12]], (c, a, b) => t.where(c, a, b), { sums: [2] }],
  ['reshape, rows kept together', [[3000, 12]], (x) => t.mul(t.reshape(x, [1500, 24]), 2)],
  ['reshape, rows cut', [[3000, 12]], (x) => t.mul(t.reshape(x, [1200, 30]), 2)],
  ['softmax', [[3000, 12]], (x) => t.softmax(x)],
  ['layerNorm', [[3000, 12], [12], [12]], (x, w, b) => t.layerNorm(x, w, b), { sums: [1, 2] }],
  ['groupNorm', [[20, 5, 5, 40], [40], [40]], (x, w, b) => t.groupNorm(x, w, b, { groups: 4 }), { sums: [1, 2] }],
  ['sum over columns', [[3000, 12]], (x) => t.sum(x, { axes: [1] })],
  ['sum over rows', [[3000, 12]], (x) => t.sum(x, { axes: [0] }), { sum: true }],
  ['mean over all', [[3000, 12]], (x) => t.mean(x), { sum: true, sums: [0] }],
  ['linear, many rows', [[3000, 12], [5, 12], [5]], (x, w, b) => t.linear(x, w, b), { sums: [1, 2] }],
  ['linear, large weight', [[4, 20], [3000, 20], [3000]], (x, w, b) => t.linear(x, w, b), { sums: [0] }],
  ['conv2d', [[20, 6, 6, 32], [4, 3, 3, 32], [4]], (x, w, b) => t.conv2d(x, w, b, { padding: 1 }), { sums: [1, 2] }],
  [
    'conv2d, large weight',
    [[2, 4, 4, 20], [120, 3, 3, 20], [120], [2, 4, 4, 120], [2, 120]],
    (x, w, b, residual, temb) => t.conv2d(x, w, b, { padding: 1, residual, temb }),
    { sums: [0] },
  ],
  // An image that is too large by itself lies in bands.
  ['sum over pixels of a band', [[1, 40, 40, 24]], (x) => t.sum(x, { axes: [1, 2] }), { sum: true }],
  ['sum over pixels of two images', [[2, 40, 40, 24]], (x) => t.sum(x, { axes: [1, 2] }), { sum: true }],
  ['unary of a band', [[1, 40, 40, 24]], (x) => t.silu(x)],
  [
    'binary of bands with channels',
    [[1, 40, 40, 24], [1, 40, 40, 24], [24]],
    (a, b, c) => t.mul(t.add(a, b), c),
    { sums: [2] },
  ],
  [
    'conv2d of bands to bands',
    [[1, 40, 40, 24], [24, 3, 3, 24], [24], [1, 40, 40, 24], [1, 24]],
    (x, w, b, residual, temb) => t.conv2d(x, w, b, { padding: 1, residual, temb }),
    { sums: [0, 1, 2, 4] },
  ],
  [
    'conv2d of bands by Winograd',
    [[1, 80, 20, 12], [16, 3, 3, 12], [16], [1, 80, 20, 16], [1, 16]],
    (x, w, b, residual, temb) => {
      const { force } = t.currentGpu().capabilities;
      force.conv2d = 'winograd';
      const y = t.conv2d(x, w, b, { padding: 1, residual, temb });
      delete force.conv2d;
      return y;
    },
    { sums: [0, 1, 2, 4] },
  ],
  [
    'conv2d of bands by strides',
    [[1, 41, 40, 24], [5, 3, 3, 24], [5]],
    (x, w, b) => t.conv2d(x, w, b, { stride: 2, padding: [0, 1, 0, 1] }),
    { sums: [0, 1, 2] },
  ],
  [
    'conv2d that makes bands',
    [
      [1, 40, 40, 3],
      [24, 5, 5, 3],
    ],
    (x, w) => t.conv2d(x, w, undefined, { padding: 2 }),
    { sums: [0, 1] },
  ],
  [
    'conv2d of two images in bands',
    [[2, 40, 40, 24], [4, 3, 3, 24], [4], [2, 40, 40, 4]],
    (x, w, b, residual) => t.conv2d(x, w, b, { padding: 1, residual }),
    { sums: [0, 1, 2] },
  ],
  ['upsampling that makes bands', [[1, 20, 20, 24]], (x) => t.upsampleNearest(x, { factor: 2 })],
  ['upsampling of two images', [[2, 20, 20, 24]], (x) => t.upsampleNearest(x, { factor: 2 })],
  [
    'groupNorm of bands',
    [[1, 40, 40, 24], [24], [24]],
    (x, w, b) => t.groupNorm(x, w, b, { groups: 4, silu: true }),
    { sum: true, sums: [0, 1, 2] },
  ],
  [
    'groupNorm of two images in bands',
    [[2, 40, 40, 24], [24], [24]],
    (x, w, b) => t.groupNorm(x, w, b, { groups: 4 }),
    { sum: true, sums: [0, 1, 2] },
  ],
  ['embedding', [[3000, 12], { shape: [5, 40], below: 3000 }], (w, ids) => t.embedding(w, ids)],
  ['embedding, odd width, ids that repeat', [[5000, 7], { shape: [300], below: 40 }], (w, ids) => t.embedding(w, ids)],
  [
    'slice of rows',
    [[3000, 12]],
    (x) =>
      t.slice(x, [
        [1000, 1100],
        [2, 9],
      ]),
  ],
  ['slice of many rows', [[6000, 12]], (x) => t.slice(x, [[-5500]])],
  [
    'concat to parts',
    [
      [1000, 12],
      [1200, 12],
      [30, 12],
    ],
    (...x) =>
      t.concat(
        x.map((v) => t.mul(v, 2)),
        { axis: 0 },
      ),
  ],
  [
    'concat of parts',
    [
      [3000, 12],
      [100, 12],
    ],
    (...x) => t.concat(x, { axis: 0 }),
  ],
  [
    'concat of columns',
    [
      [3000, 12],
      [3000, 3],
    ],
    (...x) => t.concat(x, { axis: 1 }),
  ],
  [
    'a checkpoint',
    [[3000, 12], [12]],
    (x, w) => t.checkpoint((h) => t.softmax(t.mul(h, w)), t.square(x)),
    { sums: [1] },
  ],
];
for (const [name, operands, fn, expected] of cases) test(name, () => compare(operands, fn, expected));

class Network extends Module {
  embedding = new Embedding(3000, 16);
  out = new Linear(16, 3000);

  forward(ids: Tensor): Tensor {
    return t.mean(t.square(this.out.forward(this.embedding.forward(ids))));
  }
}

for (const kind of ['AdamW', 'SGD'] as const) {
  test(`a network whose weights are in parts trains by ${kind} as one whose are not`, async () => {
    const results: Record<string, { data: ArrayLike<number> }>[] = [];
    const slot = kind === 'AdamW' ? 'exp_avg_sq' : 'momentum_buffer';
    for (const gpu of [whole, split]) {
      useGpu(gpu);
      using network = new Network().initialize(3).requiresGrad(true);
      assert.is(network.embedding.weight.array.parts !== undefined, gpu === split);
      const ema = new EMA(network, { decay: 0.5 });
      const parameters = network.namedParameters();
      const optimizer =
        kind === 'AdamW'
          ? new AdamW(parameters, { lr: 0.01, ema })
          : new SGD(parameters, { lr: 0.1, momentum: 0.9, ema });
      for (let i = 0; i < 3; i++) {
        scope(() => {
          network.forward(tensor(randoms(4, i + 1, [0, 3000]).map(Math.floor), [2, 2], { dtype: 'i32' })).backward();
          optimizer.step();
        });
      }
      const state = { ...(await network.stateDict()), ...(await optimizer.stateDict()) };
      for (const [key, value] of Object.entries(await ema.stateDict())) state[`ema.${key}`] = value;
      results.push(state);
      using loaded = new Network();
      loaded.loadStateDict(state, { strict: false });
      assert.equal((await loaded.stateDict())['out.weight'].data, state['out.weight'].data);
      optimizer.loadStateDict(state);
      assert.equal((await optimizer.stateDict())[`out.weight.${slot}`].data, state[`out.weight.${slot}`].data);
      optimizer.dispose();
      ema.dispose();
    }
    const [want, got] = results;
    assert.equal(Object.keys(got), Object.keys(want));
    for (const key of Object.keys(want)) assertClose(got[key].data, want[key].data, 2e-5, key);
    assertClose(got['out.weight'].data, want['out.weight'].data, 2e-6, 'out.weight');
  });
}

test('an op without a rule says so, and which limit', () => {
  useGpu(split);
  scope(() => {
    const x = t.zeros([3000, 12]);
    assert.throws(
      () => t.permute(x, [1, 0]),
      /permute: does not work in parts, and an operand is more than this adapter binds at once \(0.06 MiB\)\n {2}a {2}\[3000, 12\]/,
    );
    assert.throws(() => t.softmax(x, { axis: 0 }), /softmax: does not work in parts/);
    const row = t.zeros([1, 200]);
    assert.throws(() => t.mul(row, t.zeros([200, 1])), /mul: works on no array that is larger/);
    const band = t.zeros([1, 40, 40, 24]);
    assert.throws(() => t.sum(band, { axes: [2] }), /sum: does not work in parts/);
    assert.throws(() => t.softmax(band), /softmax: does not work in parts/);
    assert.throws(() => t.concat([band, band], { axis: -1 }), /concat: does not work in parts/);
    const wide = t.zeros([1, 40, 40, 10]);
    assert.throws(
      () => t.concat([wide, wide], { axis: -1 }),
      /concat: an array of 0.12 MiB is more than .* cannot be made/,
    );
    assert.throws(() => t.mul(band, t.zeros([40, 1, 1])), /mul: does not work in parts/);
  });
});

test.run();
