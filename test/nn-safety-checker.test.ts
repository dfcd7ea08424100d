import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { outlineOf, type StateDict } from '../src/nn/index.ts';
import { clipPixels } from '../src/nn/models/clip-pixels.ts';
import { SafetyChecker } from '../src/nn/models/safety-checker.ts';
import { noGrad, tensor, useGpu } from '../src/tensor/index.ts';
import { assertClose, testGpu } from './check-op.ts';
import { randoms } from './randoms.ts';

const test = suite('nn-safety-checker');
test.before(async () => void useGpu(await testGpu()));

const config = {
  hidden_size: 12,
  intermediate_size: 20,
  num_hidden_layers: 2,
  num_attention_heads: 3,
  image_size: 8,
  patch_size: 4,
  projection_dim: 5,
};

test('at full size it has the keys and shapes of the published checkpoint', () => {
  const model = outlineOf(() => new SafetyChecker());
  const shapes = new Map([...model.namedParameters()].map(([key, p]) => [key, [...p.checkpointShape]]));
  const layer = 'vision_model.vision_model.encoder.layers.23';
  const known: Record<string, number[]> = {
    'vision_model.vision_model.embeddings.class_embedding': [1024],
    'vision_model.vision_model.embeddings.patch_embedding.weight': [1024, 3, 14, 14],
    'vision_model.vision_model.embeddings.position_embedding.weight': [257, 1024],
    'vision_model.vision_model.pre_layrnorm.weight': [1024],
    [`${layer}.self_attn.k_proj.weight`]: [1024, 1024],
    [`${layer}.mlp.fc1.weight`]: [4096, 1024],
    [`${layer}.layer_norm2.bias`]: [1024],
    'vision_model.vision_model.post_layernorm.weight': [1024],
    'visual_projection.weight': [768, 1024],
    concept_embeds: [17, 768],
    special_care_embeds: [3, 768],
    concept_embeds_weights: [17],
    special_care_embeds_weights: [3],
  };
  for (const [key, shape] of Object.entries(known)) assert.equal(shapes.get(key), shape, key);
  assert.is(shapes.size, 3 + 2 + 24 * 16 + 2 + 1 + 4);
  assert.is(model.parameterCount, 303_179_776 + 768 * 1024 + 20 * 769); // CLIP ViT-L/14 without its projection
});

/** The image tower in slow JavaScript.   x: [8, 8, 3] → [5] */
function reference(state: StateDict, x: ArrayLike<number>): number[] {
  const w = (key: string) => state[key].data;
  const C = config.hidden_size;
  const at = 'vision_model.vision_model.';
  const norm = (v: number[], key: string) => {
    const mean = v.reduce((a, b) => a + b, 0) / v.length;
    const variance = v.reduce((s, a) => s + (a - mean) ** 2, 0) / v.length;
    return v.map((a, i) => ((a - mean) / Math.sqrt(variance + 1e-5)) * w(`${key}.weight`)[i] + w(`${key}.bias`)[i]);
  };
  const linear = (v: number[], key: string) => {
    const [O, I] = state[`${key}.weight`].shape;
    return Array.from({ length: O }, (_, o) =>
      v.reduce((s, a, i) => s + a * w(`${key}.weight`)[o * I + i], state[`${key}.bias`]?.data[o] ?? 0),
    );
  };
  const patches = Array.from({ length: 4 }, (_, p) =>
    Array.from({ length: C }, (_, o) => {
      let sum = 0;
      for (let c = 0; c < 3; c++)
        for (let i = 0; i < 4; i++)
          for (let j = 0; j < 4; j++)
            sum +=
              x[((Math.floor(p / 2) * 4 + i) * 8 + (p % 2) * 4 + j) * 3 + c] *
              w(`${at}embeddings.patch_embedding.weight`)[((o * 3 + c) * 4 + i) * 4 + j];
      return sum;
    }),
  );
  let h = [[...w(`${at}embeddings.class_embedding`)], ...patches].map((row, t) =>
    norm(
      row.map((v, i) => v + w(`${at}embeddings.position_embedding.weight`)[t * C + i]),
      `${at}pre_layrnorm`,
    ),
  );
  for (let l = 0; l < config.num_hidden_layers; l++) {
    const key = `${at}encoder.layers.${l}`;
    const normal = h.map((row) => norm(row, `${key}.layer_norm1`));
    const [q, k, v] = ['q', 'k', 'v'].map((n) => normal.map((row) => linear(row, `${key}.self_attn.${n}_proj`)));
    const D = C / config.num_attention_heads;
    h = h.map((row, t) => {
      const mixed = Array<number>(C).fill(0);
      for (let head = 0; head < C; head += D) {
        const scores = k.map((other) => {
          let dot = 0;
          for (let d = head; d < head + D; d++) dot += q[t][d] * other[d];
          return Math.exp(dot / Math.sqrt(D));
        });
        const total = scores.reduce((a, b) => a + b);
        for (let d = head; d < head + D; d++) mixed[d] = scores.reduce((s, e, n) => s + (e / total) * v[n][d], 0);
      }
      return linear(mixed, `${key}.self_attn.out_proj`).map((a, i) => a + row[i]);
    });
    h = h.map((row) => {
      const inner = linear(norm(row, `${key}.layer_norm2`), `${key}.mlp.fc1`).map(
        (a) => a / (1 + Math.exp(-1.702 * a)),
      );
      return linear(inner, `${key}.mlp.fc2`).map((a, i) => a + row[i]);
    });
  }
  return linear(norm(h[0], `${at}post_layernorm`), 'visual_projection');
}

