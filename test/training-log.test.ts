import { appendFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { findBrowser } from '../scripts/setup/browser.mjs';
import { artist } from '../src/cli/artist.ts';
import { crc32c } from '../src/flow/recipe/event-file.ts';
import { preset } from '../src/flow/recipe/recipe.ts';
import { Run } from '../src/flow/recipe/run.ts';
import type { RunHooks } from '../src/flow/recipe/run.ts';
import type { TrainOptions, TrainTask } from '../src/flow/trainer.ts';
import { Linear } from '../src/nn/index.ts';
import { init, mse, tensor } from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { skip } from './skip.ts';

const test = suite('training logs');
const gpu = await init();
const folder = mkdtempSync(join(tmpdir(), 'rectiflow-logs-'));
test.after(() => {
  rmSync(folder, { recursive: true, force: true });
  gpu.destroy();
});

const options: TrainOptions = {
  steps: 12,
  batchSize: 4,
  learningRate: 1e-2,
  scheduler: 'cosine',
  warmupSteps: 2,
  maxGradNorm: 1,
  weightDecay: 0,
  emaDecay: 0,
  checkpointingSteps: 5,
};
const sheetSize = 8;
const picture = (at: number) => Float32Array.from({ length: sheetSize ** 2 * 3 }, (_, i) => Math.sin(i + at));

/** y = 2x, learned by one layer, as a stage of a run; draws two squares after its last step. */
async function trainLine(run: Run): Promise<void> {
  const layer = new Linear(3, 2).initialize(1);
  const batch = (step: number) => {
    const x = Array.from({ length: 12 }, (_, i) => Math.sin(1 + i + 12 * step));
    return [tensor(x, [4, 3]), tensor(Array.from({ length: 8 }, (_, i) => 2 * x[i]), [4, 2])]; // prettier-ignore
  };
  const task: TrainTask = {
    name: 'line',
    modules: { layer },
    batch,
    loss: (x: Tensor, y: Tensor) => mse(layer.forward(x), y),
  };
  try {
    await run.train('teacher', task, options);
    const rows = [{ title: 'noise', images: [picture(0), picture(1)] }];
    await run.sheet('teacher', { title: '<samples> & more', size: sheetSize, rows });
  } finally {
    layer.dispose();
  }
}

const begin = (name: string, hooks: RunHooks = {}) => new Run(join(folder, name), preset('tiny'), { artist, ...hooks });

/** The process dies at this step, after the checkpoint of step 5. */
async function trainAndDie(run: Run): Promise<void> {
  try {
    await trainLine(run);
    assert.unreachable();
  } catch (error) {
    assert.is((error as Error).message, 'killed');
  }
}
const dying = (at: number): RunHooks => ({
  progress: ({ step }) => {
    if (step === at) throw new Error('killed');
  },
});

test('crc32c has the check value of the standard', () => {
  assert.is(crc32c(Buffer.from('123456789')), 0xe3069283);
  assert.is(crc32c(new Uint8Array(32)), 0x8a9136aa); // RFC 3720, B.4
});

test('event files and JSONL hold every step once, with the same numbers, after a run that died and went on', async () => {
  await trainAndDie(begin('died', dying(8)));
  const logs = join(folder, 'died/logs/teacher');
  appendFileSync(join(logs, readdirSync(logs)[0]), Buffer.from([99, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5])); // torn
  appendFileSync(join(folder, 'died/teacher/log.jsonl'), '{"step":9,"lo');
  await trainLine(begin('died'));

  const lines = readFileSync(join(folder, 'died/teacher/log.jsonl'), 'utf8').trim().split('\n').map((line) => JSON.parse(line)); // prettier-ignore
  const every = Array.from({ length: 12 }, (_, i) => i + 1);
  assert.equal(lines.map(({ step }) => step), every); // prettier-ignore
  const files = readdirSync(logs).sort();
  assert.is(files.length, 2);
  const events = files.flatMap((file) => readEvents(join(logs, file)));
  const scalar = (tag: string) => events.filter((event) => event.tag === tag);
  for (const [tag, key] of [
    ['train_loss', 'loss'],
    ['lr', 'lr'],
    ['grad_norm', 'gradNorm'],
    ['images_per_second', 'imagesPerSecond'],
    ['memory/live', 'memoryLive'],
    ['memory/peak', 'memoryPeak'],
  ]) {
    assert.equal(scalar(tag).map(({ step }) => step), every, tag); // prettier-ignore
    assert.equal(scalar(tag).map(({ value }) => value), lines.map((line) => Math.fround(line[key])), tag); // prettier-ignore
  }
  assert.ok(lines.every(({ memoryLive, memoryPeak }) => memoryLive > 0 && memoryPeak >= memoryLive));
  const [image] = scalar('samples');
  assert.is(image.step, 12);
  assert.ok(image.png!.equals(readFileSync(join(folder, 'died/teacher/samples.png'))));
  assert.is(image.width, image.png!.readUInt32BE(16));
  const texts = scalar('recipe');
  assert.is(texts.length, 1);
  assert.match(texts[0].text!, /"checkpointingSteps": 5/);
  const walls = events.map(({ wallTime }) => wallTime);
  assert.ok(walls.every((at, i) => Math.abs(at - Date.now() / 1000) < 600 && at >= (walls[i - 1] ?? 0)));
});

test('a run that begins anew leaves nothing of the old one in its logs', async () => {
  await trainAndDie(begin('anew', dying(7)));
  await trainAndDie(begin('anew', { ...dying(3), resumeFrom: 'none' }));
  const logs = join(folder, 'anew/logs/teacher');
  const steps = readdirSync(logs).flatMap((file) => readEvents(join(logs, file)).flatMap((event) => (event.tag === 'lr' ? event.step : []))); // prettier-ignore
  assert.equal(steps, [1, 2, 3]);
  assert.is(readFileSync(join(folder, 'anew/teacher/log.jsonl'), 'utf8').trim().split('\n').length, 3);
});

test('event files go where they are asked to, or are left out', async () => {
  await trainAndDie(begin('elsewhere', { ...dying(2), loggingDir: join(folder, 'board') }));
  assert.ok(existsSync(join(folder, 'board/teacher')));
  await trainAndDie(begin('silent', { ...dying(2), reportTo: 'none' }));
  assert.equal(readdirSync(join(folder, 'silent')).sort(), ['sessions.jsonl', 'teacher']);
});

const executable: string | undefined = findBrowser();
const name = 'the report opens offline, asks for nothing, and tells the values under the pointer';
if (!executable) skip(test, name, 'no Chromium here; install it with "node scripts/setup.mjs --browser"');
else
  test(name, async () => {
    await trainLine(begin('report'));
    const browser = await chromium.launch({ executablePath: executable, args: ['--no-sandbox'] });
    try {
      const page = await browser.newPage({ colorScheme: 'dark', offline: true });
      const asked: string[] = [];
      const wrong: string[] = [];
      page.on('request', (request) => asked.push(request.url()));
      page.on('pageerror', (error) => wrong.push(error.message));
      page.on('console', (words) => words.type() === 'error' && wrong.push(words.text()));
      const url = pathToFileURL(join(folder, 'report/report.html')).href;
      await page.goto(url);
      assert.equal(asked.filter((address) => !address.startsWith('data:')), [url]); // prettier-ignore
      assert.is(await page.evaluate('getComputedStyle(document.body).backgroundColor'), 'rgb(13, 17, 23)');
      assert.is(
        await page.locator('#teacher ~ .sheet img').evaluate((img: HTMLImageElement) => img.naturalWidth > 0),
        true,
      );
      const lines = readFileSync(join(folder, 'report/teacher/log.jsonl'), 'utf8').trim().split('\n').map((line) => JSON.parse(line)); // prettier-ignore
      await page.locator('svg[data-chart]').first().focus();
      await page.keyboard.press('ArrowRight');
      await page.keyboard.press('ArrowRight');
      const words = await page.locator('output').allTextContents();
      assert.is(words.length, 5);
      assert.is(words[0], `step 2: ${Number(lines[1].loss.toPrecision(5))}`);
      await page.locator('svg[data-chart]').nth(1).hover();
      assert.match((await page.locator('output').nth(1).textContent()) ?? '', /^step [67]: /);
      assert.equal(wrong, []);
    } finally {
      await browser.close();
    }
  });

interface ReadEvent {
  wallTime: number;
  step: number;
  tag: string;
  value?: number;
  text?: string;
  png?: Buffer;
  width?: number;
}

/** TensorBoard's files by their description alone; throws at a wrong checksum. */
function readEvents(path: string): ReadEvent[] {
  const file = readFileSync(path);
  const events: ReadEvent[] = [];
  for (let at = 0; at < file.length;) {
    const length = Number(file.readBigUInt64LE(at));
    const data = file.subarray(at + 12, at + 12 + length);
    assert.is(file.readUInt32LE(at + 8), masked(file.subarray(at, at + 8)));
    assert.is(file.readUInt32LE(at + 12 + length), masked(data));
    const event = fields(data);
    const wallTime = event.find(({ id }) => id === 1)!.bytes.readDoubleLE();
    if (at === 0) assert.is(event.find(({ id }) => id === 3)!.bytes.toString(), 'brain.Event:2');
    else
      for (const summary of event.filter(({ id }) => id === 5)) {
        for (const entry of fields(summary.bytes)) {
          const value = new Map(fields(entry.bytes).map((field) => [field.id, field]));
          const image = value.has(4) ? new Map(fields(value.get(4)!.bytes).map((f) => [f.id, f])) : undefined;
          const text = value.has(8) ? fields(value.get(8)!.bytes).find(({ id }) => id === 8) : undefined;
          events.push({
            wallTime,
            step: event.find(({ id }) => id === 2)!.number,
            tag: value.get(1)!.bytes.toString(),
            value: value.get(2)?.bytes.readFloatLE(),
            text: text?.bytes.toString(),
            png: image?.get(4)?.bytes,
            width: image?.get(2)?.number,
          });
        }
      }
    at += 16 + length;
  }
  return events;
}

/** The fields of a protobuf message. */
function fields(message: Buffer): { id: number; number: number; bytes: Buffer }[] {
  const found: { id: number; number: number; bytes: Buffer }[] = [];
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = message[at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return Number(value);
    }
  };
  while (at < message.length) {
    const key = varint();
    const wire = key & 7;
    const number = wire === 0 || wire === 2 ? varint() : 0;
    const size = { 0: 0, 1: 8, 2: number, 5: 4 }[wire]!;
    found.push({ id: key >> 3, number, bytes: message.subarray(at, at + size) });
    at += size;
  }
  return found;
}

/** The masked checksum, bit by bit. */
function masked(data: Buffer): number {
  let crc = 0xffffffffn;
  for (const byte of data) {
    crc ^= BigInt(byte);
    for (let k = 0; k < 8; k++) crc = crc & 1n ? (crc >> 1n) ^ 0x82f63b78n : crc >> 1n;
  }
  crc ^= 0xffffffffn;
  return Number((((crc >> 15n) | (crc << 17n)) + 0xa282ead8n) & 0xffffffffn);
}

test.run();
