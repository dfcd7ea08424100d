import { cp, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import estimateCommand from '../src/cli/commands/estimate.ts';
import sampleCommand from '../src/cli/commands/sample.ts';
import { readPng } from '../src/cli/pictures/png.ts';
import { rehearse } from '../src/flow/estimate/rehearse.ts';
import type { Pipeline } from '../src/flow/pipeline.ts';
import { writeJson } from '../src/flow/recipe/model-folder.ts';
import { readOutline } from '../src/flow/recipe/model-outline.ts';
import { openModel } from '../src/flow/recipe/open-model.ts';
import { safetyCheckerIn } from '../src/flow/recipe/safety-checker.ts';
import { clipPixels } from '../src/nn/models/clip-pixels.ts';
import { SafetyChecker } from '../src/nn/models/safety-checker.ts';
import { init, noGrad, tensor } from '../src/tensor/index.ts';
import { writeTensors } from '../src/tensor/io/files-node.ts';
import { makeModel, makeRefiner } from './tiny-model.ts';
import { printed } from './run-command.ts';

const test = suite('safety checker');
const folder = await mkdtemp(join(tmpdir(), 'rectiflow-safety-'));
const at = (...names: string[]) => join(folder, ...names);
const gpu = await init();
test.after(async () => {
  gpu.destroy();
  await rm(folder, { recursive: true });
});

const vision = {
  hidden_size: 12,
  intermediate_size: 20,
  num_hidden_layers: 2,
  num_attention_heads: 3,
  image_size: 8,
  patch_size: 4,
};
const index = { safety_checker: ['stable_diffusion', 'StableDiffusionSafetyChecker'] };
const prompts = ['a cat on a boat', 'a cat on a boat'];
const asked = { prompts, seeds: 5, steps: 2, guidanceScale: 1 };
const draw = async (pipeline: Pipeline, options: object = {}) => {
  const result = await pipeline.sample({ ...asked, ...options });
  pipeline.dispose();
  return result;
};

const sd = await makeModel(at('sd'), 'StableDiffusionPipeline');
await writeJson(join(sd, 'model_index.json'), { _class_name: 'StableDiffusionPipeline', ...index });
const plain = await draw(await openModel(sd));
const each = plain.images.length / 2;
const black = new Float32Array(each).fill(-1);
const [first, second] = [plain.images.slice(0, each), plain.images.slice(each)];
// Its one concept is what the first picture has and the second has not: cosine 0 with that.
await addChecker(sd, await between());

/** A concept orthogonal to the second picture, and a threshold between the two. */
async function between(): Promise<{ concept: ArrayLike<number>; threshold: number }> {
  using checker = generated();
  const pixels = [first, second].map((image) => {
    const bytes = image.map((v) => Math.round((v / 2 + 0.5) * 255) / 255);
    return clipPixels(bytes, [16, 16], { side: 8 });
  });
  const [a, b] = await Promise.all(
    pixels.map((x) => noGrad(() => checker.embed(tensor(x, [1, 8, 8, 3]))).read() as Promise<Float32Array>),
  );
  const dot = (u: Float32Array, v: Float32Array) => u.reduce((sum, e, i) => sum + e * v[i], 0);
  const concept = a.map((e, i) => e - (dot(a, b) / dot(b, b)) * b[i]);
  const cosine = dot(a, concept) / Math.sqrt(dot(a, a) * dot(concept, concept));
  assert.ok(cosine > 0.05, `${cosine}: the pictures are too alike`);
  return { concept, threshold: cosine / 2 };
}

function generated(): SafetyChecker {
  return new SafetyChecker({ ...vision, projection_dim: 5 }).initialize(7);
}

/** As the published ones: 17 concepts of which one says something, 3 for special care that say nothing. */
async function addChecker(
  model: string,
  { concept, threshold }: { concept: ArrayLike<number>; threshold: number },
): Promise<void> {
  using checker = generated();
  const set = (key: string, numbers: Iterable<number>) =>
    checker.namedParameters().get(key)!.array.write(Float32Array.from(numbers));
  set('concept_embeds', [...Array.from(concept), ...Array<number>(16 * 5).fill(1)]);
  set('concept_embeds_weights', [threshold, ...Array<number>(16).fill(2)]);
  set('special_care_embeds_weights', [2, 2, 2]);
  await mkdir(join(model, 'safety_checker'));
  await writeJson(join(model, 'safety_checker', 'config.json'), { vision_config: vision, projection_dim: 5 });
  await writeTensors(join(model, 'safety_checker', 'model.safetensors'), await checker.stateDict());
}

const run = (command: typeof sampleCommand, ...words: string[]): Promise<string> => printed(command, words, gpu);

test('a flagged picture becomes black and is named, the others stay as they are to the last bit', async () => {
  assert.is(plain.nsfwContentDetected, undefined);
  const checked = await draw(await openModel(sd));
  assert.equal(checked.nsfwContentDetected, [true, false]);
  assert.equal(checked.images.slice(0, each), black);
  assert.equal(checked.images.slice(each), second);
  assert.equal(checked.latents, plain.latents);
  assert.equal(checked.warnings, [
    '"a cat on a boat", seed 5: black, because the safety checker flagged it; --safety_checker off shows it',
  ]);
  assert.ok(checked.timings.safety > 0);
  assert.equal((await draw(await openModel(sd), { batchSize: 1 })).nsfwContentDetected, [true, false]);
  assert.equal((await draw(await openModel(sd, { dtype: 'f16' }))).nsfwContentDetected, [true, false]);
  const free = await draw(await openModel(sd, { safetyChecker: false }));
  assert.equal(free.images, plain.images);
});

test('what is believed in on the way is looked at too', async () => {
  const seen: Float32Array[] = [];
  const onPreview = (images: Float32Array) => void seen.push(images);
  await draw(await openModel(sd), { onPreview });
  assert.equal(seen.at(-1)!.slice(0, each), black);
  assert.not.equal(seen.at(-1)!.slice(each), black);
});

test('its feature extractor says how pixels are normalised, and must fit', async () => {
  const other = at('other');
  await cp(sd, other, { recursive: true });
  await mkdir(join(other, 'feature_extractor'));
  const file = join(other, 'feature_extractor', 'preprocessor_config.json');
  const published = {
    crop_size: { height: 8, width: 8 },
    size: { shortest_edge: 8 },
    image_mean: [0.48145466, 0.4578275, 0.40821073],
    image_std: [0.26862954, 0.26130258, 0.27577711],
    resample: 3,
  };
  const flags = async (config: object) => {
    await writeJson(file, config);
    return (await draw(await openModel(other))).nsfwContentDetected;
  };
  assert.equal(await flags(published), [true, false]);
  assert.equal(await flags({ ...published, crop_size: 8, image_mean: [9, -9, 0] }), [false, false]);
  const before = gpu.memory().arrays;
  for (const [config, message] of [
    [{ crop_size: 224 }, /its feature_extractor makes images of 224 × 224, its safety_checker wants 8 × 8/],
    [{ image_std: [1] }, /preprocessor_config\.json: image_mean and image_std must have 3 numbers/],
  ] as const) {
    const error = await flags(config).catch((e: Error) => e);
    assert.match((error as Error).message, message);
  }
  await writeJson(file, published);
  await writeJson(join(other, 'safety_checker', 'config.json'), { vision_config: { ...vision, patch_size: 2 } });
  const damaged = await openModel(other).catch((e: Error) => e);
  assert.match(
    (damaged as Error).message,
    /safety_checker.*SafetyChecker: these weights belong to another configuration/,
  );
  assert.is(gpu.memory().arrays, before, 'arrays left behind');
});

test('sample says that it is on and what it hid; off, it writes the picture', async () => {
  const how = [prompts[0], '--num', '2', '--model', sd, '--seed', '5', '--steps', '2', '--guidance_scale', '1'];
  const dark = async (name: string) =>
    (await readPng(at(name, 'a-cat-on-a-boat-5.png'))).image.data.every((v) => v === 0);
  const on = await run(sampleCommand, ...how, '--out', at('on'));
  assert.match(on, /^safety checker: on, what it flags becomes black \(--safety_checker off\)$/m);
  assert.match(on, /^note: "a cat on a boat", seed 5: black, because .* --safety_checker off shows it$/m);
  assert.match(on, /decoder [\d.]+ s, safety checker [\d.]+ s; loading/);
  assert.not.match(on, /seed 6:/);
  assert.ok(await dark('on'));
  const off = await run(sampleCommand, ...how, '--out', at('off'), '--safety_checker', 'off');
  assert.not.match(off, /^safety|decoder.*safety/m);
  assert.not.ok(await dark('off'));
  const same = await Promise.all(['on', 'off'].map((name) => readFile(at(name, 'a-cat-on-a-boat-6.png'))));
  assert.ok(same[0].equals(same[1]));

  const refiner = await makeRefiner(at('refiner'));
  const refined = await run(sampleCommand, ...how, '--out', at('refined'), '--refiner', refiner);
  assert.match(refined, /^refined: .*safety checker/m);
  assert.match(refined, /^note: "a cat on a boat", seed 5: black/m);
  assert.ok(await dark('refined'), 'what was hidden stays so in the second pass');
});

test('a model that lists one without its weights draws without, and says so', async () => {
  const lacking = at('lacking');
  await cp(sd, lacking, { recursive: true, filter: (file) => !/safety_checker\/model/.test(file) });
  assert.is(await safetyCheckerIn(lacking), 'listed');
  const how = ['a cat', '--model', lacking, '--out', at('lacking-out'), '--steps', '1', '--guidance_scale', '1'];
  assert.match(await run(sampleCommand, ...how), /^safety checker: off, its weights are not here/m);
  const forced = await run(sampleCommand, ...how, '--safety_checker', 'on');
  assert.match(forced, /lacking: there is no safety checker\n {2}looked for weights in .*safety_checker/);
  await writeJson(join(lacking, 'model_index.json'), { safety_checker: [null, null] });
  assert.is(await safetyCheckerIn(lacking), 'none');
});

test('an estimate counts it, and is what a run takes', async () => {
  const outline = await readOutline(sd, 'unet', { safetyChecker: true });
  const expected = await rehearse(outline, { count: 2, steps: 2, guidanceScale: 1 });
  using checker = generated();
  assert.is(expected.parts.safetyChecker.parameters, checker.parameterCount);
  assert.ok(expected.flops.safety > 0);
  await gpu.trim();
  const start = gpu.memory().live;
  const pipeline = await openModel(sd);
  gpu.resetPeak();
  const dispatches = gpu.dispatches;
  await draw(pipeline);
  assert.is(gpu.dispatches - dispatches, expected.dispatches);
  const ratio = (gpu.memory().peak - start) / expected.peak;
  assert.ok(Math.abs(ratio - 1) < 0.02, `${ratio} of the bytes expected at the peak`);
  const text = await run(estimateCommand, '--model', sd, '--no-time');
  assert.match(text, /^ {2}safety checker +[\d.]+ k/m);
  assert.not.match(await run(estimateCommand, '--model', sd, '--no-time', '--safety_checker', 'off'), /^ *safety/m);
  const json = JSON.parse(
    (await run(estimateCommand, '--model', 'sd15', '--no-time', '--json', '--safety_checker', 'on')).replace(
      /^.*\n/,
      '',
    ),
  );
  assert.is(json.parts.safetyChecker.parameters, 303_981_588);
});

test.run();
