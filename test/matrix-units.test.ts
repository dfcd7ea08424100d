import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { conv2d } from '../src/kernels/conv2d.ts';
import { convTranspose2d } from '../src/kernels/conv2d-transpose.ts';
import { pickGemm } from '../src/kernels/gemm.ts';
import { withHalves } from '../src/kernels/half-storage.ts';
import { floatToHalf, halfToFloat } from '../src/kernels/half.ts';
import { Gpu } from '../src/kernels/index.ts';
import type { Capabilities, GpuArray, Op, Shape } from '../src/kernels/index.ts';
import { linear } from '../src/kernels/linear.ts';
import { matmul } from '../src/kernels/matmul.ts';
import { NOT_GATHERED, pickUnits, runUnits, unitsKernel } from '../src/kernels/matrix-units.ts';
import type { UnitsCall, UnitsPlan } from '../src/kernels/matrix-units.ts';
import { paperDevice } from '../src/kernels/paper.ts';
import { specialise } from '../src/kernels/shader.ts';
import type { MatrixUnit } from '../src/kernels/subgroup-matrix.ts';
import { selfTestCases, unitsTestCases } from '../src/cli/self-test-cases.ts';
import { selfTest } from '../src/cli/self-test.ts';
import { assertNear, checkOp, testGpu } from './check-op.ts';
import { randoms } from './randoms.ts';

const test = suite('matrix-units');
const EMULATED = 'subgroup-matrix-emulated';
const unitOf = (M: number, N: number, K: number): MatrixUnit => ({ M, N, K, inputs: 'f16', sums: 'f32' });
const UNITS = [unitOf(16, 16, 16), unitOf(8, 16, 16), unitOf(8, 8, 8)];
const TILES = [
  [128, 128],
  [128, 64],
  [64, 64],
] as const;

/** How often `work` runs the kernel for matrix units, or others of products and convolutions; and all that it runs. */
async function launches(gpu: Gpu, work: () => unknown): Promise<{ units: number; others: number; list: string[] }> {
  const counts = { units: 0, others: 0, list: [] as string[] };
  const { run } = gpu;
  gpu.run = (code, entry, uniforms, arrays, grid, constants) => {
    if (entry === 'multiply') counts.units++;
    else if ('aRow' in uniforms || 'tapsY' in uniforms) counts.others++;
    counts.list.push(`${entry} ${code} ${JSON.stringify([uniforms, grid, constants])}`);
    run.call(gpu, code, entry, uniforms, arrays, grid, constants);
  };
  try {
    await work();
  } finally {
    gpu.run = run;
  }
  return counts;
}

/** `checkOp` with x and weight in halves and emulated units, of which `times` kernels run. */
async function check(op: Op<any, any>, shapes: readonly (Shape | undefined)[], attrs: object, times: number) {
  const halves = { dtypes: { 0: 'f16', 1: 'f16' }, makes: 'f16' } as const;
  const tolerances = { tolerance: 2e-3, gradTolerance: 2e-3, samples: 20 };
  const { units } = await launches(await testGpu(), () =>
    checkOp(op, shapes, attrs, { variants: [EMULATED], ...halves, ...tolerances }),
  );
  assert.is(units, times, `${op.name}: kernels on matrix units`);
}

test('linear, forwards and backwards: words of 8 halves, bias, residual, tiles that overhang', () =>
  check(linear, [[3, 25, 48], [72, 48], [72], [3, 25, 72]], {}, 3));
test('linear, forwards and backwards: sizes without a common factor', () =>
  check(
    linear,
    [
      [35, 13],
      [71, 13],
    ],
    {},
    3,
  ));
test('matmul of matrices that are both transposed', () =>
  check(matmul, [[40, 72], [24, 40]], { transposeA: true, transposeB: true }, 3)); // prettier-ignore
