import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { embedding } from '../src/kernels/embedding.ts';
import { gather, indexSelect } from '../src/kernels/gather.ts';
import { cumsum, tril } from '../src/kernels/scan.ts';
import { concat, expand, flip, pad, permute, reshape, slice } from '../src/kernels/shape.ts';
import { checkOp, testGpu } from './check-op.ts';

const test = suite('shape ops');

test('reshape', () => checkOp(reshape, [[2, 6, 5]], { shape: [4, -1] }));

test('permute', async () => {
  for (const axes of [
    [0, 2, 3, 1],
    [3, 1, 2, 0],
    [0, 2, 1, 3],
    [1, 0, 2, 3],
    [-1, 0, 1, 2],
  ])
    await checkOp(permute, [[2, 5, 3, 4]], { axes });
});

test('slice, with steps and from the end', async () => {
  await checkOp(slice, [[3, 5, 6]], {
    ranges: [
      [0, 2, 1],
      [1, null, 2],
      [0, 4, 1],
    ],
  });
  await checkOp(slice, [[3, 5, 8]], { ranges: [undefined, [1, 3], [4]] });
  await checkOp(slice, [[3, 5, 8]], { ranges: [[-2], [0, -1, 3]] });
});

test('flip', async () => {
  await checkOp(flip, [[2, 5, 3]], { axes: [1] });
  await checkOp(flip, [[2, 5, 8]], { axes: [0, 2] });
  await checkOp(flip, [[2, 5, 8]], { axes: [1] });
});

test('concat along any axis', async () => {
  await checkOp(
    concat,
    [
      [2, 3, 4, 4],
      [2, 5, 4, 4],
    ],
    { axis: 1 },
  );
  await checkOp(
    concat,
    [
      [2, 3],
      [2, 1],
      [2, 4],
    ],
    { axis: -1 },
  );
  await checkOp(
    concat,
    [
      [2, 3, 8],
      [2, 3, 12],
    ],
    { axis: 2 },
  );
});

test('expand', async () => {
  await checkOp(expand, [[4, 1]], { shape: [3, 4, 5] });
  await checkOp(expand, [[1, 1, 8]], { shape: [3, 4, 8] });
});

test('pad', async () => {
  await checkOp(pad, [[1, 3, 4, 2]], {
    pads: [
      [0, 0],
      [0, 1],
      [2, 1],
      [0, 0],
    ],
    value: 0,
  });
  await checkOp(pad, [[3, 4]], {
    pads: [
      [1, 1],
      [0, 2],
    ],
    value: 1.5,
  });
});

test('cumsum and tril', async () => {
  await checkOp(cumsum, [[3, 4, 5]], { axis: 1 });
  await checkOp(cumsum, [[3, 9]], { axis: -1 });
  await checkOp(tril, [[2, 5, 6]], { diagonal: 0 });
  await checkOp(tril, [[5, 5]], { diagonal: -1 });
});

test('embedding, also with rows that occur often or never', async () => {
  await checkOp(
    embedding,
    [
      [7, 12],
      [2, 9],
    ],
    {},
    { ints: { 1: [0, 7] } },
  );
  await checkOp(embedding, [[30, 5], [40]], {}, { ints: { 1: [3, 9] } });
});

test('gather and indexSelect', async () => {
  await checkOp(
    gather,
    [
      [3, 6],
      [3, 4],
    ],
    { axis: 1 },
    { ints: { 1: [0, 6] } },
  );
  await checkOp(
    gather,
    [
      [5, 3, 4],
      [7, 3, 4],
    ],
    { axis: 0 },
    { ints: { 1: [0, 5] } },
  );
  await checkOp(indexSelect, [[6, 4], [9]], { axis: 0 }, { ints: { 1: [0, 6] } });
  await checkOp(indexSelect, [[2, 6, 3], [3]], { axis: 1 }, { ints: { 1: [0, 6] } });
});

test('integers are moved as they are', async () => {
  const gpu = await testGpu();
  const x = gpu.array([2, 3], [1, 2, 3, 4, 5, 6], 'i32');
  const { output } = permute.forward(gpu, [x], { axes: [1, 0] });
  assert.equal([...(await output.read())], [1, 4, 2, 5, 3, 6]);
});

test('what cannot be is refused', async () => {
  const gpu = await testGpu();
  const x = gpu.zeros([2, 3]);
  assert.throws(() => reshape.forward(gpu, [x], { shape: [4, -1] }), /6 numbers do not fill/);
  assert.throws(() => permute.forward(gpu, [x], { axes: [0, 0] }), /not an order/);
  assert.throws(() => concat.forward(gpu, [x, gpu.zeros([3, 3])], { axis: 1 }), /only axis 1 may differ/);
});

test.run();
