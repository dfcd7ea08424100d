import { spawn, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Linear, UNet2DConditionModel } from '../src/nn/index.ts';
import { readLora } from '../src/nn/lora-read.ts';
import { init, mse, mul, tensor } from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { openModelFolder } from '../src/flow/recipe/model-folder.ts';
import { preset } from '../src/flow/recipe/recipe.ts';
import { CheckpointFolder } from '../src/flow/recipe/checkpoints.ts';
import { Interrupted, runRecipe } from '../src/flow/recipe/stages.ts';
import { learningRate, train } from '../src/flow/trainer.ts';
import type { TrainOptions, TrainTask } from '../src/flow/trainer.ts';
import { trainingNoise } from '../src/flow/training-noise.ts';
import { readTensors } from '../src/tensor/io/files-node.ts';
import { normal } from '../src/tensor/random.ts';
import { skip } from './skip.ts';
import { collectGarbage } from './garbage.ts';

const test = suite('flow: training');
const gpu = await init();
const folder = mkdtempSync(join(tmpdir(), 'rectiflow-'));
test.after(() => {
  if (mounted) spawnSync('umount', [disk]);
  rmSync(folder, { recursive: true, force: true });
  gpu.destroy();
});

const quick: TrainOptions = {
  steps: 20,
  batchSize: 4,
  learningRate: 1e-2,
  scheduler: 'cosine',
  warmupSteps: 2,
  maxGradNorm: 1,
  weightDecay: 0,
  emaDecay: 0.9,
  checkpointingSteps: 10,
};

/** y = 2x, learned by one layer. */
function line(poison: (step: number) => number = () => 1): TrainTask & { layer: Linear } {
  const layer = new Linear(3, 2).initialize(1);
  const batch = (step: number) => {
    const x = Array.from({ length: 12 }, (_, i) => Math.sin(1 + i + 12 * step));
    const y = Array.from({ length: 8 }, (_, i) => 2 * x[i]);
    return [tensor(x, [4, 3]), tensor(y, [4, 2]), tensor(poison(step))];
  };
  const loss = (x: Tensor, y: Tensor, factor: Tensor) => mul(mse(layer.forward(x), y), factor);
  return { name: 'line', modules: { layer }, batch, loss, layer };
}

test('memory stays flat over training steps', async () => {
  await collectGarbage();
  const used: number[] = [];
  const task = line();
  await train(task, quick, { log: () => used.push(gpu.memory().live) });
  assert.is(used[5], used[19]);
  task.layer.dispose();
});

test('a schedule with a budget of time ends with the budget', () => {
  const rate = learningRate({ ...quick, steps: 1000, minutes: 1, warmupSteps: 10 });
  assert.ok(rate(5, 3) < quick.learningRate);
  assert.ok(rate(20, 1) > 0.95 * quick.learningRate);
  assert.ok(rate(20, 60) < 1e-9);
  assert.ok(rate(20, 90) < 1e-9, 'and stays there');
});

test('one step that overflows is skipped, and training goes on', async () => {
  const task = line((step) => (step === 3 ? Infinity : 1));
  const skipped: number[] = [];
  const result = await train(task, quick, { log: (l) => l.skipped && skipped.push(l.step) });
  assert.equal(skipped, [4]);
  assert.ok(Number.isFinite(result.loss));
  task.layer.dispose();
});

test('training that stays not-a-number stops, says where, and keeps the last good checkpoint', async () => {
  const store = new CheckpointFolder(join(folder, 'nan'));
  const task = line((step) => (step >= 12 ? NaN : 1));
  try {
    await train(task, quick, { store });
    assert.unreachable();
  } catch (error) {
    assert.match(
      (error as Error).message,
      /loss NaN after 8 skipped steps, at step 19\n {2}not finite: input 2 of the batch/,
    );
  }
  assert.is((await store.latest())!.step, 10);
  task.layer.dispose();
});

test('a run that is stopped and resumed ends with the same bits', async () => {
  const whole = line(),
    halves = line();
  await train(whole, quick);
  const store = new CheckpointFolder(join(folder, 'halves'));
  const stop = new AbortController();
  const first = await train(halves, quick, { store, signal: stop.signal, log: (l) => l.step === 7 && stop.abort() });
  assert.is(first.finished, false);
  assert.is((await store.latest())!.step, 7);
  halves.layer.initialize(99); // as if the process had ended
  await train(halves, quick, { store });
  assert.equal([...(await halves.layer.weight.read())], [...(await whole.layer.weight.read())]);
  whole.layer.dispose();
  halves.layer.dispose();
});