test('batches, also where they broadcast', async () => {
  await check(matmul, [[2, 3, 9, 5], [2, 3, 5, 7]], {}, 3); // prettier-ignore
  await check(matmul, [[2, 1, 16, 24], [3, 24, 40]], {}, 3); // prettier-ignore
});
test('a long sum is cut into parts; bias and residual are added once', async () => {
  await check(linear, [[3, 1304], [8, 1304], [8], [3, 8]], {}, 3);
  await check(conv2d, [[1, 3, 4, 32], [24, 3, 3, 32], [24], [1, 3, 4, 24], [1, 24]], { padding: 1 }, 3);
  await check(conv2d, [[2, 12, 12, 8], [8, 3, 3, 8]], { padding: 1 }, 3); // prettier-ignore
});
test('conv2d, forwards and backwards: bias, time embedding, residual', async () => {
  await check(conv2d, [[3, 5, 6, 8], [24, 3, 3, 8], [24], [3, 5, 6, 24], [3, 24]], { padding: 1 }, 3);
  await check(conv2d, [[2, 5, 7, 3], [11, 3, 3, 3], [11]], { padding: 1 }, 2);
});
test('conv2d: strides, dilation, uneven padding, 1 × 1', async () => {
  await check(conv2d, [[2, 7, 6, 8], [16, 3, 3, 8], [16]], { stride: 2, padding: [0, 1, 0, 1] }, 6);
  await check(conv2d, [[1, 9, 8, 2], [3, 3, 2, 2]], { dilation: 2, stride: 2, padding: 1 }, 2); // prettier-ignore
  await check(conv2d, [[1, 9, 8, 2], [3, 3, 2, 2]], { dilation: 3, stride: 2, padding: 3 }, 5); // prettier-ignore
  await check(conv2d, [[1, 9, 8, 16], [12, 3, 2, 16]], { dilation: 3, stride: 2, padding: 3 }, 6); // prettier-ignore
  await check(conv2d, [[2, 3, 5, 16], [40, 1, 1, 16], [40]], {}, 3);
});
test('convTranspose2d', () =>
  check(convTranspose2d, [[1, 5, 3, 4], [4, 3, 3, 3]], { stride: 2, padding: 1, outputPadding: 1 }, 5)); // prettier-ignore

/** y = A·B by a plan of any tile, with NaN all around A and B and a mark around y. */
async function product(plan: UnitsPlan, { a, b, wideY }: UnitsCall, [M, N, K]: readonly number[]) {
  const gpu = await testGpu();
  const what = `${plan.rows} × ${plan.cols}, ${plan.stages} stages, ${plan.unit.M} × ${plan.unit.N} × ${plan.unit.K}`;
  const GAP = 8;
  const framed = (lines: number, run: number, seed: number) => {
    const numbers = randoms(lines * run, seed).map((v) => halfToFloat(floatToHalf(v)));
    const pitch = run + GAP;
    const all = new Float32Array(GAP + lines * pitch).fill(NaN);
    numbers.forEach((v, i) => (all[GAP + Math.floor(i / run) * pitch + (i % run)] = v));
    return { numbers, pitch, array: gpu.array([all.length], all, 'f16') };
  };
  const A = a.alongK ? framed(M, K, 1) : framed(K, M, 1);
  const B = b.alongK ? framed(N, K, 2) : framed(K, N, 2);
  const yRow = N + 4;
  const marks = Array(4 + M * yRow).fill(-77);
  const y = gpu.array([marks.length], marks);
  const tilesN = Math.ceil(N / plan.cols);
  const tiles = Math.ceil(M / plan.rows) * tilesN;
  const [aRow, aCol] = a.alongK ? [A.pitch, 1] : [1, A.pitch];
  const [bRow, bCol] = b.alongK ? [1, B.pitch] : [B.pitch, 1];
  // prettier-ignore
  const uniforms = {
    ...NOT_GATHERED, M, N, K, tilesN, tiles, splits: 1, chunk: K, inner: 1, aRow, aCol, bRow, bCol,
    aStart: GAP, aOuter: 0, aInner: 0, bStart: GAP, bOuter: 0, bInner: 0,
    yStart: 4, yRow, yOuter: 0, yInner: 0, ySplit: 0, hasBias: 0, hasResidual: 0,
  };
  const { none } = gpu;
  const run = () => runUnits(gpu, plan, { a, b, wideY }, uniforms, [A.array, B.array, none, none, none, y], [tiles]); // prettier-ignore
  run();
  const got = await y.read();
  const want = Float64Array.from(marks);
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < N; n++) {
      let sum = 0;
      for (let k = 0; k < K; k++)
        sum += A.numbers[a.alongK ? m * K + k : k * M + m] * B.numbers[b.alongK ? n * K + k : k * N + n];
      want[4 + m * yRow + n] = sum;
    }
  }
  assertNear(got, want, 1e-6, what);
  assert.ok(
    got.every((v, i) => (v === -77) === (want[i] === -77)),
    `${what}: written outside`,
  );
  for (let again = 0; again < 5; again++) {
    run();
    assert.equal(await y.read(), got, `${what}: another run, other bits`);
  }
  for (const array of [A.array, B.array, y]) array.dispose();
}
const plan = (rows: number, cols: number, stages: number, unit: MatrixUnit, lanes = 32): UnitsPlan => ({
  variant: EMULATED,
  unit,
  rows,
  cols,
  stages,
  lanes,
});
const along = (aK: boolean, bK: boolean, wide = true): UnitsCall => ({
  a: { alongK: aK, wide },
  b: { alongK: bK, wide },
  wideY: wide,
});

