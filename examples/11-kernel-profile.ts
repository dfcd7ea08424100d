/**
 * Where the time of one U-Net step goes, kernel by kernel:   node scripts/run.mjs examples/11-kernel-profile.ts
 */
import assert from 'node:assert/strict';
import { init, noGrad, normal, openModelFolder, scope, tensor } from 'rectiflow/node';

const gpu = await init();
if (!gpu.capabilities.timestamps) console.log('skipped: this adapter has no timestamps');
else {
  const pipeline = await openModelFolder('models/emoji');
  const network = pipeline.network('unet');
  const [size, , channels] = pipeline.latentShape;
  const batch = 8;
  const z = tensor(normal(0, 'latents', batch * size * size * channels), [batch, size, size, channels]);
  const { text } = pipeline.encodePrompts(Array<string>(batch).fill('red apple'));
  const step = () => noGrad(() => scope(() => network.forward(z, 1000, text))).dispose(); // t = 0 is timestep 1000

  step();
  await gpu.idle(); // the first run compiles the kernels
  const before = gpu.dispatches;
  step();
  const expected = gpu.dispatches - before;
  const rows = await gpu.profile(step);

  const total = rows.reduce((sum, row) => sum + row.milliseconds, 0);
  console.log(`one evaluation of the U-Net, ${batch} latents of [${pipeline.latentShape}]: ${expected} dispatches`);
  const files = new Map<string, { milliseconds: number; dispatches: number }>(); // by the first words of a kernel's file
  for (const { kernel, dispatches, milliseconds } of rows) {
    const words = /"\/\/ (.*)"$/.exec(kernel)?.[1] ?? kernel;
    const sum = files.get(words) ?? { milliseconds: 0, dispatches: 0 };
    files.set(words, { milliseconds: sum.milliseconds + milliseconds, dispatches: sum.dispatches + dispatches });
  }
  for (const [words, { milliseconds, dispatches }] of files) {
    const share = ((100 * milliseconds) / total).toFixed(0).padStart(3);
    console.log(
      `${share} %  ${milliseconds.toFixed(2).padStart(7)} ms  ${String(dispatches).padStart(3)} ×  ${words}…`,
    );
  }
  assert.equal(
    rows.reduce((sum, row) => sum + row.dispatches, 0),
    expected,
  );
  pipeline.dispose();
}
gpu.destroy();