const whole = join(folder, 'whole');
const model = join(whole, 'model');
const recipe = () => Object.assign(preset('tiny'));

test('the tiny recipe runs through all stages and leaves a model that samples', async () => {
  const said: string[] = [];
  await runRecipe(whole, recipe(), { say: (words) => said.push(words) });
  assert.ok(said.some((words) => words.startsWith('evaluate: reflow makes')));
  for (const part of ['unet', 'unet_teacher', 'unet_reflow', 'vae', 'text_encoder', 'tokenizer', 'scheduler']) {
    assert.ok(existsSync(join(model, part)), part);
  }
  await collectGarbage();
  const before = gpu.memory().arrays;
  const pipeline = await openModelFolder(model, { networks: ['unet', 'unet_teacher'] });
  const options = { prompts: ['red heart', 'a very very very long prompt that does not fit'], seeds: [7, 8] };
  const once = await pipeline.sample(options);
  const again = await pipeline.sample({ ...options, batchSize: 1 });
  assert.is(once.evaluations, 1);
  assert.is(once.images.length, 2 * 16 * 16 * 3);
  assert.equal(once.warnings.length, 1);
  const apart = Math.max(...once.images.map((x, i) => Math.abs(x - again.images[i])));
  assert.ok(apart < 1e-4, `images made together and alone differ by ${apart}`);
  const teacher = await pipeline.sample({ ...options, which: 'unet_teacher' });
  assert.is(teacher.steps, recipe().evaluate.steps);
  pipeline.dispose();
  assert.is(gpu.memory().arrays, before, 'a disposed pipeline leaves nothing');
});

test('finished stages are not run again', async () => {
  const said: string[] = [];
  await runRecipe(whole, recipe(), { say: (words) => said.push(words) });
  assert.is(said.filter((words) => words.endsWith('done before')).length, 7);
});

test('a lost shard of pairs is made again, byte for byte; pairs of another teacher are refused', async () => {
  const again = join(folder, 'again');
  cpSync(whole, again, { recursive: true });
  const shard = join('pairs', 'pairs-000000.tar');
  rmSync(join(again, shard));
  rmSync(join(again, 'pairs', 'done.json'));
  await runRecipe(again, recipe(), { worker: { index: 0, count: 2 } }, 'pairs');
  assert.ok(readFileSync(join(again, shard)).equals(readFileSync(join(whole, shard))));
  const weights = (part: string) => join(again, 'model', part, 'diffusion_pytorch_model.safetensors');
  cpSync(weights('unet'), weights('unet_teacher'));
  rmSync(join(again, 'reflow', 'done.json'));
  try {
    await runRecipe(again, recipe(), {}, 'reflow');
    assert.unreachable();
  } catch (error) {
    assert.match((error as Error).message, /pairs-000000\.tar: is from another teacher\n {2}made by .*\n {2}wanted/);
  }
});

test('a recipe that is stopped in a stage and run again makes the same files, byte for byte', async () => {
  const parts = join(folder, 'parts');
  const stop = new AbortController();
  try {
    await runRecipe(parts, recipe(), {
      signal: stop.signal,
      progress: ({ task, step }) => task === 'teacher' && step === 5 && stop.abort(),
    });
    assert.unreachable();
  } catch (error) {
    assert.instance(error, Interrupted);
  }
  const said: string[] = [];
  await runRecipe(parts, recipe(), { say: (words) => said.push(words), resumeFrom: 'checkpoint-4' });
  assert.ok(said.includes('teacher: going on from step 4'));
  for (const part of ['vae', 'unet_teacher', 'unet_reflow', 'unet']) {
    const file = join('model', part, 'diffusion_pytorch_model.safetensors');
    assert.ok(readFileSync(join(parts, file)).equals(readFileSync(join(whole, file))), part);
  }
});

test('a run that begins with the teacher of a model reflows and distils it to the same files, byte for byte', async () => {
  const begun = join(folder, 'begun');
  const said: string[] = [];
  await runRecipe(begun, recipe(), { pretrained: model, say: (words) => said.push(words) });
  assert.ok(said.includes(`tokenizer, vae, teacher: taken from ${model}`), said.join('\n'));
  for (const part of ['unet_teacher', 'unet_reflow', 'unet']) {
    const file = join('model', part, 'diffusion_pytorch_model.safetensors');
    assert.ok(readFileSync(join(begun, file)).equals(readFileSync(join(whole, file))), part);
  }
});

