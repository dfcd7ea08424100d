import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import command from '../src/cli/commands/compare.ts';
import { encodePng, imageFromFloats } from '../src/cli/pictures/image.ts';
import { drawRace, pace } from '../src/cli/pictures/race.ts';
import type { NetworkName, SampleOptions } from '../src/flow/pipelines/options.ts';
import { openModelFolder } from '../src/flow/recipe/model-folder.ts';
import { init } from '../src/tensor/index.ts';
import { printed } from './run-command.ts';

const folder = mkdtempSync(join(tmpdir(), 'rectiflow-compare-'));
const test = suite('compare');
test.after(() => rmSync(folder, { recursive: true, force: true }));
const shipped = 'models/emoji';

/** What the command prints, and what went wrong. */
const compare = (...words: string[]): Promise<string> => printed(command, [...words, '--out', folder]);

const raw = (picture: ReturnType<typeof sharp>) => picture.removeAlpha().raw().toBuffer();

/** Where a picture stands in a sheet as it is, enlarged: its distance from the top, or −1. */
async function findIn(sheet: string, numbers: Float32Array, left: number, size: number): Promise<number> {
  const cell = await raw(sharp(await encodePng(imageFromFloats(numbers, 32), size, size)));
  const { height } = await sharp(sheet).metadata();
  const column = await raw(sharp(sheet).extract({ left, top: 0, width: size, height }));
  return column.indexOf(cell) / (3 * size);
}

/** The same pictures by the library. */
async function draw(...runs: (Omit<SampleOptions, 'prompts' | 'which'> & { which: NetworkName })[]) {
  const gpu = await init();
  const pipeline = await openModelFolder(shipped, { networks: runs.map(({ which }) => which) });
  const pictures: Float32Array[] = [];
  for (const run of runs) pictures.push((await pipeline.sample({ prompts: ['red apple'], ...run })).images);
  gpu.destroy();
  return pictures;
}

test('the shipped model: its teacher beside the distilled network, with times, a picture and an animation', async () => {
  const text = await compare('red apple', '--seed', '7', '--steps', '6');
  const time = '[\\d.]+ m?s';
  const row = (name: string) => new RegExp(`^${name} +(${time}) +(${time}) +(${time}) +(${time})$`, 'm');
  assert.match(text, /^"red apple", seed 7 +text encoder +U-Net +decoder +all$/m);
  assert.match(text, row('emoji/unet_teacher, 6 steps'));
  assert.match(text, row('emoji/unet, 1 step'));
  const [, , ratio] = /^ratio +([\d.]+) +([\d.]+)/m.exec(text)!;
  assert.ok(Number(ratio) > 2, `the U-Net six times on twice the batch took ${ratio} times as long`);
  assert.match(text, /the first compiles kernels/);
  const sheet = join(folder, 'red-apple-7-compare.png');
  const [teacher, distilled] = await draw(
    { which: 'unet_teacher', seeds: 7, steps: 6, guidanceScale: 1.5 },
    { which: 'unet', seeds: 7 },
  );
  const [left, right] = [await findIn(sheet, teacher, 24, 256), await findIn(sheet, distilled, 24 + 256 + 12, 256)];
  assert.ok(left > 0 && left === right, `at ${left} and ${right}`);
  const { pages, loop, delay } = await sharp(join(folder, 'red-apple-7-compare.webp'), { pages: -1 }).metadata();
  assert.ok(pages! >= 7 && pages! <= 9, `${pages} frames: the start, six steps, two ends`);
  assert.is(loop, 0);
  const total = delay!.reduce((a, b) => a + b);
  assert.ok(Math.abs(total - 8500) < 20, `${total} ms, of which the last frame has 2500`);
});

test('two models, several prompts and seeds', async () => {
  const other = join(folder, 'one-step');
  cpSync(shipped, other, { recursive: true, filter: (file) => !/unet_|curves|log|scheduler/.test(file) });
  const alone = await compare('pizza', '--model', other);
  assert.match(
    alone,
    /one-step: has one network, and nothing to compare it with\n {2}name a one-step model: --against /,
  );
  const how = ['--which', 'unet_reflow', '--steps', '2', '--scheduler', 'heun', '--against', other, '--num', '2'];
  const text = await compare('red apple', 'pizza', ...how);
  assert.is(text.match(/^emoji\/unet_reflow, 2 steps /gm)?.length, 4, text);
  assert.is(text.match(/^one-step, 1 step /gm)?.length, 4);
  const sheet = join(folder, 'red-apple-pizza-0-compare.png');
  const { width = 0 } = await sharp(sheet).metadata();
  const [second] = await draw({ which: 'unet', seeds: 1 });
  const side = 160;
  assert.ok((await findIn(sheet, second, width - side - 24, side)) > 0);
  assert.match(await compare('pizza', '--against', join(folder, 'none')), /none: no such folder or file/);
  assert.match(await compare(' '), /the prompt is empty/);
  assert.match(await compare('pizza', '--height', '30'), /height is 30, must be a multiple of 4/);
});

test('an animation keeps the proportions of time', async () => {
  const image = (r: number, g: number, b: number) => ({ width: 1, height: 1, data: Uint8Array.of(r, g, b) });
  const slow = [
    { at: 1, image: image(255, 0, 0), caption: 'a' },
    { at: 2, image: image(0, 255, 0), caption: 'b' },
  ];
  const fast = [{ at: 0.5, image: image(0, 0, 255), caption: 'c' }];
  const race = await drawRace({ rows: [{ courses: [{ stages: slow }, { stages: fast }] }], cellSize: 64 });
  const { delay, pages } = await sharp(race, { pages: -1 }).metadata();
  assert.equal(delay, [1500, 1500, 3000, 2500]);
  const colours = [];
  for (let page = 0; page < pages!; page++) {
    const { data, info } = await sharp(race, { page }).removeAlpha().raw().toBuffer({ resolveWithObject: true });
    const at = (x: number) => {
      const start = 3 * (70 * info.width + x); // below the heading, inside the cells
      const [r, g, b] = data.subarray(start, start + 3);
      return r > 200 && g < 60 ? 'red' : g > 200 && r < 60 ? 'green' : b > 200 && r < 60 ? 'blue' : 'nothing';
    };
    colours.push([at(24 + 32), at(24 + 64 + 12 + 32)].join(' '));
  }
  assert.equal(colours, ['nothing nothing', 'nothing blue', 'red blue', 'green blue']);
  assert.equal([6, 0.6, 60].map(pace), [
    'as fast as it was',
    '10 times slower than it was',
    '10 times faster than it was',
  ]);
});

test.run();
