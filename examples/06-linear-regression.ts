/**
 * Fit a line by gradient descent:   node scripts/run.mjs examples/06-linear-regression.ts
 *
 *     y = 3 x₁ − 2 x₂ + 1 + noise        found again from 200 points
 */
import assert from 'node:assert/strict';
import { init, Linear, mse, normal, scope, SGD, tensor } from 'rectiflow';

const gpu = await init();
const n = 200;
const X = normal(1, 'points', 2 * n); // the same numbers on every machine: a function of seed, name and place
const noise = normal(1, 'noise', n);
const Y = Float32Array.from(noise, (e, i) => 3 * X[2 * i] - 2 * X[2 * i + 1] + 1 + 0.1 * e);

const model = new Linear(2, 1).initialize(0).requiresGrad(true);
const optimizer = new SGD(model.namedParameters(), { lr: 0.1 });
const [x, y] = [tensor(X, [n, 2]), tensor(Y, [n, 1])];

for (let step = 0; step < 100; step++) {
  const loss = scope(() => {
    const loss = mse(model.forward(x), y);
    loss.backward();
    optimizer.step(); // consumes the gradients
    return loss;
  });
  if (step % 20 === 0) console.log(`step ${step}: loss ${(await loss.item()).toFixed(4)}`); // waits: not every step
  loss.dispose();
}

const [w1, w2] = await model.weight.read();
const [b] = await model.bias!.read();
console.log('y = w·x + b:', { w1, w2, b });

// The noise of 0.1 leaves each coefficient uncertain by 0.1 / √200 = 0.007; four times that is allowed.
for (const [got, want] of [
  [w1, 3],
  [w2, -2],
  [b, 1],
])
  assert.ok(Math.abs(got - want) < 0.03, `${got} for ${want}`);
gpu.destroy();