test('with a rank, reflow and distillation train LoRAs: merged in the model, and as files that sampling takes', async () => {
  const begun = join(folder, 'lora');
  const given = recipe();
  for (const stage of [given.reflow, given.distill])
    Object.assign(stage.train, { rank: 2, mixedPrecision: 'fp16', learningRate: 2e-2 });
  given.reflow.train.rank = 3;
  await runRecipe(begun, given, { pretrained: model });
  const weights = async (network: 'unet_teacher' | 'unet_reflow') => {
    const { tensors } = await readTensors(join(begun, 'model', network, 'diffusion_pytorch_model.safetensors'));
    return tensors;
  };
  const [before, after] = [await weights('unet_teacher'), await weights('unet_reflow')];
  const changed = Object.keys(before).filter((key) => after[key].data.some((x, i) => x !== before[key].data[i]));
  assert.ok(changed.length > 0 && changed.every((key) => /\.to_(q|k|v|out\.0)\.weight$/.test(key)), changed.join('\n'));
  const file = join(begun, 'reflow', 'pytorch_lora_weights.safetensors');
  const unet = new UNet2DConditionModel({ ...given.unet }).initialize(1);
  const { tensors, metadata } = await readTensors(file);
  const { lora } = readLora(tensors, { unet }, { metadata, name: file });
  assert.equal([...lora.layers.keys()].map((key) => `${key.slice('unet.'.length)}.weight`).sort(), changed.sort());
  assert.is([...lora.layers.values()][0].rank, 3);
  for (const module of [lora, unet]) module.dispose();
});

test('noise of training: an offset lifts whole channels, a perturbation is in what is seen alone', () => {
  const [size, shape] = [4 * 16 * 16 * 4, [16, 16, 4] as const];
  const noise = (options = {}) => trainingNoise(1, 'noise', 3, 4, shape, options);
  const plain = noise();
  assert.is(plain.x0, plain.seen);
  assert.equal(plain.x0, normal(1, 'noise', size, 3 * size));
  const offset = noise({ noiseOffset: 0.5 });
  const lift = offset.x0.map((x, i) => x - plain.x0[i]);
  const lifts = new Set<string>();
  lift.forEach((x, i) => {
    assert.ok(Math.abs(x - lift[Math.floor(i / 1024) * 1024 + (i % 4)]) < 1e-6);
    lifts.add(x.toFixed(4));
  });
  assert.ok(lifts.size >= 12 && lifts.size <= 32, `${lifts.size} lifts of 16 channels`);
  const { x0, seen } = noise({ inputPerturbation: 0.1 });
  assert.equal(x0, plain.x0);
  const more = seen.reduce((sum, x, i) => sum + (x - x0[i]) ** 2, 0) / size;
  assert.ok(Math.abs(Math.sqrt(more) - 0.1) < 0.005, `deviation ${Math.sqrt(more)}`);
});

test('a run cannot begin with a model that has no teacher, or whose images have another size', async () => {
  const bare = join(folder, 'bare');
  cpSync(model, bare, { recursive: true });
  rmSync(join(bare, 'unet_teacher'), { recursive: true });
  const refuse = async (pretrained: string, other: ReturnType<typeof recipe>, words: RegExp) => {
    try {
      await runRecipe(join(folder, 'refused'), other, { pretrained });
      assert.unreachable();
    } catch (error) {
      assert.match((error as Error).message, words);
    }
  };
  await refuse(bare, recipe(), /no teacher to begin with\n {2}missing: unet_teacher/);
  const larger = recipe();
  larger.data.resolution = 32;
  await refuse(model, larger, /trained for 16 × 16 pixels, the data has 32 × 32/);
});

