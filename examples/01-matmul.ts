/**
 * One matrix product, from numbers to the GPU and back:   node scripts/run.mjs examples/01-matmul.ts
 */
import assert from 'node:assert/strict';
import { init, matmul, tensor } from 'rectiflow';

const gpu = await init(); // opens the best adapter there is; once in a program
console.log(`on ${gpu.capabilities.name}`);

const a = tensor([1, 2, 3, 4, 5, 6], [2, 3]); // numbers row by row, then the shape
const b = tensor([7, 8, 9, 10, 11, 12], [3, 2]);
const y = matmul(a, b); // returns at once: the work is on a list, the GPU may not have begun

const numbers = await y.read(); // the list goes to the GPU, and this waits for it
console.log(`[${y.shape}]:`, numbers);
assert.deepEqual([...numbers], [1 * 7 + 2 * 9 + 3 * 11, 1 * 8 + 2 * 10 + 3 * 12, 139, 154]);

// A call that cannot be right says what is wrong, with which shapes, and what was probably meant.
assert.throws(
  () => matmul(a, tensor([1, 2, 3, 4, 5, 6], [2, 3])),
  (error: Error) => {
    console.log(`\n${error.message}`);
    return /inner sizes differ \(3 ≠ 2\)/.test(error.message);
  },
);
gpu.destroy();
