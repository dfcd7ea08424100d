import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { filesIn, stallAfter } from './hub-fixture.ts';
import { HubServer } from './hub-server.ts';

const UNET = 'unet/diffusion_pytorch_model.safetensors';
const folder = mkdtempSync(join(tmpdir(), 'rectiflow-hub-cli-'));
const server = await HubServer.start();
for (const file of filesIn('models/emoji')) server.put(file, readFileSync(join('models/emoji', file)));

/** `node cli …` with the hub of this test and an empty HF_HOME. */
function start(argv: string[], env: Record<string, string> = {}) {
  const child = spawn(process.execPath, ['cli', ...argv], {
    env: { ...process.env, HF_HOME: join(folder, 'home'), HF_ENDPOINT: server.endpoint, RECTIFLOW_DEBUG: '', ...env },
  });
  let stdout = '',
    stderr = '';
  child.stdout.on('data', (data) => (stdout += data));
  child.stderr.on('data', (data) => (stderr += data));
  const ended = new Promise<{ status: number | null; stdout: string; stderr: string }>((resolve) =>
    child.on('close', (status) => resolve({ status, stdout, stderr: stderr.replace('building…\n', '') })),
  );
  return { child, ended };
}

const test = suite('hub commands');
test.after(() => {
  server.stop();
  rmSync(folder, { recursive: true, force: true });
});

test('sample without the model and without a network says how to get it', async () => {
  const { status, stderr } = await start(['sample', 'red apple', '--model', 'owner/name'], { HF_HUB_OFFLINE: '1' })
    .ended;
  assert.is(status, 1);
  assert.match(stderr, /^owner\/name: not in the cache whole .*HF_HUB_OFFLINE.*\n.*\n.*rectiflow download owner\/name/);
});

test('Ctrl-C ends a download with 130, and the same command goes on', async () => {
  server.faults.push([`files/bytes/${UNET}`, stallAfter(server, UNET, 3_000_000)]);
  const { child, ended } = start(['download', 'owner/name']);
  const blobs = join(folder, 'home', 'hub', 'models--owner--name', 'blobs');
  const came = () =>
    filesIn(blobs).some(
      (name) => name.startsWith(server.files.get(UNET)!.etag) && statSync(join(blobs, name)).size === 3_000_000,
    );
  while (!came()) await new Promise((resolve) => setTimeout(resolve, 20));
  child.kill('SIGINT');
  const { status, stdout, stderr } = await ended;
  assert.is(status, 130, stderr);
  assert.is(stdout, '');
  assert.match(stderr, /stopped; the same command goes on from there\n$/);
  server.seen.length = 0;
  const again = await start(['download', 'owner/name']).ended;
  assert.is(again.status, 0, again.stderr);
  assert.match(again.stderr, /downloading 100 % {2}[\d.]+ MB of [\d.]+ MB {2}[\d.]+ \w+\/s {2}0:00 left\n$/);
  assert.match(server.seen.find(({ url }) => url === `/bytes/${UNET}`)!.range!, /^bytes=3000000-$/);
  const model = again.stdout.trim();
  assert.ok(readFileSync(join(model, UNET)).equals(server.files.get(UNET)!.bytes));
  assert.not.ok(readdirSync(model).includes('sheet.png'));
});

test('sample --model owner/name draws what the folder draws, and asks nobody', async () => {
  server.seen.length = 0;
  const out = (name: string) => join(folder, name);
  const args = ['sample', 'red apple', '--seed', '3', '--out'];
  const hub = await start([...args, out('hub'), '--model', 'owner/name']).ended;
  assert.is(hub.status, 0, hub.stderr);
  assert.equal(server.seen, []);
  const local = await start([...args, out('local'), '--model', realpathSync('models/emoji')]).ended;
  assert.is(local.status, 0, local.stderr);
  const [ours, theirs] = ['hub', 'local'].map((name) => readFileSync(join(out(name), 'red-apple-3.png')));
  assert.match(ours.toString('latin1'), /Model: name\/unet/);
  assert.match(theirs.toString('latin1'), /Model: emoji\/unet/);
  const { default: sharp } = await import('sharp');
  assert.ok((await sharp(ours).raw().toBuffer()).equals(await sharp(theirs).raw().toBuffer()));
});

test('a model that is not there is told apart from a path', async () => {
  const { status, stderr } = await start(['download', 'owner/nmae']).ended;
  assert.is(status, 1);
  assert.match(
    stderr,
    /^owner\/nmae: not found \(404 from .*\)\n {2}is it spelt right\? .*\n {2}\(and there is no folder or file owner\/nmae here\)\n$/,
  );
});

test.run();
