import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Measured } from '../src/flow/metrics/evaluation.ts';
import { inceptionFeatures } from '../src/flow/metrics/feature-network.ts';
import { openClipScore, openFeatureNetwork } from '../src/flow/recipe/metric-networks.ts';
import { preset } from '../src/flow/recipe/recipe.ts';
import type { Metrics } from '../src/flow/recipe/stage-evaluate.ts';
import { runRecipe } from '../src/flow/recipe/stages.ts';
import { CLIPTextModel, LPIPS, outlineOf } from '../src/nn/index.ts';
import type { StateDict } from '../src/nn/index.ts';
import { CLIPVisionModel } from '../src/nn/models/clip-vision.ts';
import { InceptionV3 } from '../src/nn/models/inception.ts';
import { init } from '../src/tensor/index.ts';
import { writeTensors } from '../src/tensor/io/files-node.ts';
import { uniform } from '../src/tensor/random.ts';
import { refuses } from './refuses.ts';

const test = suite('eval');
const gpu = await init();
const folder = mkdtempSync(join(tmpdir(), 'rectiflow-eval-'));
test.after(() => {
  rmSync(folder, { recursive: true, force: true });
  gpu.destroy();
});
const at = (...names: string[]) => join(folder, ...names);

const recipe = preset('tiny');
for (const { train } of [recipe.vae, recipe.teacher, recipe.reflow, recipe.distill]) train.steps = 2;
await runRecipe(at('run'), recipe);
const model = at('run/model');

/** `node cli eval …` in a process of its own. */
function evaluate(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['cli.js', 'eval', ...args], { encoding: 'utf8' });
  return { status, stdout, stderr: stderr.replace('building…\n', '') };
}

// CLIP in small, with random weights and the tokenizer of the model, in the layout of transformers' CLIPModel.
const clip = at('clip');
const towers = {
  projection_dim: 8,
  text_config: { vocab_size: 560, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 8 }, // prettier-ignore
  vision_config: { image_size: 28, patch_size: 14, hidden_size: 12, intermediate_size: 24, num_hidden_layers: 1, num_attention_heads: 2 }, // prettier-ignore
};
cpSync(join(model, 'tokenizer'), clip, { recursive: true });
towers.text_config.vocab_size = Object.keys(JSON.parse(readFileSync(join(clip, 'vocab.json'), 'utf8'))).length;
writeFileSync(join(clip, 'config.json'), JSON.stringify(towers));
const vision = new CLIPVisionModel({ ...towers.vision_config, projection_dim: 8 }).initialize(1);
const text = new CLIPTextModel({ ...towers.text_config, projection_dim: 8 }, { projection: true }).initialize(2);
const image: StateDict = await vision.stateDict();
await writeTensors(join(clip, 'model.safetensors'), {
  ...image,
  ...(await text.stateDict()),
  logit_scale: { shape: [], data: Float32Array.of(4.6) },
  'vision_model.embeddings.position_ids': { shape: [1, 5], data: Float32Array.of(0, 1, 2, 3, 4) },
});

test('eval finds what the last stage of training found, and more steps of every network', () => {
  const stage: Metrics = JSON.parse(readFileSync(at('run/evaluate/metrics.json'), 'utf8'));
  const { count, steps } = recipe.evaluate;
  const run = evaluate(model, '--num', String(count), '--steps', `1,2,${steps}`, '--out', at('out'), '--json');
  assert.is(run.status, 0, run.stderr);
  const metrics = JSON.parse(run.stdout);
  assert.equal(metrics, JSON.parse(readFileSync(at('out/metrics.json'), 'utf8')));
  const rows: Measured[] = metrics.rows;
  assert.equal(
    rows.map((row) => [row.network, row.steps]),
    ['unet_teacher', 'unet_reflow', 'unet'].flatMap((network) => [1, 2, steps].map((n) => [network, n])),
  );
  for (const { secondsPerImage, ...want } of stage.rows) {
    const {
      secondsPerImage: seconds,
      fewStepError,
      ...got
    } = rows.find((row) => row.network === want.network && row.steps === want.steps)!;
    assert.equal(got, want);
    assert.ok(seconds > 0 && secondsPerImage > 0);
    assert.is(fewStepError === undefined, want.steps === steps);
  }
  assert.is(rows[0].fewStepError, stage.fewStepError.teacher1);
  assert.is(metrics.straightnessGain, stage.straightnessGain);
  assert.is(metrics.frechetDistance, 'Fréchet distance (small fixed features)');
  assert.equal(metrics.realImages, { source: 'OpenMoji, popular', count: 12 });
});

test('the picture shows every way, and the curves below', async () => {
  const { width, height } = await sharp(at('out/sheet.png')).metadata();
  assert.ok(width > 1000 && height > 9 * 100 + 360, `${width} × ${height}`);
});

