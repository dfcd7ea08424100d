import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { init, matmul, relu, scope, tensor } from '../src/tensor/index.ts';
import { skip } from './skip.ts';

const test = suite('profile');
const gpu = await init();
test.after(() => gpu.destroy());

if (gpu.capabilities.timestamps) {
  test('every dispatch is counted and timed under its kernel, the longest first', async () => {
    const a = tensor(new Float32Array(256 * 256).fill(1), [256, 256]);
    const work = async () => {
      const y = scope(() => relu(matmul(matmul(a, a), a)));
      await y.read();
      y.dispose();
    };
    await work();
    const before = gpu.dispatches;
    await work();
    const dispatches = gpu.dispatches - before;
    const rows = await gpu.profile(work);
    assert.is(
      rows.reduce((n, row) => n + row.dispatches, 0),
      dispatches,
    );
    assert.ok(rows[0].milliseconds > 0 && rows[0].milliseconds < 10_000, JSON.stringify(rows));
    assert.equal(
      rows.map((row) => row.milliseconds),
      rows.map((row) => row.milliseconds).sort((a, b) => b - a),
    );
    assert.is(rows.find((row) => row.kernel.startsWith('same'))?.dispatches, 1, JSON.stringify(rows));
    a.dispose();
  });
} else skip(test, 'kernels are timed', 'this adapter has no timestamps');
test.run();
