import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { linearTicks, logTicks } from '../src/cli/pictures/axes.ts';
import { drawCurves } from '../src/cli/pictures/curves.ts';
import { encodePng, imageFromFloats, imagesFromFloats, renderSvg, type RgbImage } from '../src/cli/pictures/image.ts';
import {
  formatParameters,
  parseParameters,
  readPng,
  readPngText,
  withPngText,
  writePng,
} from '../src/cli/pictures/png.ts';
import { drawGrid, drawSheet } from '../src/cli/pictures/sheet.ts';
import { drawText, textWidth, wrapEvenly, wrapText } from '../src/cli/pictures/text.ts';

const folder = mkdtempSync(join(tmpdir(), 'rectiflow-pictures-'));
const test = suite('pictures');
test.after(() => rmSync(folder, { recursive: true, force: true }));

const solid = (r: number, g: number, b: number, size = 4): RgbImage => ({
  width: size,
  height: size,
  data: Uint8Array.from({ length: size * size * 3 }, (_, i) => [r, g, b][i % 3]),
});

async function pixels(png: Buffer) {
  const { data, info } = await sharp(png).raw().toBuffer({ resolveWithObject: true });
  return {
    ...info,
    at: (x: number, y: number) => [...data.subarray((y * info.width + x) * 3, (y * info.width + x) * 3 + 3)],
  };
}

test('a PNG keeps its pixels and how it was made', async () => {
  const image = imageFromFloats(
    Float32Array.from({ length: 48 }, (_, i) => i / 23.5 - 1),
    4,
  );
  const parameters = formatParameters({
    prompt: 'red apple',
    negativePrompt: 'worm',
    settings: { Steps: 1, Sampler: 'Euler', 'CFG scale': 1.5, Seed: 7, Size: '4x4', Model: 'emoji: one, two' },
  });
  await writePng(join(folder, 'a.png'), image, parameters);
  const read = await readPng(join(folder, 'a.png'));
  assert.equal([...read.image.data], [...image.data]);
  assert.is(
    read.parameters,
    'red apple\nNegative prompt: worm\nSteps: 1, Sampler: Euler, CFG scale: 1.5, Seed: 7, ' +
      'Size: 4x4, Model: "emoji: one, two"',
  );
  assert.equal(readdirSync(folder), ['a.png']);
});

test('parameters are parsed as other tools write them', () => {
  const parsed = parseParameters(
    'a cat,\na dog: both\nNegative prompt: blur\nnoise\nSteps: 20, Sampler: Euler a, ' +
      'Seed: 1, Model: "a, b", Version: v1.2',
  );
  assert.equal(parsed, {
    prompt: 'a cat,\na dog: both',
    negativePrompt: 'blur\nnoise',
    settings: { Steps: '20', Sampler: 'Euler a', Seed: '1', Model: 'a, b', Version: 'v1.2' },
  });
  assert.equal(parseParameters('only a prompt'), { prompt: 'only a prompt', negativePrompt: '', settings: {} });
  for (const prompt of ['', 'red: apple\nsecond line']) {
    assert.equal(parseParameters(formatParameters({ prompt, settings: { Steps: 1 } })).prompt, prompt);
  }
});

test('text in any script is kept, and libvips can still read the file', async () => {
  const png = withPngText(await encodePng(solid(1, 2, 3)), 'parameters', '赤い 🍎 café');
  assert.equal(readPngText(png), { parameters: '赤い 🍎 café' });
  const metadata = await sharp(png).metadata();
  assert.equal(metadata.comments, [{ keyword: 'parameters', text: '赤い 🍎 café' }]);
});

test('a file that is cut short or no PNG is refused by name', async () => {
  const png = await encodePng({
    width: 64,
    height: 64,
    data: Uint8Array.from({ length: 12288 }, (_, i) => (i * i) % 251),
  });
  for (const [name, bytes] of [
    ['cut.png', png.subarray(0, png.length / 2)],
    ['text.png', Buffer.from('hello')],
  ] as const) {
    writeFileSync(join(folder, name), bytes);
    try {
      await readPng(join(folder, name));
      assert.unreachable();
    } catch (error) {
      assert.match((error as Error).message, name);
    }
  }
  assert.equal(readPngText(Buffer.from('hello')), {});
  assert.equal(readPngText(withPngText(png, 'a', 'b').subarray(0, 60)), { a: 'b' });
  assert.throws(() => imageFromFloats(new Float32Array(10), 2), /10 values for \[2, 2, 3\]/);
});

test('a sheet shows each picture in its place, enlarged in whole pixels', async () => {
  const red = solid(255, 0, 0),
    blue = solid(0, 0, 255),
    half = solid(0, 255, 0);
  half.data.fill(0, 0, 24); // the upper two of four rows are black
  const png = await drawSheet({
    rows: [{ cells: [red, { image: blue, caption: 'blue' }] }, { cells: [half, undefined] }],
    cellSize: 100,
  });
  const { width, at, channels } = await pixels(png);
  assert.is(channels, 3);
  assert.is(width, 24 + 100 + 12 + 100 + 24);
  assert.equal(at(2, 2), [255, 255, 255]);
  assert.equal(
    [at(24, 24), at(123, 123)],
    [
      [255, 0, 0],
      [255, 0, 0],
    ],
  );
  assert.equal(
    [at(136, 24), at(235, 123)],
    [
      [0, 0, 255],
      [0, 0, 255],
    ],
  );
  const second = 24 + 100 + 5 + 17 + 12; // below the caption
  assert.equal(
    [at(24, second + 49), at(24, second + 50)],
    [
      [0, 0, 0],
      [0, 255, 0],
    ],
  );
});

