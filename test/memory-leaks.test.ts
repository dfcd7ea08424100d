import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { init, mul, square, sum, tensor } from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { collectGarbage } from './garbage.ts';

const test = suite('memory-leaks');

/** Collect until the report holds what `wanted` looks for. */
async function report(gpu: Awaited<ReturnType<typeof init>>, op: string) {
  for (let i = 0; i < 20 && !gpu.leaks().some((leak) => leak.op === op); i++) await collectGarbage();
  return gpu.leaks();
}

test('nothing leaks, nothing is reported', async () => {
  const gpu = await init();
  for (let i = 0; i < 50; i++) {
    using x = tensor([1, 2, 3]);
    using y = square(x);
    void y;
  }
  await collectGarbage();
  assert.equal(gpu.leaks(), []);
  assert.is(gpu.memory().leaked, 0);
  gpu.destroy();
});

test('a leak has the name of the op that made it, its shape, and what it held', async () => {
  const gpu = await init();
  const forget = () => {
    for (let i = 0; i < 7; i++) square(tensor(new Float32Array(6000), [20, 300]));
  };
  forget();
  const leaks = await report(gpu, 'square');
  const { stack, ...made } = leaks.find((leak) => leak.op === 'square')!;
  assert.is(stack, undefined);
  assert.equal(made, { op: 'square', shape: [20, 300], count: 7, bytes: 7 * 24576 });
  assert.equal(leaks.find((leak) => leak.op === 'array')!.count, 7);
  assert.is(gpu.memory().leaked, 14);
  assert.is(gpu.memory().live, gpu.none.storage.bytes);
  gpu.destroy();
});

test('what backward makes is named by the op it differentiates', async () => {
  const gpu = await init();
  const forget = () => {
    const x = tensor(new Float32Array(500), [500], { requiresGrad: true });
    sum(mul(x, x)).backward();
  };
  forget();
  const leaks = await report(gpu, 'mul backward');
  assert.ok(leaks.some((leak) => leak.op === 'mul backward' && leak.count === 1 && leak.shape[0] === 500));
  gpu.destroy();
});

test('a view that leaks holds nothing of its own', async () => {
  const gpu = await init();
  const kept = gpu.array([2, 2], [1, 2, 3, 4]);
  const forget = () => void kept.view([4]);
  forget();
  assert.equal(await report(gpu, 'array'), [{ op: 'array', shape: [4], count: 1, bytes: 0 }]);
  assert.equal([...(await kept.read())], [1, 2, 3, 4]);
  gpu.destroy();
});

test('traceLeaks tells the line', async () => {
  const gpu = await init({ traceLeaks: true });
  function forgetful(): Tensor {
    return tensor([1, 2, 3]);
  }
  const forget = () => void forgetful();
  forget();
  const [leak] = await report(gpu, 'array');
  assert.match(leak.stack!, /forgetful/);
  gpu.destroy();
});

test.run();
