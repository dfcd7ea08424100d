import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { conv2d } from '../src/kernels/conv2d.ts';
import { hostArray, type HostArray } from '../src/kernels/index.ts';
import { maxPool2d } from '../src/kernels/pool2d.ts';
import { outlineOf, type StateDict } from '../src/nn/index.ts';
import { InceptionV3 } from '../src/nn/models/inception.ts';
import { noGrad, scope, tensor, useGpu } from '../src/tensor/index.ts';
import { uniform } from '../src/tensor/random.ts';
import { assertClose, testGpu } from './check-op.ts';

const test = suite('nn-inception');
test.before(async () => void useGpu(await testGpu()));

test('at full size it has the keys, shapes and weights of pytorch-fid', () => {
  const model = outlineOf(() => new InceptionV3());
  const shapes = new Map([...model.namedParameters()].map(([key, p]) => [key, [...p.checkpointShape]]));
  const known: Record<string, number[]> = {
    'Conv2d_1a_3x3.conv.weight': [32, 3, 3, 3],
    'Conv2d_1a_3x3.bn.running_var': [32],
    'Conv2d_3b_1x1.conv.weight': [80, 64, 1, 1],
    'Mixed_5b.branch_pool.conv.weight': [32, 192, 1, 1],
    'Mixed_5d.branch5x5_2.conv.weight': [64, 48, 5, 5],
    'Mixed_6a.branch3x3dbl_3.conv.weight': [96, 96, 3, 3],
    'Mixed_6b.branch7x7_2.conv.weight': [128, 128, 1, 7],
    'Mixed_6e.branch7x7dbl_4.conv.weight': [192, 192, 7, 1],
    'Mixed_7a.branch7x7x3_4.conv.weight': [192, 192, 3, 3],
    'Mixed_7c.branch3x3dbl_3b.conv.weight': [384, 384, 3, 1],
    'Mixed_7c.branch3x3dbl_1.conv.weight': [448, 2048, 1, 1],
    'Mixed_7c.branch_pool.bn.weight': [192],
  };
  for (const [key, shape] of Object.entries(known)) assert.equal(shapes.get(key), shape, key);
  assert.is(shapes.size, 94 * 5);
  const statistics = [...model.namedParameters()].filter(([key]) => key.includes('running_'));
  const learned = model.parameterCount - statistics.reduce((sum, [, p]) => sum + p.size, 0);
  assert.is(learned, 23_834_568 - 2049 * 1000); // torchvision's without its classifier
});

test('agrees with the network in slow JavaScript', async () => {
  using model = new InceptionV3().initialize(3);
  const state: StateDict = await model.stateDict();
  for (const [i, [key, value]] of Object.entries(state).entries()) {
    const random = uniform(5, i, value.data.length);
    if (/bn\.(weight|running_var)$/.test(key)) value.data = random.map((u) => 0.5 + u);
    if (/bn\.(bias|running_mean)$/.test(key)) value.data = random.map((u) => u - 0.5);
  }
  model.loadStateDict(state);
  const side = 107; // the smallest of which 2 × 2 pixels reach the end
  const x = uniform(6, 'image', side * side * 3).map((u) => 2 * u - 1);
  const made = noGrad(() => scope(() => model.features(tensor(x, [1, side, side, 3]))));
  assertClose(await made.read(), reference(state, hostArray([1, side, side, 3], x)), 1e-4, 'pooled features');
});

test('images of any size are scaled, other channels refused', async () => {
  using model = new InceptionV3().initialize(3);
  const small = noGrad(() => scope(() => model.forward(tensor(uniform(6, 'image', 16 * 16 * 3), [1, 16, 16, 3]))));
  assert.equal([...small.shape], [1, 2048]);
  assert.ok((await small.read()).every((v) => Number.isFinite(v)));
  assert.throws(() => model.forward(tensor([1, 2], [1, 1, 1, 2])), /InceptionV3: wants images \[B, H, W, 3\]/);
});

