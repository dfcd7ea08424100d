import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { SHAPES } from '../bench/gpu/sweep.ts';
import { tableOf } from '../bench/gpu/table.ts';
import type { GpuReport } from '../bench/gpu/table.ts';

const test = suite('gpu script');
const folder = mkdtempSync(join(tmpdir(), 'rectiflow-gpu-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

const node = (cwd: string, ...words: string[]) => spawnSync(process.execPath, words, { cwd, encoding: 'utf8' });

test('packed, it runs where there is nothing but Node and webgpu', () => {
  const pack = node('.', 'bench/gpu.mjs', '--pack', folder);
  assert.is(pack.status, 0, pack.stderr);
  mkdirSync(join(folder, 'node_modules'));
  symlinkSync(resolve('node_modules/webgpu'), join(folder, 'node_modules', 'webgpu'));
  const parts = ['adapter', 'networks', 'sweep', 'training', 'gap'];
  const { status, stdout, stderr } = node(
    folder,
    ...['gpu.mjs', '--small', '--minutes', '4', '--out', 'results', ...parts.flatMap((name) => ['--only', name])],
  );
  assert.is(status, 0, stdout + stderr);
  const [json, text] = readdirSync(join(folder, 'results')).sort();
  const report = JSON.parse(readFileSync(join(folder, 'results', json), 'utf8')) as GpuReport;
  assert.equal(Object.keys(report.parts), parts);
  const { networks, sweep, training, gap } = report.parts;
  for (const name of ['text', 'unet', 'vae', 'image'])
    assert.ok(
      networks!.some((row) => row.name === name && row.dtype === 'f32' && row.warm > 0),
      name,
    );
  assert.ok(SHAPES.every(([kind]) => sweep!.some((row) => row.kind === kind && row.tflops > 0)));
  assert.ok(training!.every(({ warm, loss, error }) => !error && warm > 0 && Number.isFinite(loss)));
  assert.ok(gap!.dependent >= gap!.host && gap!.host > 0);
  assert.is(readFileSync(join(folder, 'results', text), 'utf8'), tableOf(report));
});

test('a part that cannot run is named, and the rest runs', () => {
  const words = ['--small', '--only', 'torch', '--only', 'gap', '--python', 'no-such-python', '--out', 'other'];
  const { status, stdout } = node(folder, 'gpu.mjs', ...words);
  assert.is(status, 1);
  assert.match(stdout, /torch left out: no-such-python: .*ENOENT/);
  assert.match(stdout, /a dispatch, µs/);
  assert.ok(existsSync(join(folder, 'other')));
  const wrong = node(folder, 'gpu.mjs', '--only', 'nothing');
  assert.is(wrong.status, 2);
  assert.match(wrong.stderr, /no part nothing\n {2}there are adapter, torch, variants/);
});

test('PyTorch is asked for the same shapes', () => {
  const script = readFileSync('bench/gpu/torch_baseline.py', 'utf8');
  const [, list] = /SHAPES = \[([^]*?)\n\]/.exec(script)!;
  const theirs = [...list.matchAll(/\('(\w+)', \[([\d, ]+)\]\)/g)].map(([, kind, shape]) => [
    kind,
    shape.split(', ').map(Number),
  ]);
  assert.equal(theirs, SHAPES);
});

test('the table says how far it is from PyTorch', () => {
  const time = { fastest: 1, runs: 5 };
  const text = tableOf({
    ...{ adapter: 'a GPU', processors: '1 × CPU', node: '20', commit: 'abc', small: false, leftOut: {} },
    parts: {
      torch: {
        ...{ torch: '2', device: 'a GPU', left_out: {} },
        networks: { eager: { unet: { warm: 20, ...time } }, graph: { unet: { warm: 10, ...time } } },
        shapes: [{ kind: 'gemm', shape: [4096, 4096, 4096], tflops: 600, warm: 1, ...time }],
        training: [],
      },
      networks: [{ name: 'unet', dtype: 'f16', warm: 15, ...time, host: 1, peak: 0 }],
      sweep: [{ kind: 'gemm', shape: [4096, 4096, 4096], dtype: 'f16', milliseconds: 1, tflops: 150 }],
      variants: [{ op: 'matmul', variant: 'naive', dtype: 'f32', robust: false, error: 'wrong by 1' }],
    },
  });
  assert.match(text, /unet f16 +15\.00 +1\.00 +– +10\.00 +1\.50\n/);
  assert.match(text, /gemm 4096 4096 4096 +150\.00 +– +600\.0 +25 %/);
  assert.match(text, /0 of 1 right\n {2}matmul naive f32, not robust: wrong by 1/);
});

test.run();
