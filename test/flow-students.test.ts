import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { objectiveContradictions, objectiveProblems, setObjective } from '../src/cli/objective-flags.ts';
import type { ObjectiveFlags } from '../src/cli/objective-flags.ts';
import { makeLoss } from '../src/flow/losses.ts';
import { imageObjective, velocityObjective } from '../src/flow/objectives.ts';
import { deriveRecipe } from '../src/flow/recipe/derive-recipe.ts';
import { openModelFolder, saveModule, writeJson } from '../src/flow/recipe/model-folder.ts';
import { openLpips } from '../src/flow/recipe/open-lpips.ts';
import { sdScheduler } from '../src/flow/recipe/model-index.ts';
import { preset } from '../src/flow/recipe/recipe.ts';
import { Run, runRecipe } from '../src/flow/recipe/stages.ts';
import { openStudent } from '../src/flow/recipe/student.ts';
import { NoiseSchedule } from '../src/flow/schedulers/noise-schedule.ts';
import { AutoencoderKL, CLIPTextModel, LPIPS, UNet2DConditionModel } from '../src/nn/index.ts';
import { StackedUNet } from '../src/nn/models/stacked-unet.ts';
import { init, noGrad, scope, tensor } from '../src/tensor/index.ts';
import { writeTensors } from '../src/tensor/io/files-node.ts';
import { randoms } from './randoms.ts';

const test = suite('flow: students');
const gpu = await init();
const folder = mkdtempSync(join(tmpdir(), 'rectiflow-students-'));
test.after(() => {
  rmSync(folder, { recursive: true, force: true });
  gpu.destroy();
});

/** Stable Diffusion 1.x as diffusers lays it out, with small networks of random weights. */
const checkpoint = join(folder, 'stable-diffusion');
const lpipsFile = join(folder, 'alex.safetensors');
test.before(async () => {
  cpSync('models/emoji/tokenizer', join(checkpoint, 'tokenizer'), { recursive: true });
  const text = JSON.parse(readFileSync('models/emoji/text_encoder/config.json', 'utf8'));
  const small = { ...text, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2 };
  const encoder = new CLIPTextModel(small).initialize(1);
  const vae = new AutoencoderKL({ sample_size: 32, block_out_channels: [8, 16, 16], layers_per_block: 1, norm_num_groups: 4 }).initialize(2); // prettier-ignore
  const unet = new UNet2DConditionModel({
    ...preset('tiny').unet,
    sample_size: 8,
    cross_attention_dim: 16,
  }).initialize(3);
  await saveModule(checkpoint, 'text_encoder', encoder, 'CLIPTextModel');
  await saveModule(checkpoint, 'vae', vae, 'AutoencoderKL');
  await saveModule(checkpoint, 'unet', unet, 'UNet2DConditionModel');
  writeFileSync(join(checkpoint, 'unet', 'diffusion_pytorch_model.fp16.safetensors'), 'other precisions stay behind');
  mkdirSync(join(checkpoint, 'scheduler'));
  await writeJson(join(checkpoint, 'scheduler', 'scheduler_config.json'), sdScheduler);
  await writeJson(join(checkpoint, 'model_index.json'), { _class_name: 'StableDiffusionPipeline' });
  for (const module of [encoder, vae, unet]) module.dispose();
  const lpips = new LPIPS('alex').initialize(5);
  for (const [key, p] of lpips.namedParameters())
    if (key.startsWith('lin')) p.array.write(new Float32Array(p.size).fill(1 / p.size));
  await writeTensors(lpipsFile, await lpips.stateDict());
  lpips.dispose();
});

/** What is derived from it, with less to do. */
async function quick() {
  const recipe = await deriveRecipe(checkpoint);
  Object.assign(recipe.data, { maxTrainSamples: 12, resolution: 16 });
  const few = { batchSize: 4, steps: 4, warmupSteps: 1, learningRate: 1e-3, emaDecay: 0.5 };
  Object.assign(recipe.reflow.train, few);
  Object.assign(recipe.distill.train, few);
  Object.assign(recipe.pairs, { count: 12, steps: 3 });
  Object.assign(recipe.distill.pairs, { count: 8, steps: 2 });
  return recipe;
}

const x0 = Float32Array.from(randoms(2 * 64 * 4, 1, [-1, 1])),
  x1 = Float32Array.from(randoms(2 * 64 * 4, 2, [-1, 1]));
const told = {
  shape: [8, 8, 4] as const,
  loss: makeLoss({ type: 'l2' }),
  seed: 3,
  stream: 'test',
  timeWaves: (timesteps: readonly number[]) => tensor(timesteps, [timesteps.length, 1]),
};