/** pytorch-fid's network, block by block. */
function reference(state: StateDict, x: HostArray): number[] {
  const basic = (key: string, input: HostArray, { stride = 1, same = true } = {}): HostArray => {
    const { shape, data } = state[`${key}.conv.weight`];
    const [O, I, kh, kw] = shape;
    const weight = hostArray([O, kh, kw, I]);
    for (let o = 0; o < O; o++)
      for (let i = 0; i < I; i++)
        for (let k = 0; k < kh * kw; k++) weight.data[(o * kh * kw + k) * I + i] = data[(o * I + i) * kh * kw + k];
    const [py, px] = same ? [(kh - 1) / 2, (kw - 1) / 2] : [0, 0];
    const y = conv2d.reference([input, weight] as never, { stride, padding: [px, px, py, py] });
    const bn = (name: string) => state[`${key}.bn.${name}`].data;
    const [w, b, m, v] = ['weight', 'bias', 'running_mean', 'running_var'].map(bn);
    y.data.forEach((value, i) => {
      const c = i % O;
      y.data[i] = Math.max(0, ((value - m[c]) / Math.sqrt(v[c] + 0.001)) * w[c] + b[c]);
    });
    return y;
  };
  const chain = (block: string, input: HostArray, ...keys: string[]) =>
    keys.reduce((h, key) => basic(`${block}.${key}`, h), input);
  const strided = (key: string, input: HostArray) => basic(key, input, { stride: 2, same: false });
  const largest = (input: HostArray, stride: number, padding: number) =>
    maxPool2d.reference([input], { kernel: 3, stride, padding });
  /** Over the pixels that there are. */
  const average = (input: HostArray): HostArray => {
    const [, H, W, C] = input.shape;
    const out = hostArray([1, H, W, C]);
    for (let y = 0; y < H; y++)
      for (let x = 0; x < W; x++)
        for (let c = 0; c < C; c++) {
          let [sum, count] = [0, 0];
          for (let i = Math.max(0, y - 1); i <= Math.min(H - 1, y + 1); i++)
            for (let j = Math.max(0, x - 1); j <= Math.min(W - 1, x + 1); j++) {
              sum += input.data[(i * W + j) * C + c];
              count++;
            }
          out.data[(y * W + x) * C + c] = sum / count;
        }
    return out;
  };
  const join = (...parts: HostArray[]): HostArray => {
    const [, H, W] = parts[0].shape;
    const out = hostArray([1, H, W, parts.reduce((n, p) => n + p.shape[3], 0)]);
    for (let pixel = 0, at = 0; pixel < H * W; pixel++)
      for (const { shape, data } of parts)
        for (let c = 0; c < shape[3]; c++) out.data[at++] = data[pixel * shape[3] + c];
    return out;
  };

  x = strided('Conv2d_1a_3x3', x);
  x = basic('Conv2d_2b_3x3', basic('Conv2d_2a_3x3', x, { same: false }));
  x = basic('Conv2d_3b_1x1', largest(x, 2, 0));
  x = largest(basic('Conv2d_4a_3x3', x, { same: false }), 2, 0);
  for (const block of ['Mixed_5b', 'Mixed_5c', 'Mixed_5d'])
    x = join(
      chain(block, x, 'branch1x1'),
      chain(block, x, 'branch5x5_1', 'branch5x5_2'),
      chain(block, x, 'branch3x3dbl_1', 'branch3x3dbl_2', 'branch3x3dbl_3'),
      chain(block, average(x), 'branch_pool'),
    );
  x = join(
    strided('Mixed_6a.branch3x3', x),
    strided('Mixed_6a.branch3x3dbl_3', chain('Mixed_6a', x, 'branch3x3dbl_1', 'branch3x3dbl_2')),
    largest(x, 2, 0),
  );
  const double = [1, 2, 3, 4, 5].map((i) => `branch7x7dbl_${i}`);
  for (const block of ['Mixed_6b', 'Mixed_6c', 'Mixed_6d', 'Mixed_6e'])
    x = join(
      chain(block, x, 'branch1x1'),
      chain(block, x, 'branch7x7_1', 'branch7x7_2', 'branch7x7_3'),
      chain(block, x, ...double),
      chain(block, average(x), 'branch_pool'),
    );
  x = join(
    strided('Mixed_7a.branch3x3_2', chain('Mixed_7a', x, 'branch3x3_1')),
    strided('Mixed_7a.branch7x7x3_4', chain('Mixed_7a', x, 'branch7x7x3_1', 'branch7x7x3_2', 'branch7x7x3_3')),
    largest(x, 2, 0),
  );
  for (const block of ['Mixed_7b', 'Mixed_7c']) {
    const one = chain(block, x, 'branch3x3_1');
    const two = chain(block, x, 'branch3x3dbl_1', 'branch3x3dbl_2');
    x = join(
      chain(block, x, 'branch1x1'),
      chain(block, one, 'branch3x3_2a'),
      chain(block, one, 'branch3x3_2b'),
      chain(block, two, 'branch3x3dbl_3a'),
      chain(block, two, 'branch3x3dbl_3b'),
      chain(block, block === 'Mixed_7b' ? average(x) : largest(x, 1, 1), 'branch_pool'),
    );
  }
  const [, H, W, C] = x.shape;
  return Array.from({ length: C }, (_, c) => {
    let sum = 0;
    for (let pixel = 0; pixel < H * W; pixel++) sum += x.data[pixel * C + c];
    return sum / (H * W);
  });
}

test.run();
