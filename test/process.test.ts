import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { init, linear, sum, tensor } from '../src/tensor/index.ts';

/** This file runs itself again with a part to play, to see how a whole process behaves. */
const part = process.env.RECTIFLOW_PART;

if (part) {
  const gpu = await init();
  const x = tensor(new Float32Array(4096), [64, 64], { requiresGrad: true });
  sum(linear(x, x)).backward();
  await gpu.idle();
  if (part === 'idle') {
    const before = process.cpuUsage();
    await new Promise((resolve) => setTimeout(resolve, 2000));
    const { user, system } = process.cpuUsage(before);
    console.log(JSON.stringify({ busy: (user + system) / 2e6 }));
  } else if (part === 'pending') {
    void x.read(); // leave with work in flight
  } else if (part === 'destroy') gpu.destroy();
} else {
  const play = (name: string) =>
    promisify(execFile)(process.execPath, [fileURLToPath(import.meta.url)], {
      env: { ...process.env, RECTIFLOW_PART: name },
      timeout: 60_000,
    });
  const test = suite('process');

  test('a process with an idle device uses no processor', async () => {
    const { stdout } = await play('idle');
    const { busy } = JSON.parse(stdout);
    assert.ok(busy < 0.05, `${(100 * busy).toFixed(1)} % of a core`);
  });

  for (const name of ['leave', 'pending', 'destroy']) {
    test(`a process ends by itself with status 0 (${name})`, async () => void (await play(name)));
  }

  test.run();
}