test('an objective asks for the velocity on the path, and a right answer costs nothing', async () => {
  const objective = velocityObjective({ ...told, times: { distribution: 'k-grid', steps: 4 } });
  const points = objective.points(x0, x1, 7);
  const timesteps = [...(await points[1].read())];
  assert.ok(timesteps.every((k) => [1000, 750, 500, 250].includes(k)), String(timesteps)); // prettier-ignore
  const sample = await points[0].read();
  sample.forEach((x, i) => {
    const t = 1 - timesteps[Math.floor(i / 256)] / 1000;
    assert.ok(Math.abs(x - (t * x1[i] + (1 - t) * x0[i])) < 1e-6);
  });
  const velocity = x1.map((image, i) => image - x0[i]);
  const cost = (v: Float32Array) => scope(() => objective.loss(tensor(v, [2, 8, 8, 4]), points)).item();
  assert.is(await cost(velocity), 0);
  assert.ok(Math.abs((await cost(velocity.map((v) => v + 2))) - 4) < 1e-5);
});

for (const type of ['epsilon', 'v_prediction'] as const) {
  test(`a diffusion that stays one is held to the image of the pair: ${type}`, async () => {
    const schedule = new NoiseSchedule({ ...sdScheduler, beta_schedule: 'scaled_linear' });
    const objective = imageObjective(schedule, type, { ...told, times: { distribution: 'uniform' } });
    const points = objective.points(x0, x1, 1);
    const [sample, timesteps] = [await points[0].read(), [...(await points[1].read())]];
    assert.ok(timesteps.every((k) => Number.isInteger(k) && k >= 0 && k < 1000));
    const scalesAt = (i: number) => schedule.scales(timesteps[Math.floor(i / 256)]);
    sample.forEach((x, i) => {
      const { alpha, sigma } = scalesAt(i);
      assert.ok(Math.abs(x - (alpha * x1[i] + sigma * x0[i])) < 1e-5);
    });
    const right = x0.map((noise, i) => {
      const { alpha, sigma } = scalesAt(i);
      return type === 'epsilon' ? noise : alpha * noise - sigma * x1[i];
    });
    const cost = (output: Float32Array) => scope(() => objective.loss(tensor(output, [2, 8, 8, 4]), points)).item();
    assert.ok((await cost(right)) < 1e-8);
    // Wrong by 0.1 everywhere, which the image believed in is by 0.1 times the output's share in it.
    const shares = [0, 256].map((i) =>
      type === 'epsilon' ? scalesAt(i).sigma / scalesAt(i).alpha : scalesAt(i).sigma,
    );
    const expected = 0.01 * ((shares[0] ** 2 + shares[1] ** 2) / 2);
    const wrong = await cost(right.map((e) => e + 0.1));
    assert.ok(Math.abs(wrong / expected - 1) < 1e-3, `${wrong}, not ${expected}`);
  });
}

const whole = join(folder, 'whole');
const model = join(whole, 'model');
const losses = (run: string, stage: string): number[] =>
  readFileSync(join(run, stage, 'log.jsonl'), 'utf8').trim().split('\n').map((line) => JSON.parse(line).loss); // prettier-ignore

test('a checkpoint of Stable Diffusion becomes a flow and a stacked network of two steps, by LPIPS too', async () => {
  const recipe = await quick();
  assert.is(recipe.diffusion?._class_name, 'PNDMScheduler');
  assert.equal([recipe.tokenizer.maxLength, recipe.pairs.guidanceScale], [16, 5]);
  recipe.lpips = [lpipsFile];
  recipe.reflow.times = { distribution: 'u-shaped' };
  recipe.reflow.loss = { type: 'lpips_huber' };
  Object.assign(recipe.distill, {
    steps: 2,
    student: 'stacked',
    then: { loss: { type: 'lpips' }, steps: 3 },
  });
  await runRecipe(whole, recipe, { pretrained: checkpoint });
  assert.is(losses(whole, 'reflow').length, 4);
  const [l2, lpips] = [losses(whole, 'distill').slice(0, 4), losses(whole, 'distill').slice(4)];
  assert.is(lpips.length, 3);
  assert.ok(Math.min(...l2) > 3 * Math.max(...lpips), `${l2} then ${lpips}`);
  assert.not.ok(existsSync(join(model, 'unet_teacher', 'diffusion_pytorch_model.fp16.safetensors')));
  const file = 'diffusion_pytorch_model.safetensors';
  assert.is(
    statSync(join(model, 'unet_teacher', file)).ino,
    statSync(join(checkpoint, 'unet', file)).ino,
    'not copied',
  );
  const index = JSON.parse(readFileSync(join(model, 'model_index.json'), 'utf8'));
  assert.equal(
    [index.unet, index.unet_teacher],
    [
      ['rectiflow', 'StackedUNet'],
      ['diffusers', 'UNet2DConditionModel'],
    ],
  );
});