test('with other networks every number says whose it is: no FID and no CLIP score of random weights', async () => {
  const lpips = new LPIPS('alex').initialize(3);
  const state = await lpips.stateDict();
  for (const [key, tensor] of Object.entries(state)) if (key.startsWith('lin')) tensor.data = tensor.data.map(Math.abs);
  await writeTensors(at('alex.safetensors'), state);
  lpips.dispose();
  const flags = ['--feature_network', 'clip', '--feature_weights', clip, '--clip_model', clip];
  const rest = ['--lpips_model', at('alex.safetensors'), '--num', '4', '--steps', '1,3', '--out', at('all')];
  const run = evaluate(model, ...flags, ...rest);
  assert.is(run.status, 0, run.stderr);
  const metrics = JSON.parse(readFileSync(at('all/metrics.json'), 'utf8'));
  assert.is(metrics.frechetDistance, 'Fréchet distance (CLIP image tower, weights not recognised)');
  assert.is(metrics.clipScore, 'text similarity (CLIP-shaped network, weights not recognised)');
  assert.is(metrics.lpipsToTeacher, 'LPIPS to unet_teacher in 3 steps');
  assert.not.match(run.stdout + JSON.stringify(metrics), /FID|CLIP score/);
  for (const { network, steps, clipScore, lpipsToTeacher } of metrics.rows as Measured[]) {
    assert.ok(clipScore! >= 0 && clipScore! <= 1);
    if (network === 'unet_teacher' && steps === 3) assert.is(lpipsToTeacher, undefined);
    else assert.ok(lpipsToTeacher! > 0, `${network} in ${steps}: ${lpipsToTeacher}`);
  }
  assert.match(run.stdout, /network +steps +guidance +distance +captions +S \/ cost +error +CLIP +LPIPS +s \/ image/);
});

test('the image tower is the same in CLIP, alone, and in a safety checker; without its projection it is another space', async () => {
  const { vision_config, projection_dim } = towers;
  const renamed = (rename: (key: string) => string) => Object.fromEntries(Object.entries(image).map(([key, t]) => [rename(key), t])); // prettier-ignore
  const bare = Object.fromEntries(Object.entries(image).filter(([key]) => key !== 'visual_projection.weight'));
  const layouts: Record<string, [object, StateDict]> = {
    alone: [{ ...vision_config, projection_dim }, image],
    checker: [towers, { ...renamed((key) => key.replace(/^vision_model/, 'vision_model.vision_model')), concept_embeds: { shape: [1, 8], data: new Float32Array(8) } }], // prettier-ignore
    bare: [vision_config, bare],
  };
  const images = uniform(1, 'images', 2 * 16 * 16 * 3).map((u) => 2 * u - 1);
  const whole = await openFeatureNetwork('clip', clip);
  const want = await whole.features(images, 16);
  assert.is(want.length, 2 * 8);
  for (const [name, [config, tensors]] of Object.entries(layouts)) {
    mkdirSync(at(name));
    writeFileSync(at(name, 'config.json'), JSON.stringify(config));
    await writeTensors(at(name, 'model.safetensors'), tensors);
    const network = await openFeatureNetwork('clip', at(name));
    const got = await network.features(images, 16);
    if (name === 'bare') assert.is(got.length, 2 * 12);
    else assert.equal(got, want, name);
    network.dispose();
  }
  whole.dispose();
  const score = await openClipScore(clip);
  const [one, two] = await score.of(images, 16, ['red heart', 'red heart']);
  assert.ok(one !== two && one <= 1 && two <= 1);
  score.dispose();
});

test('FID is the name of one file of weights: a random Inception has the shape, not the name', async () => {
  const outline = outlineOf(() => new InceptionV3());
  const state: StateDict = { 'fc.bias': { shape: [1008], data: new Float32Array(1008), dtype: 'F16' } };
  for (const [key, p] of outline.namedParameters())
    state[key] = { shape: [...p.checkpointShape], data: new Float32Array(p.size).fill(0.01), dtype: 'F16' };
  await writeTensors(at('inception.safetensors'), state);
  const network = await openFeatureNetwork('inception', at('inception.safetensors'));
  assert.is(network.distance, 'Fréchet distance (Inception v3, weights not recognised)');
  network.dispose();
  assert.is(inceptionFeatures(outline, true).distance, 'FID');
});

test('what eval cannot do it says', async () => {
  const cases: [string[], number, RegExp][] = [
    [[model, '--steps', '1,0,x'], 2, /--steps must be whole numbers.*not "0", "x"/],
    [[model, '--feature_network', 'inception'], 2, /--feature_network inception wants --feature_weights/],
    [[model, '--feature_weights', clip], 2, /the small network has no weights/],
    [[at('nowhere')], 1, /nowhere/],
  ];
  for (const [args, status, words] of cases) {
    const run = evaluate(...args);
    assert.is(run.status, status, args.join(' '));
    assert.match(run.stderr, words);
  }
  const nameless = at('nameless');
  cpSync(model, nameless, { recursive: true });
  rmSync(join(nameless, 'recipe.json'));
  assert.match(evaluate(nameless).stderr, /does not say which images it was trained on; name some: --train_data_dir/);
  await refuses(openFeatureNetwork('clip', join(model, 'unet')), /not an image tower of CLIP/);
  await refuses(openFeatureNetwork('inception', join(clip, 'model.safetensors')), /InceptionV3/);
  await refuses(openClipScore(join(model, 'unet')), /no tokenizer of CLIP in it/);
  cpSync(join(model, 'tokenizer'), at('bare'), { recursive: true });
  await refuses(openClipScore(at('bare')), /without visual_projection cannot be compared with texts/);
});

test.run();
