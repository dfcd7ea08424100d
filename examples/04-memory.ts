/**
 * Who frees what:   node scripts/run.mjs examples/04-memory.ts
 *
 * Ops never consume their inputs, so each call takes memory until someone frees it: scope(), using, or dispose().
 */
import assert from 'node:assert/strict';
import { init, keep, mse, mul, relu, scope, tensor } from 'rectiflow';

const gpu = await init();
const MiB = 2 ** 20;
const x = tensor(new Float32Array(MiB / 4).fill(1), [512, 512]); // 1 MiB
mul(x, 2).dispose(); // the first call makes a small array that stays: it stands for operands that are absent
const before = gpu.memory();

// scope() frees all tensors made inside, except those it returns. Here: three made, one left.
const y = scope(() => relu(mul(mul(x, 2), 3)));
assert.equal(gpu.memory().arrays, before.arrays + 1);
assert.equal(gpu.memory().live, before.live + MiB);
assert.equal(gpu.memory().pooled, 2 * MiB); // the other two wait for the next arrays of their size
assert.equal((await y.read())[0], 6);
y.dispose();

// `using` frees at the end of the block, however it is left. It works on tensors, modules and optimisers.
{
  using z = mul(x, 2);
  assert.equal(gpu.memory().arrays, before.arrays + 1);
  assert.equal((await z.read())[0], 2);
}
assert.equal(gpu.memory().arrays, before.arrays);

// keep() lets one tensor outlive its scope without being returned.
let best = x;
scope(() => {
  best = keep(mul(x, 5));
});
assert.equal((await best.read())[0], 5);
best.dispose();

// A training step in a scope is flat: the hundredth step needs no byte more than the second.
const w = tensor(new Float32Array(MiB / 4), [512, 512], { requiresGrad: true });
const peaks: number[] = [];
for (let step = 0; step < 100; step++) {
  scope(() => mse(mul(x, w), x).backward());
  w.grad!.dispose(); // a gradient outlives the scope; an optimiser would consume it
  w.grad = undefined;
  peaks.push(gpu.memory().peak);
}
console.log(`peak after 2 steps ${peaks[1] / MiB} MiB, after 100 steps ${peaks[99] / MiB} MiB`);
assert.equal(peaks[99], peaks[1]);

// A freed tensor is refused by name, not read as garbage.
assert.throws(() => mul(y, 2), /already freed/);
assert.equal(gpu.memory().leaked, 0); // arrays that only the garbage collector found
gpu.destroy();
