/**
 * A small convolutional network tells smileys, animals and food apart:   node scripts/run.mjs examples/08-cnn-openmoji.ts
 *
 * 173 pictures of OpenMoji at 32 × 32, three quarters to learn from: few, so it learns those by heart and is right about
 * seven in ten of the others. Always guessing the largest group would be right for 37 %.
 */
import assert from 'node:assert/strict';
import {
  AdamW,
  argmax,
  Conv2d,
  crossEntropy,
  GroupNorm,
  init,
  Linear,
  mean,
  Module,
  noGrad,
  permutation,
  schedule,
  scope,
  tensor,
} from 'rectiflow';
import type { Tensor } from 'rectiflow';
import { mirror } from '../src/flow/data/loader.ts';
import { loadOpenMoji, openMojiEntries } from '../src/flow/data/openmoji.ts';

const groups = ['smileys-emotion', 'animals-nature', 'food-drink'];
const SIZE = 32;
const BATCH = 32;
const STEPS = 150;

class Classifier extends Module {
  convs = [
    new Conv2d(3, 16, 3, { padding: 1, stride: 2 }),
    new Conv2d(16, 32, 3, { padding: 1, stride: 2 }),
    new Conv2d(32, 64, 3, { padding: 1, stride: 2 }),
  ];
  norms = [
    new GroupNorm(4, 16, { silu: true }),
    new GroupNorm(4, 32, { silu: true }),
    new GroupNorm(4, 64, { silu: true }),
  ];
  head = new Linear(64, groups.length);

  /** x: [B, 32, 32, 3] → scores [B, groups] */
  forward(x: Tensor): Tensor {
    this.convs.forEach((conv, i) => (x = this.norms[i].forward(conv.forward(x)))); // 32 → 16 → 8 → 4 pixels a side
    return this.head.forward(mean(x, { axes: [1, 2] }));
  }
}

// Pictures [N, 32, 32, 3] in −1 … 1 with the number of their group, in a shuffled order that is always the same.
const { images } = await loadOpenMoji({ set: 'popular', size: SIZE });
const stride = SIZE * SIZE * 3;
const all = openMojiEntries('popular').map(({ group }, i) => ({
  label: groups.indexOf(group),
  pixels: images.subarray(i * stride, (i + 1) * stride),
}));
const chosen = all.filter(({ label }) => label >= 0);
const shuffled = [...permutation(0, 0, chosen.length)].map((i) => chosen[i]);
const cut = Math.round(0.75 * shuffled.length);
const [known, unseen] = [shuffled.slice(0, cut), shuffled.slice(cut)];

/** Pictures as tensors; every second one mirrored where `flip` says so. */
function batch(pictures: typeof chosen, flip = false) {
  const pixels = new Float32Array(pictures.length * stride);
  pictures.forEach((p, i) => pixels.set(flip && i % 2 ? mirror(p.pixels, SIZE) : p.pixels, i * stride));
  const labels = pictures.map(({ label }) => label);
  return {
    x: tensor(pixels, [pictures.length, SIZE, SIZE, 3]),
    labels: tensor(labels, [labels.length], { dtype: 'i32' }),
  };
}

const gpu = await init();
const model = new Classifier().initialize(0).requiresGrad(true);
const optimizer = new AdamW(model.namedParameters(), { weightDecay: 0.05 });
const rate = schedule('cosine', { lr: 3e-3, trainingSteps: STEPS });

for (let step = 0; step < STEPS; step++) {
  const loss = scope(() => {
    const order = permutation(1, step, known.length);
    const { x, labels } = batch(
      [...order.subarray(0, BATCH)].map((i) => known[i]),
      true,
    );
    const loss = crossEntropy(model.forward(x), labels, { labelSmoothing: 0.1 });
    loss.backward();
    optimizer.lr = rate(step);
    optimizer.step();
    return loss;
  });
  if (step % 50 === 0) console.log(`step ${step}: loss ${(await loss.item()).toFixed(3)}`);
  loss.dispose();
}

async function accuracy(pictures: typeof chosen): Promise<number> {
  const guesses = await noGrad(() => scope(() => argmax(model.forward(batch(pictures).x)))).read();
  return pictures.filter(({ label }, i) => label === guesses[i]).length / pictures.length;
}
const percent = (share: number) => `${(100 * share).toFixed(0)} %`;
const [learnt, general] = [await accuracy(known), await accuracy(unseen)];
console.log(
  `right: ${percent(learnt)} of ${known.length} known pictures, ${percent(general)} of ${unseen.length} unseen ones`,
);
assert.ok(learnt >= 0.95 && general >= 0.6);
gpu.destroy();
