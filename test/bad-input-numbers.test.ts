/**
 * NaN and infinities: what comes out of an op is what its reference makes of them in JavaScript, as in PyTorch. WGSL
 * itself promises nothing here; these are the promises of the ops, tested on every adapter that runs the tests.
 * Numbers below 1.2e-38 may count as 0.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { attention } from '../src/kernels/attention.ts';
import * as binary from '../src/kernels/binary.ts';
import { conv2d } from '../src/kernels/conv2d.ts';
import { convTranspose2d } from '../src/kernels/conv2d-transpose.ts';
import { crossEntropy } from '../src/kernels/cross-entropy.ts';
import { embedding } from '../src/kernels/embedding.ts';
import { gather, indexSelect } from '../src/kernels/gather.ts';
import { geglu } from '../src/kernels/geglu.ts';
import { groupNorm } from '../src/kernels/group-norm.ts';
import { hostArray, type HostArray, type Op, type Shape } from '../src/kernels/index.ts';
import { layerNorm } from '../src/kernels/layer-norm.ts';
import { linear } from '../src/kernels/linear.ts';
import * as losses from '../src/kernels/loss.ts';
import { matmul } from '../src/kernels/matmul.ts';
import { avgPool2d, maxPool2d } from '../src/kernels/pool2d.ts';
import * as reduce from '../src/kernels/reduce.ts';
import { cumsum, tril } from '../src/kernels/scan.ts';
import * as shapes from '../src/kernels/shape.ts';
import * as softmaxes from '../src/kernels/softmax.ts';
import * as unary from '../src/kernels/unary.ts';
import { upsampleBilinear, upsampleNearest } from '../src/kernels/upsample.ts';
import { testGpu } from './check-op.ts';
import { randoms } from './randoms.ts';

const test = suite('not-a-number and infinities');
const gpu = await testGpu();
const { NaN: nan, POSITIVE_INFINITY: inf } = Number;
type AnyOp = Op<any, any>;

/** Run an op and its reference on the same numbers: each result is equal, or both are NaN, or they are close. */
async function agree(op: AnyOp, hosts: (HostArray | undefined)[], attrs: object, what: string, ints: number[] = []) {
  const inputs = hosts.map((h, i) => h && gpu.array(h.shape, h.data, ints.includes(i) ? 'i32' : 'f32'));
  const { output } = op.forward(gpu, inputs, attrs);
  const got = await output.read();
  const want = Float32Array.from(op.reference(hosts, attrs).data);
  const scale = want.reduce((m, v) => (Number.isFinite(v) ? Math.max(m, Math.abs(v)) : m), 1e-30);
  const near = (a: number, b: number) =>
    Number.isFinite(b) ? Math.abs(a - b) <= 1e-5 * Math.abs(b) + 2e-6 * Math.min(scale, 1e3) : Object.is(a, b);
  for (let i = 0; i < want.length; i++) {
    if (!near(got[i], want[i])) assert.unreachable(`${op.name} ${what}: place ${i} is ${got[i]}, not ${want[i]}`);
  }
  assert.is(got.length, want.length, `${op.name} ${what}: size`);
}

const attrs: Record<string, object> = {
  leakyRelu: { slope: 0.2 },
  powScalar: { exponent: 3 },
  clamp: { min: -0.7, max: 1 },
  addScalar: { s: 0.3 },
  mulScalar: { s: -1.7 },
};

test('functions of one number', async () => {
  const x = [nan, inf, -inf, 0, 2, -2, 0.5, -0.5, 100, -100, 3e38, -3e38];
  for (const [name, op] of Object.entries(unary) as [string, AnyOp][]) {
    const known = name === 'sin' || name === 'cos' ? x.slice(0, 10) : x;
    await agree(op, [hostArray([known.length], known)], attrs[name] ?? {}, `of ${known}`);
  }
});

test('sin and cos of what f32 knows no angle of are NaN', async () => {
  for (const op of [unary.sin, unary.cos]) {
    const { output } = op.forward(gpu, [gpu.array([4], [131073, -2e5, 3e38, -3e38])], {});
    assert.equal([...(await output.read())], [nan, nan, nan, nan]);
    await agree(op, [hostArray([3], [131072, -131000.5, 99999])], {}, 'of large angles');
  }
});

test('functions of two numbers', async () => {
  const numbers = [nan, inf, -inf, 0, 2, -2, 3, -3, 0.5, -0.5];
  const a = numbers.flatMap((v) => numbers.map(() => v));
  const b = numbers.flatMap(() => numbers);
  const { add, sub, mul, div, maximum, minimum, pow, addScaled } = binary;
  for (const op of [add, sub, mul, div, maximum, minimum, pow, addScaled] as AnyOp[])
    await agree(op, [hostArray([100], a), hostArray([100], b)], { s: 2 }, 'of all pairs');
  await agree(binary.where, [hostArray([4], [nan, 0, -0, inf]), hostArray([4], [1, nan, 2, nan]), hostArray([4], [nan, 3, inf, 4])], {}, 'that picks'); // prettier-ignore
});