test('all tiles, shapes of units, one and two slices: nothing outside is read or written, and bits repeat', async () => {
  await product(plan(128, 128, 1, UNITS[0]), along(true, true), [136, 132, 72]);
  await product(plan(128, 64, 2, UNITS[0]), along(false, false), [136, 72, 100]);
  await product(plan(64, 64, 1, UNITS[1]), along(true, false), [65, 72, 72]);
  await product(plan(64, 64, 2, UNITS[2], 64), along(false, true), [72, 60, 40]);
  await product(plan(64, 64, 2, UNITS[0]), along(true, true, false), [65, 63, 67]);
});

test('what units cannot take goes where it went before, and nothing emulates them unasked', async () => {
  const paper = Gpu.on(paperDevice(await testGpu()));
  const kernels = async (op: Op<any, any>, inputs: GpuArray[], attrs: object, force?: string) => {
    if (force) paper.capabilities.force[op.name] = force;
    const { list } = await launches(paper, () => op.forward(paper, inputs, attrs));
    delete paper.capabilities.force[op.name];
    return list;
  };
  const array = (shape: number[], dtype: 'f32' | 'f16') => paper.empty(shape, dtype);
  const cases: [Op<any, any>, GpuArray[], object][] = [
    [linear, [array([70, 64], 'f32'), array([66, 64], 'f32')], {}],
    [linear, [array([70, 64], 'f32'), array([66, 64], 'f16')], {}],
    [matmul, [array([5, 0], 'f16'), array([0, 3], 'f16')], {}],
    [conv2d, [array([1, 6, 6, 8], 'f32'), array([8, 3, 3, 8], 'f32')], {}],
    [conv2d, [array([1, 6, 6, 8], 'f16'), array([8, 3, 3, 4], 'f16')], { groups: 2 }],
  ];
  for (const [op, inputs, attrs] of cases) {
    const usual = await kernels(op, inputs, attrs);
    for (const force of [EMULATED, 'subgroup-matrix']) assert.equal(await kernels(op, inputs, attrs, force), usual);
  }
  const halves = [array([70, 64], 'f16'), array([66, 64], 'f16')];
  const usual = await kernels(linear, halves, {});
  assert.not.match(usual.join(), /multiply/);
  assert.equal(await kernels(linear, halves, {}, 'subgroup-matrix'), usual);
  assert.match((await kernels(linear, halves, {}, EMULATED)).join(), /multiply/);
});

const card: Capabilities = {
  ...{ family: 'gpu', name: '', subgroups: true, subgroupSize: 32, f16: true, timestamps: false },
  ...{ matrixUnits: [UNITS[0]], workgroupStorage: 49152, invocations: 1024, force: {} },
};
test('pick takes units for halves that fill them, by the largest tile that leaves enough of them', () => {
  const tile = (M: number, N: number, K: number, capabilities = card) => {
    const p = pickUnits(M, N, K, 1, capabilities);
    return p && [p.rows, p.cols, p.stages];
  };
  assert.equal(tile(4096, 4096, 4096), [128, 128, 2]);
  assert.equal(tile(4096, 320, 320), [128, 64, 2]);
  assert.equal(tile(77, 768, 768), [64, 64, 2]);
  assert.equal(tile(4096, 4096, 4096, { ...card, workgroupStorage: 32768 }), [128, 128, 1]);
  assert.equal(tile(4096, 4096, 4096, { ...card, workgroupStorage: 16384 }), [128, 64, 1]);
  assert.is(tile(1, 4096, 4096), undefined);
  assert.is(tile(4096, 3, 1152), undefined);
  for (const less of [
    { matrixUnits: [] },
    { subgroupSize: 0 },
    { matrixUnits: [{ ...UNITS[0], sums: 'f16' }] },
    { matrixUnits: [unitOf(16, 8, 16)] },
  ])
    assert.is(tile(4096, 4096, 4096, { ...card, ...less }), undefined);
  assert.is(pickGemm(4096, 4096, 4096, 1, card).variant, 'workgroup-tile', 'operands are not halves');
  const few = pickGemm(64, 1280, 11520, 1, card, undefined, true);
  assert.is(few.variant, 'subgroup-matrix');
  assert.is(few.splits, 13);
  assert.is(pickGemm(64, 1280, 11520, 1, card, 'naive', true).variant, 'naive');
});