test('a model that is incomplete, cut short or damaged says which file', async () => {
  const cases: [string, (copy: string) => void, RegExp][] = [
    ['no folder', (copy) => rmSync(copy, { recursive: true }), /no such folder/],
    ['no vae', (copy) => rmSync(join(copy, 'vae'), { recursive: true }), /missing: vae/],
    [
      'cut short',
      (copy) => truncateSync(join(copy, 'unet/diffusion_pytorch_model.safetensors'), 9000),
      /unet.*\n?.*(truncated|ends)/,
    ],
    [
      'not safetensors',
      (copy) => writeFileSync(join(copy, 'vae/diffusion_pytorch_model.safetensors'), 'hello, this is no model'),
      /vae.*not a safetensors/,
    ],
    ['not JSON', (copy) => writeFileSync(join(copy, 'unet/config.json'), '{'), /config\.json: not JSON/],
    [
      'other weights',
      (copy) =>
        cpSync(
          join(copy, 'vae/diffusion_pytorch_model.safetensors'),
          join(copy, 'unet/diffusion_pytorch_model.safetensors'),
        ),
      /another configuration/,
    ],
  ];
  for (const [name, damage, message] of cases) {
    const copy = join(folder, 'damaged');
    rmSync(copy, { recursive: true, force: true });
    cpSync(model, copy, { recursive: true });
    damage(copy);
    try {
      await openModelFolder(copy);
      assert.unreachable(name);
    } catch (error) {
      assert.match((error as Error).message, message, name);
    }
  }
});

const cli = (...args: string[]) => spawnSync(process.execPath, ['cli.js', ...args], { encoding: 'utf8' });

test('the sample command writes PNGs with their parameters, and a grid', () => {
  const out = join(folder, 'out');
  const { status, stdout, stderr } = cli(
    'sample',
    'red heart',
    '--model',
    model,
    '--num',
    '3',
    '--seed',
    '7',
    '--out',
    out,
    '--grid',
  );
  assert.is(status, 0, stderr);
  assert.equal(readdirSync(out).sort(), [
    'red-heart-7.png',
    'red-heart-8.png',
    'red-heart-9.png',
    'red-heart-grid.png',
  ]);
  assert.match(
    readFileSync(join(out, 'red-heart-8.png')).toString('latin1'),
    /red heart\nSteps: 1, Sampler: RectifiedFlow euler, CFG scale: 1, Seed: 8, Size: 16x16/,
  );
  assert.match(stdout, /3 images, 1 step.*text .* s, U-Net .* s, decoder .* s/);
});

test('the sample command refuses an empty prompt and a missing model, with exit status 1 or 2', () => {
  const empty = cli('sample', ' ', '--model', model);
  assert.ok(empty.status === 1 || empty.status === 2);
  assert.match(empty.stderr, /empty/);
  const missing = cli('sample', 'red heart', '--model', join(folder, 'nowhere'));
  assert.is(missing.status, 1);
  assert.match(missing.stderr, /no such folder/);
});

test('Ctrl-C saves, says how to go on, and exits with 130', async () => {
  const out = join(folder, 'interrupted');
  const child = spawn(process.execPath, [
    'cli.js',
    'train',
    '--preset',
    'tiny',
    '--output_dir',
    out,
    '--max_train_steps',
    '5000',
    '--picture_minutes',
    '0',
  ]);
  let output = '';
  child.stdout.on('data', (data) => (output += data));
  child.stderr.on('data', (data) => (output += data));
  const log = join(out, 'vae', 'log.jsonl');
  const begun = () => existsSync(log) && readFileSync(log, 'utf8').split('\n').length > 3;
  const exit = new Promise<number | null>((resolve) => child.on('close', resolve));
  const running = { now: true };
  void exit.then(() => (running.now = false));
  while (running.now && !begun()) await new Promise((resolve) => setTimeout(resolve, 50));
  child.kill('SIGINT');
  assert.is(await exit, 130, output);
  assert.match(output, /to go on: rectiflow train --output_dir/);
  const checkpoints = readdirSync(join(out, 'vae')).filter((name) => name.startsWith('checkpoint-'));
  assert.ok(checkpoints.length >= 1);
});

const disk = join(folder, 'disk');
mkdirSync(disk);
const mounted =
  process.platform === 'linux' && spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=160k', 'tmpfs', disk]).status === 0;
if (mounted) {
  test('a full disk ends training with the reason and leaves no half file', async () => {
    try {
      await runRecipe(join(disk, 'run'), recipe());
      assert.unreachable();
    } catch (error) {
      assert.match((error as Error).message, /disk is full/);
    }
    const left = readdirSync(disk, { recursive: true }).map(String);
    assert.equal(
      left.filter((name) => name.endsWith('.part')),
      [],
    );
  });
} else {
  skip(test, 'a full disk ends training with the reason and leaves no half file', 'mounting a small tmpfs needs root');
}

test.run();
