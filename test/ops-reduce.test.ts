import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { argmax, max, mean, min, sum } from '../src/kernels/reduce.ts';
import { checkOp, testGpu } from './check-op.ts';

const test = suite('reductions');

const cases: [number[], { axes?: number[]; keepdim?: boolean }][] = [
  [[3, 4, 5, 6], {}],
  [[3, 4, 5, 6], { axes: [-1] }],
  [[3, 4, 5, 6], { axes: [1, 2], keepdim: true }],
  [[3, 4, 5, 6], { axes: [0, 3] }],
  [[3, 4, 5, 8], { axes: [0, 2] }],
  [[7, 1], { axes: [1] }],
  [[2, 5000], { axes: [-1] }],
  [[1500, 8], { axes: [0] }],
  [[1301, 3], { axes: [0] }],
  [[40, 33], { axes: [1] }],
];
for (const op of [sum, mean, max, min]) {
  test(`${op.name} agrees with its reference, forwards and backwards`, async () => {
    for (const [shape, attrs] of cases) await checkOp(op, [shape], attrs, { samples: 20 });
  });
}

test('argmax finds the first largest', async () => {
  await checkOp(argmax, [[3, 4, 5]], { axis: 1 });
  await checkOp(argmax, [[3, 7]], { axis: -1 });
});

test('a team of threads for each row adds up like one', async () => {
  const gpu = await testGpu();
  const before = gpu.capabilities.family;
  gpu.capabilities.family = 'gpu';
  try {
    for (const [shape, attrs] of cases) await checkOp(sum, [shape], attrs, { samples: 5 });
  } finally {
    gpu.capabilities.family = before;
  }
});

test('an axis that is not there is refused', async () => {
  const gpu = await testGpu();
  assert.throws(() => sum.forward(gpu, [gpu.zeros([3, 4])], { axes: [2] }), /sum: there is no axis 2/);
});

test.run();