test('what comes out draws: two steps of the student, many of the teacher with its own scheduler', async () => {
  const pipeline = await openModelFolder(model, { networks: ['unet', 'unet_teacher', 'unet_reflow'] });
  assert.instance(pipeline.network('unet'), StackedUNet);
  const asked = { prompts: ['red heart'], seeds: [7] };
  const once = await pipeline.sample(asked);
  assert.equal([once.evaluations, once.sampler, once.images.length], [2, 'RectifiedFlow euler', 32 * 32 * 3]);
  const teacher = await pipeline.sample({ ...asked, which: 'unet_teacher', steps: 3 });
  assert.equal([teacher.sampler, teacher.guidanceScale, teacher.steps], ['PNDM', 7.5, 3]);
  assert.is((await pipeline.sample({ ...asked, which: 'unet_reflow' })).evaluations, 1);
  pipeline.dispose();
});

test('a stacked student has the weights of its network in both halves; a negated one says the opposite', async () => {
  const run = new Run(whole, await quick());
  const input = () => [tensor(x0, [2, 8, 8, 4]), [1000, 300], tensor(randoms(2 * 16 * 16, 4), [2, 16, 16])] as const;
  const plain = await openStudent(run, 'unet_teacher');
  const stacked = (await openStudent(run, 'unet_teacher', { network: 'stacked' })) as StackedUNet;
  const from = plain.namedParameters();
  for (const half of stacked.unets)
    for (const [key, p] of half.namedParameters())
      assert.equal([...(await p.read())], [...(await from.get(key)!.read())], key);
  const negated = await openStudent(run, 'unet_teacher', { negate: true });
  const say = (network: typeof plain) => scope(() => noGrad(() => network.forward(...input()))).read();
  const [a, b] = [await say(plain), await say(negated)];
  assert.ok(a.some((x) => Math.abs(x) > 1e-3));
  assert.ok(a.every((x, i) => Math.abs(x + b[i]) < 1e-5));
  for (const network of [plain, stacked, negated]) network.dispose();
});

test('with prediction_type epsilon reflow leaves a diffusion, which its scheduler samples; and cannot be distilled', async () => {
  const run = join(folder, 'epsilon');
  const recipe = await quick();
  const flags: ObjectiveFlags = { prediction_type: 'epsilon' };
  setObjective(recipe, flags);
  assert.equal([objectiveProblems(recipe, flags), recipe.reflow.loss], [[], { type: 'huber' }]);
  try {
    await runRecipe(run, recipe, { pretrained: checkpoint });
    assert.unreachable();
  } catch (error) {
    assert.match((error as Error).message, /reflow left a network of diffusion/);
  }
  await runRecipe(run, recipe, {}, 'reflow');
  const pipeline = await openModelFolder(join(run, 'model'), { networks: ['unet_reflow'] });
  const { sampler, steps, images } = await pipeline.sample({ prompts: ['x'], seeds: 1, which: 'unet_reflow' });
  assert.equal([sampler, steps], ['PNDM', 4]);
  assert.ok(images.every(Number.isFinite));
  pipeline.dispose();
});

test('a teacher is distilled directly, from its own pairs and without reflow', async () => {
  const run = join(folder, 'direct');
  const recipe = await quick();
  recipe.distill.from = 'unet_teacher';
  await runRecipe(run, recipe, { pretrained: checkpoint }, 'pairs').catch(() => undefined);
  await runRecipe(run, recipe, {}, 'distill');
  assert.not.ok(existsSync(join(run, 'distill', 'pairs')));
  assert.is(JSON.parse(readFileSync(join(run, 'distill', 'done.json'), 'utf8')).pairs, 12);
});

test('two losses share a budget of minutes; the second may be of the decoder, which wants no weights', async () => {
  const run = join(folder, 'minutes');
  const recipe = await quick();
  recipe.distill.from = 'unet_teacher';
  recipe.distill.then = { loss: { type: 'lpl' }, steps: 1000 };
  Object.assign(recipe.distill.train, { steps: 1000, minutes: 0.1 });
  assert.equal(objectiveProblems(recipe, { stage: 'distill' }), []);
  await runRecipe(run, recipe, { pretrained: checkpoint }, 'pairs').catch(() => undefined);
  await runRecipe(run, recipe, {}, 'distill');
  const lines = readFileSync(join(run, 'distill', 'log.jsonl'), 'utf8').trim().split('\n').map((line) => JSON.parse(line)); // prettier-ignore
  const before = lines.filter(({ seconds }) => seconds < 2.9).map(({ loss }) => loss);
  const after = lines.filter(({ seconds }) => seconds > 3.5).map(({ loss }) => loss);
  assert.ok(Math.min(...before) > 1.5 * Math.max(...after), `${before} then ${after}`);
  assert.ok(lines.at(-1).seconds > 5 && lines.at(-1).seconds < 12, String(lines.at(-1).seconds));
});

