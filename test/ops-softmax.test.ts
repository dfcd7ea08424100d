import { suite } from 'uvu';
import { logSoftmax, logsumexp, softmax } from '../src/kernels/softmax.ts';
import { checkOp } from './check-op.ts';

const test = suite('softmax');
const variants = ['thread', 'team'];

for (const op of [softmax, logSoftmax]) {
  test(`${op.name} along any axis`, async () => {
    const ranges = { 0: [-5, 5] as const };
    await checkOp(op, [[3, 5, 19]], { axis: -1 }, { variants, ranges, samples: 60 });
    await checkOp(op, [[3, 8, 5]], { axis: 1 }, { ranges, samples: 60 });
    await checkOp(op, [[3, 7, 8]], { axis: 0 }, { ranges, samples: 60 });
    await checkOp(op, [[7, 40]], { axis: -1 }, { variants, ranges, samples: 60 });
    await checkOp(op, [[2, 1031]], { axis: -1 }, { variants, ranges, samples: 20 });
    await checkOp(op, [[6, 1]], { axis: -1 }, { variants });
  });
}

test('softmax of large numbers is finite', () =>
  checkOp(softmax, [[4, 16]], { axis: -1 }, { variants, ranges: { 0: [-300, 300] }, gradTolerance: 2e-3 }));

test('logsumexp', async () => {
  await checkOp(logsumexp, [[4, 11]], { axis: -1 }, { ranges: { 0: [-9, 9] } });
  await checkOp(logsumexp, [[4, 3, 8]], { axis: 1, keepdim: true }, { ranges: { 0: [-90, 90] } });
});

test.run();
