import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { accumulate } from '../src/kernels/accumulate.ts';
import type { Op } from '../src/kernels/index.ts';
import { hostArray } from '../src/kernels/index.ts';
import { apply, currentGpu, init, keep, noGrad, scope, Tensor, tensor } from '../src/tensor/index.ts';
import { collectGarbage } from './garbage.ts';

/** y = a + b, made of the one kernel that the tape itself has. */
const plus: Op<[a: Tensor['array'], b: Tensor['array']], object> = {
  name: 'plus',
  forward(gpu, [a, b]) {
    const output = gpu.empty(a.shape);
    gpu.copy(a, output);
    accumulate(output, b);
    return { output, saved: [a, b, output] };
  },
  backward: (_gpu, dy) => [dy.view(), dy.view()],
  reference: ([a, b]) =>
    hostArray(
      a.shape,
      a.data.map((v, i) => v + b.data[i]),
    ),
};
const add = (a: Tensor, b: Tensor) => apply(plus, [a, b], {});
const live = () => currentGpu().memory().live;

await init();
const test = suite('tensor');

test('gradients of all paths to a leaf are added', async () => {
  using x = tensor([3], [], { requiresGrad: true });
  scope(() => {
    const twice = add(x, x);
    const four = add(twice, twice);
    add(four, x).backward();
  });
  assert.equal([...(await x.grad!.read())], [5]);
});

test('a second backward adds to the gradient that is there', async () => {
  using x = tensor([1], [], { requiresGrad: true });
  for (let i = 0; i < 3; i++) scope(() => add(x, x).backward());
  assert.equal([...(await x.grad!.read())], [6]);
});

test('backward through a spent graph says so', () =>
  scope(() => {
    const x = tensor([1], [], { requiresGrad: true });
    const y = add(x, x);
    y.backward();
    assert.throws(() => y.backward(), /already run through here/);
  }));

test('a scope frees what it made, except what it returns', async () => {
  await collectGarbage();
  const before = live();
  const { kept } = scope(() => {
    const a = tensor([1, 2]);
    const b = add(a, a);
    return { kept: add(a, b) };
  });
  assert.equal([...(await kept.read())], [3, 6]);
  kept.dispose();
  assert.is(live(), before);
});

test('a scope frees what it made when it throws, and when it is async', async () => {
  await collectGarbage();
  const before = live();
  assert.throws(() => scope(() => (tensor([1]), JSON.parse('{'))));
  const out = await scope(async () => {
    const a = tensor([1]);
    await currentGpu().idle();
    return add(a, a);
  });
  assert.equal([...(await out.read())], [2]);
  out.dispose();
  assert.is(live(), before);
});

test('what a graph saved is freed with its last tensor, backward or not', async () => {
  await collectGarbage();
  const before = live();
  scope(() => {
    const x = tensor([1, 2, 3], [3], { requiresGrad: true });
    for (let i = 0, y = x; i < 50; i++) y = add(y, x);
  });
  assert.is(live(), before);
});

test('a training step in a loop is flat', async () => {
  await collectGarbage();
  using w = tensor(new Float32Array(1000), [1000], { requiresGrad: true });
  const step = () => {
    scope(() => {
      let y = add(w, w);
      for (let i = 0; i < 5; i++) y = add(y, w);
    });
    w.grad?.dispose();
    w.grad = undefined;
  };
  for (let i = 0; i < 10; i++) step();
  await currentGpu().idle();
  const memory = currentGpu().memory();
  for (let i = 0; i < 500; i++) step();
  await currentGpu().idle();
  assert.equal([currentGpu().memory().live, currentGpu().memory().pooled], [memory.live, memory.pooled]);
});

test('noGrad and detach cut the history', () =>
  scope(() => {
    const x = tensor([1], [], { requiresGrad: true });
    assert.not(noGrad(() => add(x, x)).requiresGrad);
    assert.not(add(x, x).detach().requiresGrad);
    assert.ok(add(x, x).requiresGrad);
  }));

test('keep outlives a scope', async () => {
  const kept: Tensor[] = [];
  scope(() => void kept.push(keep(tensor([7]))));
  assert.equal([...(await kept[0].read())], [7]);
  kept[0].dispose();
});

test('wrong use is refused with the reason', async () => {
  assert.throws(() => tensor([1, 2, 3], [2]), /3 numbers do not fill 2 places/);
  assert.throws(() => tensor([1, 2]).backward(), /wants a scalar loss, has 2 elements/);
  assert.throws(() => tensor([1], []).backward(), /nothing here requires a gradient/);
  assert.throws(() => apply(plus, [1 as unknown as Tensor, tensor([1])], {}), /an operand is number, not a Tensor/);
  const x = tensor([1]);
  x.dispose();
  assert.throws(() => add(x, x), /already freed/);
  try {
    await tensor([1, 2]).item();
    assert.unreachable();
  } catch (error) {
    assert.match((error as Error).message, /wants one element, has 2/);
  }
});

test.run();