test('LPIPS says what its files lack, and takes them apart or together', async () => {
  const refuse = async (files: string[], words: RegExp) => {
    const error = await openLpips(files).catch((e: Error) => e);
    assert.match((error as Error).message, words);
  };
  await refuse([], /wants weights, which do not come with this project\n {2}give --lpips_model: AlexNet or VGG/);
  await refuse([join(folder, 'nothing')], /nothing: .*no such file/i);
  await refuse([join(checkpoint, 'unet', 'diffusion_pytorch_model.safetensors')], /not the weights of LPIPS/);
  const lpips = await openLpips([lpipsFile]);
  const state = await lpips.stateDict();
  const keys = Object.keys(state);
  const [network, heads] = ['network', 'heads'].map((name) => join(folder, `${name}.safetensors`));
  const part = (of: (key: string) => boolean, rename = (key: string) => key) =>
    Object.fromEntries(keys.filter(of).map((key) => [rename(key), state[key]]));
  await writeTensors(network, part((key) => key.startsWith('net'), (key) => key.replace(/^net\.slice\d/, 'features'))); // prettier-ignore
  await writeTensors(
    heads,
    part((key) => key.startsWith('lin')),
  );
  await refuse([network], /without the heads of LPIPS\n {2}missing: lin0/);
  const both = await openLpips([network, heads]);
  for (const [key, p] of both.namedParameters())
    assert.equal([...(await p.read())], [...(await lpips.namedParameters().get(key)!.read())], key);
  for (const one of [lpips, both]) one.dispose();
});

test('flags that do not go together are all named at once', async () => {
  const given: ObjectiveFlags = {
    ...{ loss_type: 'lpips', huber_c: 0.1, t_dist: 'u-shaped', t_grid: 4, logit_std: 2, then_steps: 3 },
    ...{ prediction_type: 'epsilon', negate_epsilon: true },
  };
  const recipe = preset('tiny');
  setObjective(recipe, given);
  const lines = [...objectiveContradictions(given), ...objectiveProblems(recipe, given)];
  for (const words of [
    /--loss_type lpips wants --lpips_model/,
    /--huber_c is for --loss_type huber/,
    /--then_loss_type and --then_steps: give both/,
    /--t_grid is for --t_dist k-grid, not u-shaped/,
    /--logit_std is for --t_dist logit-normal, not u-shaped/,
    /--prediction_type epsilon: the teacher is a rectified flow/,
    /--negate_epsilon: the teacher is a rectified flow/,
    /--negate_epsilon and --prediction_type epsilon/,
  ])
    assert.ok(lines.some((line) => words.test(line)), String(words)); // prettier-ignore
  const good = {
    loss_type: 'lpips_l2',
    lpips_model: ['a.pth', 'b.pth'],
    t_dist: 'k-grid',
    t_grid: 4,
  } as ObjectiveFlags;
  const other = preset('tiny');
  setObjective(other, { ...good, stage: 'reflow', proportion_empty_prompts: 0.2 });
  assert.equal([...objectiveContradictions(good), ...objectiveProblems(other, { ...good, stage: 'reflow' })], []);
  assert.equal(other.reflow.times, { distribution: 'k-grid', steps: 4 });
  assert.equal([other.reflow.loss, other.distill.loss, other.reflow.nullText], [{ type: 'lpips_l2' }, undefined, 0.2]);
});

test('what cannot be begun with says why', async () => {
  const refuse = async (path: string, words: RegExp) => {
    const error = await deriveRecipe(path).catch((e: Error) => e);
    assert.match((error as Error).message, words);
  };
  await refuse(join(folder, 'nowhere'), /no such folder\n {2}training wants a folder in diffusers' layout$/);
  await refuse(lpipsFile, /a file\n.*: make one with rectiflow convert/);
  const bare = join(folder, 'bare');
  cpSync(checkpoint, bare, { recursive: true });
  rmSync(join(bare, 'vae'), { recursive: true });
  await refuse(bare, /is not a whole model\n {2}missing: vae/);
});

test.run();
