import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { groupNorm } from '../src/kernels/group-norm.ts';
import { layerNorm } from '../src/kernels/layer-norm.ts';
import { checkOp, testGpu } from './check-op.ts';

const test = suite('norms');
const variants = ['whole', 'staged'];

test('groupNorm agrees with its reference, forwards and backwards', async () => {
  await checkOp(groupNorm, [[2, 5, 6, 32], [32], [32]], { groups: 8, eps: 1e-5 }, { variants, samples: 60 });
  await checkOp(
    groupNorm,
    [[2, 3, 7, 12], [12], [12]],
    { groups: 4, eps: 1e-5, silu: true },
    { variants, samples: 60 },
  );
  await checkOp(groupNorm, [[1, 61, 10], [10], [10]], { groups: 2, eps: 1e-5, silu: true }, { variants, samples: 60 });
  await checkOp(groupNorm, [[2, 9, 20], [20], [20]], { groups: 2, eps: 1e-6 }, { variants, samples: 60 });
  await checkOp(groupNorm, [[3, 4, 4, 6], undefined, undefined], { groups: 2, eps: 1e-5 }, { variants, samples: 60 });
  await checkOp(groupNorm, [[1, 4, 4, 8], undefined, [8]], { groups: 8, eps: 1e-5 }, { variants, samples: 60 });
});

test('groupNorm keeps its accuracy far from zero', async () => {
  const ranges = { 0: [98, 102] as const };
  await checkOp(
    groupNorm,
    [[2, 6, 5, 8], [8], [8]],
    { groups: 2, eps: 1e-5 },
    { variants, ranges, tolerance: 5e-5, gradTolerance: 5e-4, samples: 60 },
  );
});

test('a constant image normalises to the bias, not to NaN', async () => {
  const gpu = await testGpu();
  const x = gpu.array([1, 9, 4], Array(36).fill(5));
  const { output } = groupNorm.forward(gpu, [x, undefined, undefined], { groups: 2, eps: 1e-5 });
  assert.ok((await output.read()).every((v) => Math.abs(v) < 1e-4));
});

test('groupNorm names what does not fit', async () => {
  const gpu = await testGpu();
  assert.throws(
    () => groupNorm.forward(gpu, [gpu.zeros([1, 4, 6]), undefined, undefined], { groups: 4, eps: 0 }),
    /6 channels do not split into 4 groups/,
  );
  assert.throws(
    () => groupNorm.forward(gpu, [gpu.zeros([1, 4, 6]), gpu.zeros([4]), undefined], { groups: 2, eps: 0 }),
    /channels differ/,
  );
});

const teams = ['thread', 'team'];

test('layerNorm agrees with its reference, forwards and backwards', async () => {
  await checkOp(layerNorm, [[2, 5, 40], [40], [40]], { eps: 1e-5 }, { variants: teams, samples: 60 });
  await checkOp(layerNorm, [[37, 9], [9], [9]], { eps: 1e-5 }, { variants: teams, samples: 60 });
  await checkOp(layerNorm, [[3, 16], undefined, undefined], { eps: 1e-6 }, { variants: teams });
  await checkOp(
    layerNorm,
    [
      [3, 4, 6],
      [4, 6],
      [4, 6],
    ],
    { eps: 1e-5, axes: 2 },
    { variants: teams },
  );
  await checkOp(layerNorm, [[2, 1100], [1100], undefined], { eps: 1e-5 }, { variants: teams, samples: 20 });
});

test('layerNorm keeps its accuracy far from zero', () =>
  checkOp(
    layerNorm,
    [[4, 64], [64], [64]],
    { eps: 1e-5 },
    { variants: teams, ranges: { 0: [98, 102] }, tolerance: 5e-5, gradTolerance: 5e-4, samples: 60 },
  ));

test.run();
