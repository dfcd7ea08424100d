import { suite } from 'uvu';
import { crossEntropy } from '../src/kernels/cross-entropy.ts';
import { bceWithLogits, huber, l1, mse, pseudoHuber, smoothL1 } from '../src/kernels/loss.ts';
import { checkOp } from './check-op.ts';

const test = suite('losses');

for (const [op, attrs] of [
  [mse, {}],
  [l1, {}],
  [huber, { delta: 0.8 }],
  [smoothL1, { beta: 0.5 }],
  [pseudoHuber, { c: 0.03 }],
] as const) {
  test(`${op.name} agrees with its reference, forwards and backwards`, async () => {
    for (const reduction of ['none', 'mean', 'sum']) {
      for (const shape of [
        [3, 4, 5],
        [2, 7, 3],
        [600, 9],
      ])
        await checkOp(op, [shape, shape], { ...attrs, reduction }, { samples: 20 });
    }
  });
}

test('bceWithLogits takes soft targets', async () => {
  for (const reduction of ['none', 'mean', 'sum'])
    await checkOp(
      bceWithLogits,
      [
        [3, 4, 5],
        [3, 4, 5],
      ],
      { reduction },
      { ranges: { 0: [-5, 5], 1: [0, 1] } },
    );
});

test('crossEntropy, with ignored labels and smoothing', async () => {
  for (const reduction of ['none', 'mean', 'sum']) {
    await checkOp(crossEntropy, [[6, 9], [6]], { reduction }, { ints: { 1: [0, 9] } });
    await checkOp(
      crossEntropy,
      [
        [2, 3, 4],
        [2, 3],
      ],
      { reduction, labelSmoothing: 0.1 },
      { ints: { 1: [0, 4] } },
    );
    await checkOp(crossEntropy, [[7, 4], [7]], { reduction, ignoreIndex: 2 }, { ints: { 1: [0, 4] } });
  }
});

test.run();