/** Random numbers with some of them replaced. */
function salted(shape: Shape, special: readonly number[], seed: number, spacing = 17): HostArray {
  const host = hostArray(shape, randoms(shape.reduce((n, d) => n * d, 1), seed)); // prettier-ignore
  special.forEach((v, i) => (host.data[(i * spacing + 5) % host.data.length] = v));
  return host;
}

/** NaN alone, infinities alone, all of them. */
const salts = [[nan], [inf], [-inf], [nan, inf, -inf]];

// prettier-ignore
test('reductions, along rows and columns, short and long', async () => {
  for (const special of salts) {
    for (const [shape, axes] of [[[5, 7], [1]], [[5, 8], [1]], [[9, 7], [0]], [[9, 8], [0]], [[3, 700], [1]], [[2, 3, 5], undefined]] as [number[], number[]?][]) {
      for (const op of [reduce.sum, reduce.mean, reduce.max, reduce.min]) await agree(op, [salted(shape, special, 1)], { axes }, `of [${shape}] with ${special}`);
    }
    for (const axis of [0, 1]) await agree(reduce.argmax, [salted([6, 5], special, 2)], { axis }, `with ${special}`);
    for (const axis of [0, 1]) await agree(cumsum, [salted([6, 5], special, 3)], { axis }, `with ${special}`);
  }
  await agree(reduce.max, [hostArray([2, 3], [-inf, -inf, -inf, -inf, 5, nan])], { axes: [1] }, 'of nothing but −∞');
  await agree(reduce.min, [hostArray([2, 3], [inf, inf, inf, inf, nan, 5])], { axes: [1] }, 'of nothing but ∞');
});

// prettier-ignore
test('softmax and its relatives', async () => {
  for (const op of [softmaxes.softmax, softmaxes.logSoftmax, softmaxes.logsumexp]) {
    for (const shape of [[6, 5], [8, 8], [2, 300]]) for (const axis of [0, 1]) for (const special of salts) await agree(op, [salted(shape, special, 4)], { axis }, `of [${shape}] along ${axis} with ${special}`);
    await agree(op, [hostArray([3, 2], [-inf, -inf, 1, -inf, inf, 1])], { axis: 1 }, 'of rows of −∞');
  }
});

// prettier-ignore
test('pools and upsampling', async () => {
  for (const special of salts) {
    for (const op of [maxPool2d, avgPool2d]) await agree(op, [salted([1, 6, 6, 3], special, 5)], { kernel: 3, stride: 2, padding: 1 }, `with ${special}`);
    await agree(upsampleNearest, [salted([1, 3, 3, 2], special, 6)], {}, `with ${special}`);
  }
  await agree(maxPool2d, [hostArray([1, 2, 2, 1], [-inf, -inf, -inf, -inf])], { kernel: 2 }, 'of −∞');
  await agree(upsampleBilinear, [salted([1, 3, 3, 2], [nan], 6)], { size: [5, 5] }, 'with NaN');
});

// prettier-ignore
test('products: a number that is none reaches its row, its column or its window, and nothing beside them', async () => {
  for (const variant of [undefined, 'naive']) {
    const { force } = gpu.capabilities;
    if (variant) for (const name of ['matmul', 'linear', 'conv2d', 'attention']) force[name] = variant;
    try {
      for (const special of [[nan], [inf]]) {
        for (const [M, K, N] of [[5, 7, 3], [17, 33, 19], [9, 1100, 5]]) {
          await agree(matmul, [salted([M, K], special, 7), salted([K, N], [], 8)], {}, `[${M}, ${K}, ${N}] with ${special} in a`);
          await agree(matmul, [salted([M, K], [], 7), salted([K, N], special, 8)], {}, `[${M}, ${K}, ${N}] with ${special} in b`);
        }
        await agree(linear, [salted([17, 9], special, 9), salted([11, 9], [], 10), salted([11], [], 11)], {}, `with ${special}`);
        await agree(linear, [salted([17, 9], [], 9), salted([11, 9], [], 10), salted([11], special, 11)], {}, `with ${special} in the bias`);
        await agree(geglu, [salted([5, 9], special, 9), salted([6, 9], [], 10), undefined], {}, `with ${special}`);
        await agree(conv2d, [salted([1, 9, 9, 5], special, 12, 207), salted([11, 3, 3, 5], [], 13)], { padding: 1 }, `with ${special}`);
        await agree(conv2d, [salted([2, 7, 7, 4], [], 12), salted([5, 3, 3, 4], special, 13)], { stride: 2 }, `with ${special} in the weight`);
        await agree(convTranspose2d, [salted([1, 4, 4, 3], special, 12), salted([3, 3, 3, 2], [], 13)], { stride: 2 }, `with ${special}`);
      }
      const [q, k, v] = [[1, 2, 9, 5], [1, 2, 11, 5], [1, 2, 11, 3]];
      await agree(attention, [salted(q, [nan], 14), salted(k, [], 15), salted(v, [], 16)], {}, 'with NaN in q');
      await agree(attention, [salted(q, [], 14), salted(k, [nan], 15), salted(v, [], 16)], {}, 'with NaN in k');
      await agree(attention, [salted(q, [], 14), salted(k, [], 15), salted(v, [nan], 16)], {}, 'with NaN in v');
      await agree(attention, [salted(q, [], 14), salted(k, [], 15), salted(v, [], 16), salted([9, 11], Array(20).fill(-inf), 17, 5)], {}, 'with hidden keys');
      await agree(attention, [salted(q, [], 14), salted(k, [], 15), salted(v, [], 16), hostArray([9, 11], Array.from({ length: 99 }, (_, i) => (i < 22 ? -inf : 0)))], {}, 'with queries that see nothing');
    } finally {
      for (const name of ['matmul', 'linear', 'conv2d', 'attention']) delete force[name];
    }
  }
});