test('embeds images as a slow reference does, and flags those close to a concept', async () => {
  using model = new SafetyChecker(config, { concepts: 2, specials: 1 }).initialize(3);
  for (const [key, p] of model.namedParameters()) p.array.write(randoms(p.size, key.length, [-0.5, 0.5]));
  const state = await model.stateDict();
  const x = randoms(2 * 8 * 8 * 3, 5, [-1, 1]);
  const images = tensor(x, [2, 8, 8, 3]);
  const embeds = noGrad(() => model.embed(images));
  const want = [x.subarray(0, 192), x.subarray(192)].map((image) => reference(state, image));
  assertClose(await embeds.read(), want.flat(), 1e-5, 'embeds');

  // A concept that is orthogonal to the second image: cosine 0 with that, more with the first.
  const [a, b] = want;
  const dot = (u: number[], v: number[]) => u.reduce((s, e, i) => s + e * v[i], 0);
  const concept = a.map((e, i) => e - (dot(a, b) / dot(b, b)) * b[i]);
  const near = dot(a, concept) / Math.sqrt(dot(a, a) * dot(concept, concept));
  assert.ok(near > 0.01, `${near}`);
  const set = (key: string, numbers: number[]) => model.namedParameters().get(key)!.array.write(numbers);
  set('concept_embeds', [...concept, ...concept.map((e) => -e)]);
  set('special_care_embeds', concept);
  set('special_care_embeds_weights', [2]);
  const flagged = () => noGrad(() => model.flagged(images));
  set('concept_embeds_weights', [near - 0.002, 2]);
  assert.equal(await flagged(), [true, false]);
  set('concept_embeds_weights', [0.005, 2]);
  assert.equal(await flagged(), [true, false], 'the second is just below');
  set('special_care_embeds_weights', [-2]);
  assert.equal(await flagged(), [true, true], 'special care is 0.01 stricter');
  set('concept_embeds_weights', [2, 2]);
  assert.equal(await flagged(), [false, false]);
});

test('images of another size are refused', () => {
  using model = new SafetyChecker(config);
  assert.throws(() => model.embed(tensor(new Float32Array(192), [1, 4, 16, 3])), /wants images \[B, 8, 8, 3\]/);
});

test('pixels: an image of one colour keeps it, a slope stays a slope, the middle is kept', () => {
  const grey = clipPixels(new Float32Array(30 * 50 * 3).fill(0.5), [30, 50], { side: 8 });
  assert.is(grey.length, 8 * 8 * 3);
  for (const [i, mean, deviation] of [
    [0, 0.48145466, 0.26862954],
    [191, 0.40821073, 0.27577711],
  ])
    assert.ok(Math.abs(grey[i] - (0.5 - mean) / deviation) < 1e-6);
  const slope = Float32Array.from({ length: 16 * 32 * 3 }, (_, i) => (Math.floor(i / 3) % 32) / 32);
  const half = clipPixels(slope, [16, 32], { side: 8 });
  const value = (x: number) => half[x * 3] * 0.26862954 + 0.48145466;
  for (let x = 1; x < 7; x++) assert.ok(Math.abs(value(x) - (8.5 + 2 * x) / 32) < 1e-6, `column ${x}: ${value(x)}`);
  assert.throws(() => clipPixels(new Float32Array(5), [1, 2]), /5 numbers are not 1 × 2 pixels/);
});

test.run();
