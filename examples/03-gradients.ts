/**
 * Gradients three ways: by hand, by differences, by the tape:   node scripts/run.mjs examples/03-gradients.ts
 *
 *     loss(w) = mean((X·w − y)²)        ∂loss/∂w = 2/n · Xᵀ·(X·w − y)          X: [n, 2]   w: [2, 1]   y: [n, 1]
 */
import assert from 'node:assert/strict';
import { init, matmul, mse, mul, noGrad, sub, tensor } from 'rectiflow';
import type { Tensor } from 'rectiflow';

const gpu = await init();
const n = 4;
const X = tensor([1, 2, 3, -1, 0, 1, -2, 4], [n, 2]);
const y = tensor([1, 0, 2, -1], [n, 1]);
const w = tensor([0.5, -1], [2, 1], { requiresGrad: true }); // a leaf: backward() leaves its gradient here

const lossOf = (weights: Tensor) => mse(matmul(X, weights), y);

// 1. By the tape: the forward pass remembers what each op needs, backward() walks back over it.
const loss = lossOf(w);
loss.backward();
const byTape = [...(await w.grad!.read())];

// 2. By hand, with the same ops. Nothing needs to be remembered for this.
const byHand = await noGrad(() => mul(matmul(X, sub(matmul(X, w), y), { transposeA: true }), 2 / n)).read();

// 3. By differences: move one weight a little and see what the loss does. Rough, but it knows no calculus.
const h = 1e-2;
const byDifferences = [];
for (const i of [0, 1]) {
  const moved = (by: number) =>
    tensor(
      [0.5, -1].map((v, k) => (k === i ? v + by : v)),
      [2, 1],
    );
  const [up, down] = [await lossOf(moved(h)).item(), await lossOf(moved(-h)).item()];
  byDifferences.push((up - down) / (2 * h));
}

console.log('loss', await loss.item());
console.log('by the tape   ', byTape);
console.log('by hand       ', [...byHand]);
console.log('by differences', byDifferences);
for (const i of [0, 1]) {
  assert.ok(Math.abs(byTape[i] - byHand[i]) < 1e-5);
  assert.ok(Math.abs(byTape[i] - byDifferences[i]) < 1e-2);
}

// The tape is spent: backward() freed what the forward pass had saved.
assert.throws(() => loss.backward(), /already run/);
gpu.destroy();