test('titles, notes and credits make room for themselves', async () => {
  const cells = imagesFromFloats(new Float32Array(2 * 12), 2);
  const bare = await pixels(await drawSheet({ rows: [{ cells }] }));
  const full = await pixels(
    await drawSheet({
      title: 'Title',
      subtitle: 'below',
      columns: [{ title: 'teacher, 25 steps', note: '1.4 s' }, { title: 'distilled' }],
      rows: [{ title: 'red apple', cells }],
      footer: 'Emoji by OpenMoji, CC BY-SA 4.0',
    }),
  );
  assert.ok(full.width > bare.width && full.height > bare.height + 100);
  assert.ok((await pixels(await drawGrid([...cells, ...cells, ...cells], { perRow: 3 }))).width > bare.width);
  try {
    await drawSheet({ rows: [] });
    assert.unreachable();
  } catch (error) {
    assert.match((error as Error).message, 'no pictures');
  }
});

test('large pictures are shown smaller', async () => {
  const { width } = await pixels(await drawGrid([solid(1, 2, 3, 300)], { cellSize: 100 }));
  assert.is(width, 24 + 100 + 24);
});

test('text is drawn from outlines, as wide as it says, and from fonts only where outlines are missing', async () => {
  const svg = (text: string) =>
    Buffer.from(
      '<svg xmlns="http://www.w3.org/2000/svg" width="200" height="40">' +
        `${drawText(text, 10, 30, { size: 20 })}</svg>`,
    );
  const { info } = await sharp(await renderSvg(String(svg('Hamburg'))))
    .trim({ background: 'white' })
    .toBuffer({ resolveWithObject: true });
  assert.ok(Math.abs(info.width - textWidth('Hamburg', 20)) < 4);
  assert.not.match(drawText('<é & “x”>', 0, 0), '<text');
  assert.match(drawText('日本 <b>', 0, 0), /<text .*日本 &lt;b&gt;/);
});

test('long text is wrapped, and cut with …', () => {
  const width = textWidth('smiling face', 13) + 1;
  assert.equal(wrapText('smiling face with eyes', 13, width), ['smiling face', 'with eyes']);
  assert.equal(wrapText('one\ntwo three', 13, 1000), ['one', 'two three']);
  assert.equal(wrapText('', 13, width), []);
  assert.equal(wrapEvenly('teacher, 25 steps', 13, textWidth('teacher, 25 s', 13)), ['teacher,', '25 steps']);
  assert.equal(wrapEvenly('', 13, width), []);
  const cut = wrapText('smiling face with sunglasses and a hat', 13, width);
  assert.is(cut.length, 2);
  assert.match(cut[1], /…$/);
  assert.ok(textWidth(wrapText('x'.repeat(99), 13, width)[0], 13) <= width);
});

test('ticks are round numbers', () => {
  assert.equal(
    linearTicks(0, 5000, 5).map((tick) => tick.label),
    ['0', '1000', '2000', '3000', '4000', '5000'],
  );
  assert.equal(
    linearTicks(-0.1, 0.32, 5).map((tick) => tick.label),
    ['−0.1', '0.0', '0.1', '0.2', '0.3'],
  );
  assert.equal(
    linearTicks(0, 30000, 3).map((tick) => tick.label),
    ['0', '10k', '20k', '30k'],
  );
  assert.equal(
    logTicks(0.04, 3, 6).map((tick) => tick.label),
    ['0.05', '0.1', '0.2', '0.5', '1', '2'],
  );
  assert.equal(
    logTicks(1e-6, 2, 6).map((tick) => tick.label),
    ['1e−6', '1e−5', '0.0001', '0.001', '0.01', '0.1', '1'],
  );
});

test('curves leave out what is not a number, and say so when there is nothing', async () => {
  const x = [0, 1, 2, 3, 4];
  const svg = drawCurves(
    [
      { name: 'loss', x, y: [1, NaN, 0.5, Infinity, 0.2] },
      { name: 'other', x, y: [0, -1, 1, 2, 3] },
    ],
    { title: 'training', xLabel: 'step', yLabel: 'loss', logY: true, smoothing: 0.9 },
  );
  assert.not.match(svg, /NaN|Infinity|undefined/);
  const { width, height } = await pixels(await renderSvg(svg, 2));
  assert.equal([width, height], [1600, 840]);
  assert.not.match(drawCurves([{ name: 'loss', x: [], y: [] }]), /NaN|Infinity/);
  assert.not.match(drawCurves([{ name: 'flat', x: [3], y: [0] }]), /NaN|Infinity/);
});

test('many points stay few in the file and keep their extremes', () => {
  const x = Array.from({ length: 50_000 }, (_, i) => i),
    y = x.map((i) => (i === 31_234 ? 9 : Math.sin(i)));
  const svg = drawCurves([{ name: 'loss', x, y }], {});
  assert.ok(svg.length < 60_000);
});

test.run();
