import { spawnSync } from 'node:child_process';
import {
  chmodSync,
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
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { train } from '../src/flow/trainer.ts';
import { Linear } from '../src/nn/index.ts';
import { keepGoing } from '../src/cli/keep-going.ts';
import { withAdvice } from '../src/flow/recipe/memory-advice.ts';
import { DeviceLostError, OutOfMemoryError } from '../src/kernels/index.ts';
import type { Gpu } from '../src/kernels/index.ts';
import { currentGpu, init, mse, mul, tensor } from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { CheckpointFolder } from '../src/flow/recipe/checkpoints.ts';
import { preset } from '../src/flow/recipe/recipe.ts';
import type { Recipe } from '../src/flow/recipe/recipe.ts';
import { Interrupted, runRecipe } from '../src/flow/recipe/stages.ts';
import type { RunHooks } from '../src/flow/recipe/run.ts';
import { readTensors } from '../src/tensor/io/files-node.ts';
import { LockedError } from '../src/tensor/io/lock-node.ts';
import { skip } from './skip.ts';

const test = suite('resume');
await init();
const folder = mkdtempSync(join(tmpdir(), 'rectiflow-'));
test.after(() => {
  rmSync(folder, { recursive: true, force: true });
  currentGpu().destroy();
});

/** Tokenizer and VAE trained, and a teacher to train: the U-Net and text encoder together, with all that has a state. */
const recipe = (): Recipe => {
  const tiny = preset('tiny');
  Object.assign(tiny.teacher.train, {
    steps: 300,
    batchSize: 2,
    mixedPrecision: 'fp16',
    emaDecay: 0.99,
    emaWarmup: { invGamma: 1, power: 0.75 },
    checkpointingSteps: 50,
  });
  return tiny;
};
const begun = join(folder, 'begun');
const begin = async (name: string) => {
  if (!existsSync(begun))
    for (const stage of ['tokenizer', 'vae'] as const) await runRecipe(begun, recipe(), {}, stage);
  const run = join(folder, name);
  cpSync(begun, run, { recursive: true });
  return run;
};

/** Train the teacher until `last` is done. */
async function teach(run: string, last: number, given = recipe(), hooks: RunHooks = {}): Promise<string[]> {
  const stop = new AbortController();
  const said: string[] = [];
  try {
    await runRecipe(
      run,
      given,
      {
        say: (line) => said.push(line),
        signal: stop.signal,
        progress: ({ step }) => step === last && stop.abort(),
        ...hooks,
      },
      'teacher',
    );
  } catch (error) {
    if (!(error instanceof Interrupted)) throw error;
  }
  return said;
}

const checkpoints = (run: string) =>
  readdirSync(join(run, 'teacher'))
    .filter((name) => name.includes('checkpoint-'))
    .sort();

test('200 steps are 100 steps, stopped, and 100 more: weights, optimiser, averages, loss scale, every bit', async () => {
  const [whole, parts] = [await begin('whole'), await begin('parts')];
  const start = performance.now();
  await teach(whole, 200);
  console.log(`200 steps in ${((performance.now() - start) / 1000).toFixed(1)} s`);
  await teach(parts, 100);
  assert.equal(checkpoints(parts), ['checkpoint-100', 'checkpoint-50']);
  const said = await teach(parts, 200);
  assert.ok(said.includes('teacher: going on from step 100'), said.join('\n'));
  const state = (run: string) => readTensors(join(run, 'teacher/checkpoint-200/state.safetensors'));
  const [want, got] = [await state(whole), await state(parts)];
  const kinds = new Set(Object.keys(want.tensors).map((key) => key.split('.')[0]));
  assert.equal([...kinds].sort(), ['ema', 'model', 'optimizer']);
  assert.equal(Object.keys(got.tensors), Object.keys(want.tensors));
  const bits = (data: Float32Array) => Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  for (const [key, { data }] of Object.entries(want.tensors))
    assert.ok(bits(got.tensors[key].data).equals(bits(data)), key);
  for (const key of ['step', 'loss_scale', 'good_steps', 'ema_steps'])
    assert.is(got.metadata[key], want.metadata[key], key);
  assert.is(want.metadata.ema_steps, '200');
  const losses = (run: string) =>
    readFileSync(join(run, 'teacher/log.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).loss);
  assert.is(losses(parts).length, 200);
  assert.equal(losses(parts), losses(whole));
});
test('a checkpoint that is cut short is passed over for the one before, and half a one is removed', async () => {
  const run = join(folder, 'parts');
  const stage = join(run, 'teacher');
  truncateSync(join(stage, 'checkpoint-200/state.safetensors'), 5000);
  mkdirSync(join(stage, 'checkpoint-250.part'));
  const said = await teach(run, 151);
  assert.ok(
    said.some((line) => /checkpoint-200.state\.safetensors.*\n {2}going on from checkpoint-150/.test(line)),
    said.join('\n'),
  );
  assert.ok(said.includes('teacher: going on from step 150'));
  assert.equal(checkpoints(run), ['checkpoint-150', 'checkpoint-151', 'old-checkpoint-200']);
});

test('going on from an earlier checkpoint sets later ones aside, so that new ones are the latest and are kept', async () => {
  const run = join(folder, 'whole');
  assert.equal(checkpoints(run), ['checkpoint-150', 'checkpoint-200']);
  await teach(run, 152, recipe(), { resumeFrom: 'checkpoint-150' });
  assert.equal(checkpoints(run), ['checkpoint-150', 'checkpoint-152', 'old-checkpoint-200']);
  await teach(run, 3, recipe(), { resumeFrom: 'none' });
  assert.equal(checkpoints(run), ['checkpoint-3', 'old-checkpoint-150', 'old-checkpoint-152', 'old-checkpoint-200']);
  const said = await teach(run, 4);
  assert.ok(said.includes('teacher: going on from step 3'), said.join('\n'));
  try {
    await teach(run, 5, recipe(), { resumeFrom: 'checkpoint-77' });
    assert.unreachable();
  } catch (error) {
    assert.match((error as Error).message, /no checkpoint-77 in .*\n {2}there is: checkpoint-3, checkpoint-4/);
  }
});

test('other hyper-parameters are named with old and new value, and refused without --force', async () => {
  const run = join(folder, 'whole');
  const other = recipe();
  Object.assign(other.teacher.train, { learningRate: 5e-4, checkpointingSteps: 7, rank: undefined });
  Object.assign(other.reflow.train, { learningRate: 1e-5 }); // not begun: free to change
  other.seed = 8;
  try {
    await teach(run, 6, other);
    assert.unreachable();
  } catch (error) {
    assert.match(
      (error as Error).message,
      /whole was begun with other hyper-parameters\n {2}seed +7 → 8\n {2}teacher\.train\.learningRate {2}0\.001 → 0\.0005\n {2}leave them .* --force/,
    );
  }
  assert.is(JSON.parse(readFileSync(join(run, 'recipe.json'), 'utf8')).seed, 7);
  const said = await teach(run, 6, other, { force: true });
  assert.match(said.join('\n'), /teacher\.train\.learningRate {2}0\.001 → 0\.0005\n {2}going on with the new ones/);
  assert.ok(said.includes('teacher: going on from step 4'));
  assert.not.match((await teach(run, 7, other)).join('\n'), /hyper-parameters/);
});

test('a checkpoint of other networks is refused', async () => {
  const run = join(folder, 'whole');
  const other = recipe();
  other.unet.block_out_channels = [8, 24];
  try {
    await teach(run, 9, other, { force: true });
    assert.unreachable();
  } catch (error) {
    assert.match(
      (error as Error).message,
      /the checkpoint does not fit the model: unet\..*\n {2}train in another --output_dir/,
    );
  }
});

test('a device that is lost is opened again, and the stage goes on; the third time is said with what to change', async () => {
  const run = await begin('lost');
  const given = recipe();
  given.teacher.train.steps = 12;
  given.teacher.train.checkpointingSteps = 4;
  const said: string[] = [];
  const steps: number[] = [];
  const opened: Gpu[] = [];
  const work = (losses: number[]) => () =>
    runRecipe(
      run,
      given,
      {
        say: (line) => said.push(line),
        progress: ({ step }) => {
          steps.push(step);
          if (steps.length !== losses[0]) return;
          losses.shift();
          currentGpu().device.destroy();
        },
      },
      'teacher',
    );
  const reopen = async () => opened.push(await init());
  const say = (line: string) => said.push(line);
  await keepGoing(work([6, 9]), reopen, say);
  assert.equal(steps, [1, 2, 3, 4, 5, 6, 5, 6, 7, 5, 6, 7, 8, 9, 10, 11, 12]);
  assert.is(opened.length, 2);
  assert.match(
    said.join('\n'),
    /lost \(destroyed\): opening another .* from the last checkpoint\n[^]*--gradient_checkpointing /,
  );
  const unlucky = await begin('unlucky');
  steps.length = 0;
  try {
    await keepGoing(
      () => runRecipe(unlucky, given, { progress: () => currentGpu().device.destroy() }, 'teacher'),
      reopen,
      say,
    );
    assert.unreachable();
  } catch (error) {
    assert.instance(error, DeviceLostError);
    assert.match((error as Error).message, /--train_batch_size 1 --gradient_accumulation_steps 2 --force/);
  }
  await reopen();
});

test('out of memory says which flags make a step smaller', () => {
  const options = { ...recipe().teacher.train, batchSize: 8, accumulationSteps: 2 };
  const error = withAdvice(new OutOfMemoryError('64 MiB more could not be had'), 'reflow', options) as Error;
  assert.is(
    error.message,
    [
      'reflow: 64 MiB more could not be had',
      '  less memory for a step, from the last checkpoint on:',
      '    --gradient_checkpointing                                      the same bits, a third more time',
      '    --train_batch_size 4 --gradient_accumulation_steps 4 --force  half the activations, the same samples in a step',
    ].join('\n'),
  );
  const least = { ...options, batchSize: 1, gradientCheckpointing: true };
  assert.is((withAdvice(new OutOfMemoryError('no'), 'reflow', least) as Error).message, 'reflow: no');
});

test('two trainers on one folder: the second is told of the first; what a dead one left is taken over, and said', async () => {
  const run = await begin('locked');
  const file = join(run, 'train.lock');
  const held = { pid: process.ppid, host: hostname(), token: 'x' };
  writeFileSync(file, JSON.stringify(held));
  try {
    await teach(run, 1);
    assert.unreachable();
  } catch (error) {
    assert.instance(error, LockedError);
    assert.match(
      (error as Error).message,
      /locked: process \d+ on .* is training here\n {2}wait, or .* delete .*train\.lock/,
    );
  }
  const { pid } = spawnSync(process.execPath, ['-e', '']);
  for (const dead of [pid, process.pid]) {
    writeFileSync(file, JSON.stringify({ ...held, pid: dead }));
    const said = await teach(run, 1);
    assert.match(said.join('\n'), new RegExp(`taken over from process ${dead} on .*, which is gone`));
    assert.not.ok(existsSync(file), 'and given back');
  }
  const both = await Promise.allSettled([teach(run, 2), teach(run, 2)]);
  assert.equal(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
});

const sealed = join(folder, 'sealed');
mkdirSync(sealed);
const isRoot = process.getuid?.() === 0;
const mounted = isRoot && spawnSync('mount', ['-t', 'tmpfs', '-o', 'ro,size=64k', 'tmpfs', sealed]).status === 0;
const name = 'a folder that may not be written is named, with the reason';
if (isRoot ? mounted : process.platform !== 'win32') {
  test(name, async () => {
    if (!isRoot) chmodSync(sealed, 0o500);
    try {
      await runRecipe(join(sealed, 'run'), recipe());
      assert.unreachable();
    } catch (error) {
      assert.match(
        (error as Error).message,
        /^cannot write .*run: (the disk is read-only|permission denied)\n {2}give another --output_dir/,
      );
    } finally {
      if (mounted) spawnSync('umount', [sealed]);
      else chmodSync(sealed, 0o700);
    }
  });
} else skip(test, name, 'root writes anywhere, and mounting a read-only tmpfs is not allowed here');

test('asked to stop right after a skipped step, training saves what it has', async () => {
  const store = new CheckpointFolder(join(folder, 'skipped'));
  const layer = new Linear(2, 2).initialize(1);
  const stop = new AbortController();
  const batch = (n: number) => [tensor([1, 2], [1, 2]), tensor(n === 4 ? Infinity : 1)];
  const loss = (x: Tensor, factor: Tensor) => mul(mse(layer.forward(x), x), factor);
  const options = { ...recipe().teacher.train, mixedPrecision: 'no' as const };
  await train({ name: 'line', modules: { layer }, batch, loss }, options, {
    store,
    signal: stop.signal,
    log: (line) => line.skipped && stop.abort(),
  });
  assert.is((await store.latest())!.step, 5);
  layer.dispose();
});

test.run();
