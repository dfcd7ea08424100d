import { freemem } from 'node:os';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Embedding, SGD } from '../src/nn/index.ts';
import { init, mul, scope, slice, sum, tensor } from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { skip } from './skip.ts';

const [ROWS, WIDTH] = [50_000, 3072];
const MiB = 2 ** 20;
const test = suite('limits-embedding');

async function large(): Promise<void> {
  const gpu = await init({ limits: { maxStorageBufferBindingSize: 128 * MiB } });
  void gpu.none;
  const before = gpu.memory().live;
  const table = new Embedding(ROWS, WIDTH).requiresGrad(true);
  const { parts } = table.weight.array;
  assert.is(parts!.length, 5);
  assert.ok(parts!.every((part) => part.storage.bytes <= 128 * MiB));

  /** Row r holds r, r + 1/4096, …: exact in f32. */
  const rowAt = (r: number, c: number) => r + c / 4096;
  const numbers = new Float32Array(ROWS * WIDTH);
  for (let r = 0, i = 0; r < ROWS; r++) for (let c = 0; c < WIDTH; c++) numbers[i++] = rowAt(r % 2048, c);
  table.weight.array.write(numbers);
  const rows = async (first: number, last: number) => {
    using part = scope(() => slice(table.weight, [[first, last]]));
    return part.read();
  };

  // Rows of every part, the first and last of some; one occurs twice.
  const ids = [0, 10239, 10240, 20480, 25000, 25000, 49999];
  const optimizer = new SGD(table.namedParameters(), { lr: 0.25 });
  const looked: Tensor = scope(() => {
    const y = table.forward(tensor(ids, [ids.length], { dtype: 'i32' }));
    sum(mul(y, tensor([1, 2, 3, 4, 5, 6, 7], [7, 1]))).backward();
    optimizer.step();
    return y;
  });
  const y = await looked.read();
  looked.dispose();
  for (const [n, id] of ids.entries()) {
    for (const c of [0, 1, 2047, WIDTH - 1]) assert.is(y[n * WIDTH + c], rowAt(id % 2048, c), `y of row ${id}`);
  }
  const gradients = [
    [0, 1],
    [10239, 2],
    [10240, 3],
    [20480, 4],
    [25000, 11],
    [49999, 7],
    [1, 0],
    [30000, 0],
  ];
  for (const [id, gradient] of gradients) {
    const row = await rows(id, id + 1);
    for (const c of [0, 1, 2047, WIDTH - 1]) {
      assert.is(row[c], Math.fround(rowAt(id % 2048, c) - 0.25 * gradient), `row ${id} after the step`);
    }
  }
  const across = await rows(10238, 10242);
  assert.is(across.length, 4 * WIDTH);
  assert.is(across[0], rowAt(10238 % 2048, 0));
  assert.is(across[WIDTH], rowAt(10239 % 2048, 0) - 0.5);
  assert.is(across[3 * WIDTH], rowAt(10241 % 2048, 0));
  console.log(
    `  peak ${Math.round(gpu.memory().peak / MiB)} MiB for a table of ${Math.round((4 * ROWS * WIDTH) / MiB)} MiB`,
  );
  table.dispose();
  optimizer.dispose();
  assert.is(gpu.memory().live, before);
  gpu.destroy();
}

const name = 'an embedding of 600 MB works where 128 MiB can be bound: forward, backward, a step, rows read back';
const free = freemem() / 2 ** 30;
if (free < 5) skip(test, name, `needs 5 GiB of free memory, there are ${free.toFixed(1)}`);
else test(name, large);
test.run();
