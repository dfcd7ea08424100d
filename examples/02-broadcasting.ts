/**
 * Shapes that broadcast, sums along axes, and ways to read back:   node scripts/run.mjs examples/02-broadcasting.ts
 *
 * Shapes are compared from the right; an axis of size 1, or a missing one, is repeated. Nothing is copied for that.
 */
import assert from 'node:assert/strict';
import { add, div, init, mean, mul, std, sub, sum, tensor } from 'rectiflow';

const gpu = await init();

// [3, 1] · [4] → [3, 4]: a table of products.
const table = mul(tensor([1, 2, 3], [3, 1]), tensor([10, 20, 30, 40]));
console.log('table of products', table.shape, await table.read());
assert.deepEqual(table.shape, [3, 4]);
assert.deepEqual([...(await table.read())], [10, 20, 30, 40, 20, 40, 60, 80, 30, 60, 90, 120]);

// Standardise the columns of a [4, 2]: `keepdim` leaves [1, 2], which broadcasts back over the rows.
const heights = tensor([1.6, 55, 1.7, 70, 1.8, 75, 1.9, 90], [4, 2]); // metres, kilograms
const columns = { axes: [0], keepdim: true };
const standard = div(sub(heights, mean(heights, columns)), std(heights, columns));
const means = await mean(standard, { axes: [0] }).read();
const deviations = await std(standard, { axes: [0] }).read();
console.log('standardised: means', means, 'deviations', deviations);
for (const m of means) assert.ok(Math.abs(m) < 1e-6);
for (const d of deviations) assert.ok(Math.abs(d - 1) < 1e-6);

// A number broadcasts too; item() reads a single one. The sum of 1 … 100:
const hundred = tensor(Array.from({ length: 100 }, (_, i) => i));
assert.equal(await sum(add(hundred, 1)).item(), 5050);

// Shapes that do not fit are refused by the call that got them, not later by the GPU.
assert.throws(() => add(table, tensor([1, 2, 3])), /sizes differ \(4 ≠ 3\) on axis 1/);
gpu.destroy();