// prettier-ignore
test('norms', async () => {
  for (const special of [[nan], [inf]]) {
    await agree(layerNorm, [salted([5, 9], special, 18), undefined, undefined], { eps: 1e-5 }, `with ${special}`);
    await agree(groupNorm, [salted([2, 5, 6], special, 19), undefined, undefined], { groups: 2, eps: 1e-5, silu: true }, `with ${special}`);
  }
});

// prettier-ignore
test('losses', async () => {
  for (const special of salts) {
    for (const reduction of ['none', 'sum', 'mean'])
      for (const op of Object.values(losses).filter((op) => typeof op === 'object') as AnyOp[])
        await agree(op, [salted([5, 7], special, 20), salted([5, 7], [], 21)], { reduction, delta: 1, beta: 1, c: 0.5 }, `with ${special}`);
  }
  for (const reduction of ['none', 'mean'])
    await agree(crossEntropy, [salted([4, 5], [nan], 22), hostArray([4], [0, 1, 2, 3])], { reduction }, 'with NaN', [1]);
});

// prettier-ignore
test('what only moves numbers moves these', async () => {
  for (const special of salts) {
    const x = salted([4, 6], special, 23);
    await agree(shapes.permute, [x], { axes: [1, 0] }, `with ${special}`);
    await agree(shapes.expand, [x], { shape: [2, 4, 6] }, `with ${special}`);
    await agree(shapes.flip, [x], { axes: [0] }, `with ${special}`);
    await agree(shapes.slice, [x], { ranges: [[1], [0, 6, 2]] }, `with ${special}`);
    await agree(shapes.concat, [x, x], { axis: 1 }, `with ${special}`);
    await agree(shapes.pad, [x], { pads: [[1, 1], [0, 2]], value: nan }, `with ${special}`);
    await agree(tril, [x], { diagonal: 0 }, `with ${special}`);
    await agree(embedding, [x, hostArray([3], [3, 0, 1])], {}, `with ${special}`, [1]);
    await agree(indexSelect, [x, hostArray([3], [5, 0, 5])], { axis: 1 }, `with ${special}`, [1]);
    await agree(gather, [x, hostArray([4, 1], [5, 0, 5, 1])], { axis: 1 }, `with ${special}`, [1]);
  }
});

test('a power of 0 has slope 0 by its exponent', async () => {
  const [a, b] = [gpu.array([3], [0, 0, 2]), gpu.array([3], [2, 0.5, 3])];
  const { saved = [] } = binary.pow.forward(gpu, [a, b], {});
  const [, db] = binary.pow.backward!(gpu, gpu.array([3], [1, 1, 1]), saved as any, {}, [false, true]);
  const [first, second, third] = await db!.read();
  assert.equal([first, second], [0, 0]);
  assert.ok(Math.abs(third - 8 * Math.log(2)) < 1e-5);
});

test('a gradient of NaN stays one on its way back', async () => {
  const wanted: Record<string, number> = {};
  for (const [name, op] of Object.entries(unary) as [string, AnyOp][]) {
    const { saved = [] } = op.forward(gpu, [gpu.array([1], [0.5])], attrs[name] ?? {});
    const [dx] = op.backward!(gpu, gpu.array([1], [nan]), saved as any, attrs[name] ?? {}, [true]);
    if (!Number.isNaN((await dx!.read())[0])) wanted[name] = (await dx!.read())[0];
  }
  assert.equal(wanted, {});
});

test.run();
