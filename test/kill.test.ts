import { spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readTensors } from '../src/tensor/io/files-node.ts';

/** How often the trainer is killed: 50 times for a release. */
const KILLS = Number(process.env.RECTIFLOW_KILLS) || 10;
const EVERY = 5;
const STEPS = Math.max(12, KILLS);

const test = suite('kill -9');
const folder = mkdtempSync(join(tmpdir(), 'rectiflow-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

const stages = ['vae', 'teacher', 'reflow', 'distill'];
const command = (out: string) => [
  ...['cli.js', 'train', '--preset', 'tiny', '--output_dir', out, '--picture_minutes', '0'],
  ...['--max_train_steps', String(STEPS), '--checkpointing_steps', String(EVERY)],
];

const sleep = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const isRunning = ({ exitCode, signalCode }: ChildProcess) => exitCode === null && signalCode === null;

const steps = (names: string[]) =>
  names.flatMap((name) => (/^checkpoint-\d+$/.test(name) ? [Number(name.slice('checkpoint-'.length))] : []));

/** The step that a stage logged last, and those of its checkpoints. Every checkpoint must be whole. */
async function inspect(out: string, stage: string) {
  const path = join(out, stage);
  const names = existsSync(path) ? readdirSync(path) : [];
  const kept = steps(names).sort((a, b) => a - b);
  for (const step of kept) {
    const { tensors, metadata } = await readTensors(join(path, `checkpoint-${step}`, 'state.safetensors'));
    assert.is(metadata.step, String(step));
    assert.ok(Object.keys(tensors).length > 50);
  }
  const lines = names.includes('log.jsonl') ? readFileSync(join(path, 'log.jsonl'), 'utf8').split('\n') : [];
  const whole = lines.filter((line) => line.endsWith('}'));
  const logged = whole.length ? (JSON.parse(whole.at(-1)!).step as number) : 0;
  return { stage, isDone: names.includes('done.json'), logged, newest: kept.at(-1) ?? 0 };
}

/** Files of the model that a run has made. */
const weights = (out: string) =>
  ['vae', 'text_encoder', 'unet_teacher', 'unet_reflow', 'unet'].map((part) => {
    const file = readdirSync(join(out, 'model', part)).find((name) => name.endsWith('.safetensors'))!;
    return [part, readFileSync(join(out, 'model', part, file))] as const;
  });

test(`${KILLS} kills at random moments lose at most the steps since the last checkpoint, corrupt none, and change no bit of the model`, async () => {
  const whole = join(folder, 'whole');
  const start = performance.now();
  const { status, stderr } = spawnSync(process.execPath, command(whole), { encoding: 'utf8' });
  assert.is(status, 0, stderr);
  const seconds = (performance.now() - start) / 1000;
  const want = weights(whole);

  const lost: number[] = [];
  let kills = 0;
  /** Start a run again and again until it is finished, killed whenever kills are left. */
  const finish = async (out: string) => {
    const done = new Set<string>();
    let before = 0;
    for (;;) {
      const child = spawn(process.execPath, command(out), { stdio: ['ignore', 'pipe', 'pipe'] });
      let output = '';
      for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += data));
      const exit = new Promise<number | null>((resolve) => child.on('close', resolve));
      if (kills < KILLS) {
        // Most of the time goes into starting up: every other kill waits until training has begun.
        if (kills % 2) while (isRunning(child) && !/\d+\/\d+ {2}loss/.test(output)) await sleep(20);
        await Promise.race([exit, sleep(Math.random() * 1000 * (seconds / 5))]);
        if (isRunning(child)) {
          child.kill('SIGKILL');
          kills++;
        }
      }
      await exit;
      let reached = 0;
      for (const { stage, isDone, logged, newest } of await Promise.all(stages.map((s) => inspect(out, s)))) {
        if (isDone) done.add(stage);
        else {
          assert.not.ok(done.has(stage), `${stage} was done, and is not any more`);
          lost.push(logged - newest);
        }
        reached += isDone ? STEPS : newest;
      }
      assert.ok(reached >= before, `was at step ${before} of all stages, is at ${reached}`);
      before = reached;
      if (child.signalCode === 'SIGKILL') continue;
      assert.is(child.exitCode, 0, output);
      for (const [i, [part, bytes]] of weights(out).entries()) assert.ok(bytes.equals(want[i][1]), part);
      return;
    }
  };
  let runs = 0;
  while (kills < KILLS) await finish(join(folder, `killed-${++runs}`));
  const worst = Math.max(...lost);
  console.log(
    `${kills} kills in ${runs} runs of ${seconds.toFixed(1)} s: at most ${worst} steps lost, checkpoints every ${EVERY}`,
  );
  assert.ok(worst <= EVERY, `${worst} steps lost`);
});

test.run();
