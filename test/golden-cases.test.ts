import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { runCommand } from '../src/cli/command.ts';
import command from '../src/cli/commands/verify.ts';
import { Golden } from '../src/cli/verify/golden.ts';
import type { Result } from '../src/cli/verify/report.ts';
import { verify } from '../src/cli/verify/verify.ts';
import { skip } from './skip.ts';

const test = suite('golden cases');
const folder = await mkdtemp(join(tmpdir(), 'rectiflow-golden-'));
test.after(() => rm(folder, { recursive: true }));

const rejects = async (promise: Promise<unknown>, message: RegExp) => {
  const error = await promise.then(
    () => undefined,
    (e) => e as Error,
  );
  assert.match(error?.message ?? 'no error', message);
};
const failed = (results: Result[]) =>
  results
    .filter(({ status }) => status === 'failed')
    .map(({ id, reason, worst }) => `${id} ${reason ?? `${worst!.name} ${worst!.error}`}`);

test('a folder that is no golden data, or of another format, is refused', async () => {
  await rejects(Golden.open(join(folder, 'none')), /not a folder of golden data\n.*MANIFEST\.json: no such file/);
  await writeFile(join(folder, 'MANIFEST.json'), '{');
  await rejects(Golden.open(folder), /MANIFEST\.json is not JSON/);
  await writeFile(join(folder, 'MANIFEST.json'), '{"format":"oracle-2","rule":"u32-v1","cases":[]}');
  await rejects(Golden.open(folder), /format oracle-2/);
});

test('a rule that gives other numbers is noticed', async () => {
  await writeFile(join(folder, 'MANIFEST.json'), '{"format":"oracle-1","rule":"u32-v1","cases":[]}');
  const vector = { seed: 's', name: 'x.bias', shape: [2], gain: 1, hash: 1, index: [0], u: [0], values: [0] };
  await writeFile(join(folder, 'rule_vectors.json'), JSON.stringify({ vectors: [vector] }));
  await rejects(Golden.open(folder), /the hash of x\.bias differs/);
});

const golden = await Golden.open('test/data/golden');
for (const group of [
  'frechet',
  'optim',
  'op',
  'train',
  'lpips',
  'sched',
  'pipe',
  'unet',
  'vae',
  'clip',
  'keys',
  'full',
]) {
  test(`PyTorch's numbers: ${group}`, async () => {
    const { results } = await verify(
      golden,
      golden.cases.filter((c) => c.group === group),
    );
    assert.equal(failed(results), []);
    const skipped = results.filter(({ status }) => status === 'skipped').map(({ id, reason }) => `${id}: ${reason}`);
    assert.equal(skipped, []);
  });
}

test('in half precision the text encoder is as far from PyTorch as rounding its weights takes it, times three', async () => {
  const cases = golden.cases.filter(({ id }) => ['full/clip_l', 'unet/sd_2level'].includes(id));
  const { results } = await verify(golden, cases, undefined, 'f16');
  assert.equal(failed(results), []);
  const [unet, clip] = results;
  assert.equal([unet.status, unet.reason], ['skipped', 'only group full is compared in f16']);
  assert.is(clip.worst!.tolerance < 0.02 && clip.worst!.error > 1e-5, true, `${clip.worst!.error}`);
  assert.ok(clip.peakBytes > 2 * 123_060_480 && clip.peakBytes < 4 * 123_060_480, `${clip.peakBytes} bytes`);
});

/** Run the command as from the shell; uvu looks at the exit code too, so it is put back. */
async function run(...words: string[]): Promise<{ lines: string[]; status: number | string | undefined }> {
  const lines: string[] = [],
    { log } = console,
    before = process.exitCode;
  console.log = (line: string) => lines.push(line);
  process.exitCode = 0;
  try {
    await runCommand(command, words);
    return { lines, status: process.exitCode };
  } finally {
    console.log = log;
    process.exitCode = before;
  }
}

test('the command prints a line per group, ends with the counts, and fails when a case does', async () => {
  const good = await run('test/data/golden', '--group', 'frechet');
  assert.match(good.lines[0], /^frechet\s+1 passed\s+0 failed\s+0 skipped\s+worst .*\(frechet\/d4 /);
  assert.equal([good.lines.at(-1), good.status], ['1 passed, 0 failed, 0 skipped', 0]);

  await cp('test/data/golden', folder, { recursive: true });
  const manifest = await readFile(join(folder, 'MANIFEST.json'), 'utf8');
  await writeFile(
    join(folder, 'MANIFEST.json'),
    manifest.replace('"distance":3.83', '"distance":3.84').replace('"group":"optim"', '"group":"unheard-of"'),
  );
  const json = join(folder, 'out.json');
  const bad = await run(folder, '--filter', 'frechet|optim/adamw', '--json', json);
  assert.ok(
    bad.lines.some((line) => /^failed: frechet\/d4 distance: relative error .* > 1\.0e-4/.test(line)),
    bad.lines.join('\n'),
  );
  assert.ok(bad.lines.includes('skipped: 1 × no runner for group unheard-of yet'));
  assert.equal([bad.lines.at(-1), bad.status], ['0 passed, 1 failed, 1 skipped', 1]);
  assert.equal(JSON.parse(await readFile(json, 'utf8')).failed, 1);
});

test('a group or a filter that means nothing is said so', async () => {
  await rejects(
    run('test/data/golden', '--group', 'ops'),
    /no group ops in this folder; there are op, optim, frechet, lpips, train, sched/,
  );
  await rejects(run('test/data/golden', '--filter', '('), /not a regular expression/);
  await rejects(run('test/data/golden', '--filter', 'xyz'), /no case matches/);
});

const all = process.env.RECTIFLOW_GOLDEN;
if (!all) skip(test, 'a whole folder of golden data', 'RECTIFLOW_GOLDEN names none');
else {
  test('a whole folder of golden data', async () => {
    const whole = await Golden.open(all);
    const { results } = await verify(
      whole,
      whole.cases.filter(({ group }) => !['keys', 'full'].includes(group)),
    );
    assert.equal(failed(results), []);
  });
}

test.run();