const nullGpu = await testGpu({ adapter: 'null' });
const NATIVE = 'chromium-experimental-subgroup-matrix';
assert.ok(nullGpu.device.features.has(NATIVE as GPUFeatureName), 'Dawn validates subgroup matrices without a GPU');

test('Dawn compiles every kernel with real units: tiles, units, slices, layouts, dtypes', async () => {
  const { device } = nullGpu;
  let [modules, pipelines] = [0, 0];
  const compile = async (native: UnitsPlan, call: UnitsCall, halves: string[]) => {
    const { text, constants } = unitsKernel(native, call);
    const code = withHalves(specialise(text, constants), halves, 'native');
    assert.ok(code.includes(`subgroupMatrixLoad<Left, ${call.a.alongK ? 'row' : 'col'}_major>`));
    assert.ok(code.includes(`subgroupMatrixLoad<Right, ${call.b.alongK ? 'col' : 'row'}_major>`));
    const what = `${JSON.stringify({ ...native, ...call })} ${halves}`;
    const module = device.createShaderModule({ code });
    const { messages } = await module.getCompilationInfo();
    assert.equal(messages.map((m) => `line ${m.lineNum}: ${m.message}`), [], what); // prettier-ignore
    modules++;
    const fits = pickUnits(native.rows, native.cols, 32, 1, nullGpu.capabilities, 'subgroup-matrix');
    if (native.stages > 1 || fits!.rows < native.rows) return;
    await device.createComputePipelineAsync({ layout: 'auto', compute: { module, entryPoint: 'multiply' } });
    pipelines++;
  };
  Object.assign(nullGpu.capabilities, { ...card, workgroupStorage: nullGpu.capabilities.workgroupStorage });
  const native = (rows: number, cols: number, stages: number, unit: MatrixUnit): UnitsPlan => ({
    ...plan(rows, cols, stages, unit),
    variant: 'subgroup-matrix',
  });
  const plans = UNITS.flatMap((unit) => TILES.flatMap(([m, n]) => [1, 2].map((stages) => native(m, n, stages, unit))));
  for (const each of [...plans, native(64, 64, 1, unitOf(16, 8, 16))]) {
    const halves = each.stages === 1 ? ['y'] : [];
    for (const [a, b] of [
      [true, true],
      [true, false],
      [false, true],
      [false, false],
    ] as const) {
      // prettier-ignore
      for (const gather of a ? ([undefined, 'a'] as const) : [undefined]) {
        await compile(each, { ...along(a, b), gather }, ['y', 'bias', 'temb', 'residual']);
        await compile(each, { ...along(a, b, false), gather }, halves);
      }
    }
    await compile(each, { ...along(false, false), gather: 'b' }, halves);
  }
  console.log(`${modules} modules and ${pipelines} pipelines compiled on the null adapter`);
  assert.is(modules, 13 * plans.length + 13);
  assert.ok(pipelines > 0);
});

test('ops choose real units where the adapter tells of them', async () => {
  Object.assign(nullGpu.capabilities, { ...card, workgroupStorage: nullGpu.capabilities.workgroupStorage });
  const empty = (...shape: number[]) => nullGpu.empty(shape, 'f16');
  const { units, others } = await launches(nullGpu, async () => {
    const x = empty(300, 320);
    const { saved } = linear.forward(nullGpu, [x, empty(640, 320), empty(640)], {});
    linear.backward!(nullGpu, empty(300, 640), saved as GpuArray[], {}, [true, true, true]);
    const inputs = [empty(1, 16, 16, 320), empty(320, 3, 3, 320)];
    const conv = conv2d.forward(nullGpu, inputs as any, { padding: 1 });
    conv2d.backward!(nullGpu, empty(1, 16, 16, 320), conv.saved as GpuArray[], { padding: 1 }, [true, true]);
    await nullGpu.idle();
  });
  assert.is(units, 6);
  assert.is(others, 1, 'the sums that are the gradient of the bias');
});

test("doctor's self-test of units agrees", async () => {
  const gpu = await testGpu();
  for (const { op } of unitsTestCases) gpu.capabilities.force[op.name] = EMULATED;
  const { units } = await launches(gpu, async () => {
    for (const c of unitsTestCases) {
      const { name, forward, backward, ok } = await selfTest(gpu, c);
      assert.ok(ok, `${name}: ${forward} forwards, ${backward} backwards`);
      assert.match(name, /f16/);
    }
  });
  for (const { op } of unitsTestCases) delete gpu.capabilities.force[op.name];
  assert.is(units, 3 * unitsTestCases.length);
  assert.ok(selfTestCases.every((c) => c.dtype === undefined));
});

test.run();
