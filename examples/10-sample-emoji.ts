/**
 * Text → image in one network evaluation, by import:   node scripts/run.mjs examples/10-sample-emoji.ts
 *
 * The model is the one that ships in models/emoji. `node cli sample` does the same, with options.
 */
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import sharp from 'sharp';
import { init, openModelFolder } from 'rectiflow/node';

const gpu = await init();
const pipeline = await openModelFolder('models/emoji');
const prompts = ['red apple', 'pizza', 'sunflower', 'penguin'];
const { images, width, height, evaluations, timings } = await pipeline.sample({ prompts, seeds: 7 });

// images: [N, H, W, 3] in −1 … 1
await mkdir('out', { recursive: true });
const size = height * width * 3;
for (const [i, prompt] of prompts.entries()) {
  const pixels = Uint8ClampedArray.from(images.subarray(i * size, (i + 1) * size), (v) => 127.5 * (v + 1));
  await sharp(pixels, { raw: { width, height, channels: 3 } })
    .png()
    .toFile(`out/${prompt.replace(' ', '-')}.png`);
}
console.log(
  `out/: ${prompts.join(', ')}; ${evaluations} evaluation of the network, ${timings.total.toFixed(1)} s with compiling`,
);
assert.equal(evaluations, 1);

// The apple is red: among the pixels that are not white paper, red outweighs green and blue.
const mean = [0, 0, 0];
for (let i = 0; i < size; i += 3) {
  const [r, g, b] = images.subarray(i, i + 3);
  if (r + g + b < 2.4) [r, g, b].forEach((v, k) => (mean[k] += v));
}
assert.ok(mean[0] > mean[1] && mean[0] > mean[2], `red ${mean[0]}, green ${mean[1]}, blue ${mean[2]}`);

// The same seed draws the same picture.
const again = await pipeline.sample({ prompts, seeds: 7 });
assert.deepEqual(again.images, images);
pipeline.dispose();
gpu.destroy();
