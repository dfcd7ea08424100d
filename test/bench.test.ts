import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { besideBare } from '../bench/bare.ts';
import { checkGradients, checkResult } from '../bench/check.ts';
import { processorSlug, slug } from '../bench/machine.ts';
import { measure } from '../bench/measure.ts';
import { STAGES } from '../bench/model.ts';
import { ALL_PARTS, bench, textOf } from '../bench/report.ts';
import type { Report } from '../bench/report.ts';
import { OPS, opLines } from '../bench/ops.ts';
import { PARTS } from '../bench/suite.ts';
import { flopOf, operandsOf, WORKS } from '../bench/work.ts';
import type { Work, WorkOf } from '../bench/work.ts';
import { preset } from '../src/flow/recipe/recipe.ts';
import * as functions from '../src/tensor/functions/index.ts';
import { init, keep, tensor } from '../src/tensor/index.ts';

const test = suite('bench');
const gpu = await init();
test.after(() => gpu.destroy());

const peak = { gflops: 1, gbs: 1, registerGflops: 1 };
const small: Exclude<Work, WorkOf<'train'>>[] = [
  { kind: 'matmul', M: 17, K: 33, N: 20 },
  { kind: 'linear', M: 17, K: 32, N: 20 },
  { kind: 'conv', B: 2, H: 6, W: 6, C: 8, O: 12 },
  { kind: 'attention', B: 2, heads: 2, Tq: 9, Tk: 12, D: 8 },
  { kind: 'groupNormSilu', B: 2, H: 4, W: 4, C: 8, groups: 2 },
  { kind: 'layerNorm', rows: 5, cols: 24 },
  { kind: 'softmax', shape: [3, 40] },
];

for (const work of small) {
  test(`a wrong result is found before anything is timed (${work.kind})`, async () => {
    const operands = operandsOf(work);
    const tensors = operands.map(({ shape, data }) => keep(tensor(data, shape)));
    await checkResult(work, operands, tensors);
    await checkGradients(work, tensors);
    tensors[0].array.write(operands[0].data.map((x) => 1 - x));
    const error = await checkResult(work, operands, tensors).catch((e: Error) => e);
    assert.match(String(error), /a result is wrong by/);
    for (const t of tensors) t.dispose();
  });
}

test('a line that is wrong stops the bench, and one that is too long is left out with a reason', async () => {
  const check = () => Promise.reject(new Error('off by one'));
  const wrong = { name: 'wrong', prepare: () => ({ run() {}, check, dispose() {} }) };
  const error = await measure([wrong], peak, { seconds: 0.01, longest: 1 }, () => {}).catch((e: Error) => e);
  assert.match(String(error), /wrong: off by one/);
  const long = { ...wrong, name: 'long', flop: 1e12 };
  const [result] = await measure([long], peak, { seconds: 0.01, longest: 1 }, () => {});
  assert.match(result.leftOut!, /about 1000\.0 s a call/);
});

test('every part runs within a small budget, and its report is JSON', async () => {
  const printed: string[] = [];
  const parts = ALL_PARTS.filter((part) => part !== 'training' && part !== 'ops'); // the soak trains; ops have a test
  const { name, unet: network, vae, textEncoder } = preset('tiny');
  const defaults = { steps: 1, guidanceScale: 1 };
  const outline = { name, kind: 'unet' as const, textEncoder, network, vae: vae.config, defaults };
  const model = { model: outline, side: 32, stages: STAGES, ops: true };
  const options = { parts, seconds: 0.02, longest: 4, soakSteps: 12, model };
  const whole = await bench({ ...options, print: (text) => printed.push(text) });
  const report = JSON.parse(JSON.stringify(whole)) as Report;
  assert.equal([...Object.keys(report.parts), 'bare', 'overhead', 'model', 'soak'], parts);
  for (const value of Object.values(report.peak)) assert.ok(value > 0);
  const results = Object.values(report.parts).flat();
  for (const { name, milliseconds, leftOut } of results) assert.ok(leftOut ? !milliseconds : milliseconds! > 0, name);
  assert.ok(
    results.some(({ milliseconds }) => milliseconds),
    'at least one line is timed',
  );
  for (const { name, value } of report.overhead!) assert.ok(Number.isFinite(value) && value >= 0, name);
  for (const { stage, flop, gflops, ops } of report.model!) {
    const own = ops.reduce((n, op) => n + op.count * op.flop, 0);
    assert.ok(gflops > 0 && own > 0 && Math.abs(own / flop - 1) < 1e-9, `${stage}: ${own} of ${flop} FLOPs in ops`);
  }
  assert.equal(
    report.model!.map(({ stage }) => stage),
    [...STAGES],
  );
  for (const { name, flat, live, pooled } of report.soak!) assert.ok(flat, `${name}: ${live} live, ${pooled} pooled`);
  const text = textOf(report);
  for (const { name } of [...results, ...report.overhead!, ...report.soak!]) assert.ok(text.includes(name), name);
  assert.ok(printed.length > results.length);
});

test('every function of tensors has a line, and what a line computes is checked', async () => {
  const lines = Object.keys({ ...OPS, matmul: 0, linear: 0, conv2d: 0, attention: 0, groupNorm: 0 });
  const views = ['reshape']; // moves nothing
  const has = (name: string) => lines.some((line) => new RegExp(`^${name}\\b`).test(line)) || views.includes(name);
  assert.equal(
    Object.keys(functions).filter((name) => !has(name) && name !== 'scaledDotProductAttention'),
    [],
  );
  const wanted = ['gelu', 'add, a row', 'where', 'split', 'gather', 'mean over columns'];
  for (const line of opLines().filter(({ name }) => wanted.some((start) => name.startsWith(start)))) {
    const { check, dispose } = line.prepare();
    await check();
    assert.ok(line.bytes! > 0);
    dispose();
  }
});

test('a product beside the bare kernel', async () => {
  const [line] = PARTS.matmul();
  const printed: string[] = [];
  const results = await besideBare([line], (text) => printed.push(text));
  if (gpu.capabilities.subgroupSize !== 8) return assert.match(printed.join(), /^left out: .*subgroups of 8/);
  assert.equal(
    results.map(({ name }) => name),
    [line.name],
  );
  assert.ok(results[0].share > 0.2 && results[0].share < 5, printed.join());
});

test('a training step is timed when its loss falls', async () => {
  const [perceptron] = PARTS.training();
  const [result] = await measure([perceptron], peak, { seconds: 0.02, longest: Infinity }, () => {});
  assert.ok(result.milliseconds! > 0 && result.gflops! > 0, JSON.stringify(result));
});

test('results of two machines have two names', () => {
  assert.is(slug('Intel(R) Xeon(R) Processor'), 'intel-xeon-processor');
  assert.is(slug('mesa · software · llvmpipe-llvm-15-0-6-256-bits- · llvm'), 'mesa-software-llvmpipe-llvm-15-0-6-256');
  assert.match(processorSlug, /^\d+x-[a-z0-9]+/);
});

test('a training step counts as three forward passes', () => {
  assert.is(flopOf(WORKS.trainmlp), 3 * 2 * 256 * (784 * 512 + 512 * 256 + 256 * 10));
  const convolutions = 1024 * 32 * 27 + 256 * 64 * 288 + 64 * 64 * 576;
  assert.is(flopOf(WORKS.traincnn), 3 * 2 * 16 * (convolutions + 640));
});

test.run();
