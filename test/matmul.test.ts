import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { gemm, pickGemm } from '../src/kernels/gemm.ts';
import { geglu } from '../src/kernels/geglu.ts';
import { linear } from '../src/kernels/linear.ts';
import { matmul } from '../src/kernels/matmul.ts';
import { checkOp, testGpu } from './check-op.ts';

const variants = ['naive', 'register-tile', 'subgroup-tile', 'workgroup-tile'];
const test = suite('matmul');

for (const transposeA of [false, true]) {
  for (const transposeB of [false, true]) {
    test(`agrees with its reference, forwards and backwards: transposeA ${transposeA}, transposeB ${transposeB}`, async () => {
      const a = transposeA ? [13, 35] : [35, 13];
      const b = transposeB ? [71, 13] : [13, 71];
      await checkOp(matmul, [a, b], { transposeA, transposeB }, { variants, core: true });
    });
    test(`batches agree: transposeA ${transposeA}, transposeB ${transposeB}`, async () => {
      const a = transposeA ? [2, 3, 5, 9] : [2, 3, 9, 5];
      const b = transposeB ? [2, 3, 7, 5] : [2, 3, 5, 7];
      await checkOp(matmul, [a, b], { transposeA, transposeB }, { variants });
    });
  }
}
test('batches broadcast', async () => {
  await checkOp(
    matmul,
    [
      [2, 1, 6, 7],
      [3, 7, 5],
    ],
    {},
    { variants },
  );
  await checkOp(
    matmul,
    [
      [2, 3, 6, 7],
      [7, 5],
    ],
    {},
    { variants },
  );
  await checkOp(
    matmul,
    [
      [6, 7],
      [2, 3, 7, 5],
    ],
    {},
    { variants },
  );
  await checkOp(
    matmul,
    [
      [4, 1, 3, 2],
      [4, 5, 2, 6],
    ],
    {},
    { variants },
  );
});
test('vectors are rows on the left and columns on the right', async () => {
  await checkOp(matmul, [[5, 12], [12]]);
  await checkOp(matmul, [[12], [12, 5]]);
  await checkOp(matmul, [[12], [12]]);
});
test('a long inner axis is cut into parts', async () => {
  await checkOp(
    matmul,
    [
      [4, 1500],
      [1500, 6],
    ],
    {},
    { variants, samples: 60 },
  );
  await checkOp(
    matmul,
    [
      [2, 3, 1111],
      [2, 1111, 5],
    ],
    {},
    { variants, samples: 60 },
  );
});
test('inner sizes that differ are an error that says so', async () => {
  const gpu = await testGpu();
  using a = gpu.zeros([2, 64, 768]);
  using b = gpu.zeros([2, 77, 768]);
  using c = gpu.zeros([3, 768, 64]);
  assert.throws(() => matmul.forward(gpu, [a, b], {}), /matmul: inner sizes differ \(768 ≠ 77\)[^]*transposeB: true/);
  assert.throws(() => matmul.forward(gpu, [a, c], {}), /batches do not broadcast/);
});

test('linear agrees with its reference', async () => {
  await checkOp(linear, [[2, 7, 48], [40, 48], [40]], {}, { variants, core: true });
  await checkOp(
    linear,
    [
      [9, 33],
      [17, 33],
    ],
    {},
    { variants },
  );
  await checkOp(linear, [[3, 5, 10], [131, 10], [131], [3, 5, 131]], {}, { variants });
});
test('linear over many rows agrees: the weight gradient is cut into parts', () =>
  checkOp(linear, [[1300, 3], [5, 3], [5]], {}, { variants, samples: 100 }));
test('bias and residual are added once where K is cut', async () => {
  await checkOp(linear, [[3, 1300], [5, 1300], [5], [3, 5]], {}, { variants, samples: 40 });
});
test('linear says what does not fit', async () => {
  const gpu = await testGpu();
  using x = gpu.zeros([2, 5]);
  using wide = gpu.zeros([5, 7]);
  using weight = gpu.zeros([7, 5]);
  using bias = gpu.zeros([5]);
  assert.throws(() => linear.forward(gpu, [x, wide], {}), /inner sizes differ \(5 ≠ 7\)[^]*\[outputs, inputs\]/);
  assert.throws(() => linear.forward(gpu, [x, weight, bias], {}), /bias is not \[7\]/);
});
test('geglu agrees with its reference', async () => {
  await checkOp(geglu, [[2, 5, 16], [26, 16], [26]], {}, { variants, core: true });
  await checkOp(
    geglu,
    [
      [3, 7],
      [140, 7],
    ],
    {},
    { ranges: { 0: [-6, 6] } },
  );
});
test('big products agree with the naive kernel, whatever the variant', async () => {
  const gpu = await testGpu();
  const [M, N, K] = [300, 203, 267];
  using a = gpu.array(
    [M, K],
    Float32Array.from({ length: M * K }, (_, i) => Math.sin(i)),
  );
  using b = gpu.array(
    [N, K],
    Float32Array.from({ length: N * K }, (_, i) => Math.cos(3 * i)),
  );
  const run = async (force: string) => {
    const { y } = gemm(gpu, { M, N, K, a: { array: a, row: K, col: 1 }, b: { array: b, row: 1, col: K } }, force);
    using result = y;
    return result.read();
  };
  const want = await run('naive');
  for (const variant of variants.slice(1)) {
    const got = await run(variant);
    assert.ok(
      got.every((v, i) => Math.abs(v - want[i]) < 2e-4),
      variant,
    );
  }
});
test('columns that lie a power of two apart are packed first', async () => {
  await checkOp(linear, [[130, 512], [70, 512], [70]], {}, { samples: 20 });
});
test('pick follows shape and adapter', () => {
  const limits = { workgroupStorage: 16384, invocations: 256 };
  const base = { name: '', f16: false, matrixUnits: [], timestamps: false, ...limits, force: {} };
  const lavapipe = { ...base, family: 'cpu' as const, subgroups: true, subgroupSize: 8 };
  assert.is(pickGemm(2048, 128, 256, 1, lavapipe).variant, 'subgroup-tile');
  assert.is(pickGemm(2048, 128, 256, 1, lavapipe).splits, 1);
  assert.is(pickGemm(2048, 128, 256, 1, { ...lavapipe, subgroups: false, subgroupSize: 0 }).variant, 'register-tile');
  const card = { ...base, family: 'gpu' as const, subgroups: true, subgroupSize: 32 };
  assert.is(pickGemm(2048, 128, 256, 1, card).variant, 'workgroup-tile');
  assert.ok(pickGemm(64, 64, 2048, 1, card).splits > 1);
});
test.run();
