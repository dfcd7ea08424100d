import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { toBytes } from '../src/flow/data/captioned-images.ts';
import { DataError, loadImageFolder } from '../src/flow/data/image-folder.ts';
import { interpolationModes } from '../src/flow/data/square.ts';

const root = mkdtempSync(join(tmpdir(), 'rectiflow-folder-'));
const test = suite('data: image folder');
test.after(() => rmSync(root, { recursive: true, force: true }));

let folders = 0;
function folder(metadata: object[] | string, name = 'metadata.jsonl'): string {
  const path = join(root, String(folders++));
  mkdirSync(path);
  const text = typeof metadata === 'string' ? metadata : metadata.map((row) => JSON.stringify(row)).join('\n');
  writeFileSync(join(path, name), text);
  return path;
}

/** left third red, middle green, right blue */
async function stripes(width = 48, height = 16) {
  const third = (left: number, background: string) => ({
    input: { create: { width: width / 3, height, channels: 3 as const, background } },
    left,
    top: 0,
  });
  return sharp({ create: { width, height, channels: 3, background: '#f00' } })
    .composite([third(width / 3, '#0f0'), third((2 * width) / 3, '#00f')])
    .png()
    .toBuffer();
}

async function failure(path: string, options = {}): Promise<DataError> {
  try {
    await loadImageFolder(path, { resolution: 8, ...options });
  } catch (error) {
    assert.instance(error, DataError);
    return error as DataError;
  }
  throw new Error('nothing was thrown');
}

test('reads metadata.jsonl, scales the shorter side and cuts the middle', async () => {
  const path = folder([{ file_name: 'a.png', text: 'stripes' }]);
  writeFileSync(join(path, 'a.png'), await stripes());
  const data = await loadImageFolder(path, { resolution: 16, centerCrop: true, attribution: 'me' });
  assert.is(data.images.length, 16 * 16 * 3);
  assert.equal(data.captions, [['stripes']]);
  assert.equal(data.ids, ['a.png']);
  assert.is(data.attribution, 'me');
  const pixels = toBytes(data.images);
  assert.equal([...pixels.slice(8 * 16 * 3 + 24, 8 * 16 * 3 + 27)], [0, 255, 0]);
});

test('threads make the same pixels in the same order, and name the same broken files', async () => {
  const rows = Array.from({ length: 9 }, (_, i) => ({ file_name: `${i}.png`, text: `image ${i}` }));
  const path = folder([...rows, { file_name: 'broken.png', text: 'x' }, { file_name: 'gone.png', text: 'y' }]);
  for (const [i, { file_name }] of rows.entries())
    writeFileSync(
      join(path, file_name),
      await sharp(await stripes())
        .rotate(40 * i)
        .png()
        .toBuffer(),
    );
  writeFileSync(join(path, 'broken.png'), (await stripes()).subarray(0, 90));
  const read = async (workers: number) => {
    const warnings: string[] = [];
    const options = { resolution: 16, workers, skipBad: true, onWarning: (words: string) => warnings.push(words) };
    return { data: await loadImageFolder(path, options), warnings };
  };
  const [here, there] = [await read(0), await read(3)];
  assert.equal(there, here);
  assert.is(here.data.ids.length, 9);
  assert.match(here.warnings[0], /broken\.png: .*\n.*gone\.png: the file does not exist/);
});

test('an image is scaled as --image_interpolation_mode says', async () => {
  const path = folder([{ file_name: 'a.png', text: 'stripes' }]);
  writeFileSync(join(path, 'a.png'), await stripes());
  const seen = new Set<string>();
  for (const interpolation of interpolationModes)
    seen.add(toBytes((await loadImageFolder(path, { resolution: 7, interpolation })).images).join());
  assert.is(seen.size, interpolationModes.length);
});

test('without centerCrop the place comes from the seed', async () => {
  const path = folder([{ file_name: 'a.png', text: 'stripes' }]);
  writeFileSync(join(path, 'a.png'), await stripes());
  const at = async (seed: number) => toBytes((await loadImageFolder(path, { resolution: 16, seed })).images);
  assert.equal(await at(1), await at(1));
  const different = await Promise.all([1, 2, 3, 4].map(at));
  assert.ok(different.some((pixels) => pixels.join() !== different[0].join()));
});

test('reads metadata.csv, other columns, sub-folders, lists of captions, and the train folder', async () => {
  const path = join(root, 'split');
  mkdirSync(join(path, 'train', 'sub'), { recursive: true });
  writeFileSync(join(path, 'train', 'metadata.csv'), 'path,caption\r\nsub/a.png,"red, green ""and""\nblue"\r\n');
  writeFileSync(join(path, 'train', 'sub', 'a.png'), await stripes());
  const data = await loadImageFolder(path, { resolution: 8, imageColumn: 'path', captionColumn: 'caption' });
  assert.equal(data.captions, [['red, green "and"\nblue']]);
  const several = folder([{ file_name: 'a.png', text: ['one', ' two '] }]);
  writeFileSync(join(several, 'a.png'), await stripes());
  assert.equal((await loadImageFolder(several, { resolution: 8 })).captions, [['one', 'two']]);
});

test('grey, 16-bit, transparent, CMYK and turned images all become RGB', async () => {
  const names = ['grey.png', 'deep.png', 'clear.png', 'cmyk.jpg', 'turned.jpg'];
  const path = folder(names.map((file_name) => ({ file_name, text: 'x' })));
  const solid = (background: string | object) =>
    sharp({ create: { width: 16, height: 16, channels: 4, background: background as string } });
  await solid('#808080').removeAlpha().toColourspace('b-w').png().toFile(join(path, 'grey.png'));
  await solid('#f00').removeAlpha().toColourspace('rgb16').png().toFile(join(path, 'deep.png'));
  await solid({ r: 0, g: 0, b: 0, alpha: 0 }).png().toFile(join(path, 'clear.png'));
  await solid('#fff').removeAlpha().toColourspace('cmyk').jpeg().toFile(join(path, 'cmyk.jpg'));
  await sharp(await stripes(48, 48))
    .withMetadata({ orientation: 6 })
    .jpeg()
    .toFile(join(path, 'turned.jpg'));
  const pixels = toBytes((await loadImageFolder(path, { resolution: 8, centerCrop: true })).images);
  const near = (image: number, y: number, x: number, colour: number[]) =>
    colour.forEach((value, c) =>
      assert.ok(Math.abs(pixels[((image * 8 + y) * 8 + x) * 3 + c] - value) < 12, `${names[image]} at ${y}, ${x}`),
    );
  near(0, 4, 4, [128, 128, 128]);
  near(1, 4, 4, [255, 0, 0]);
  near(2, 4, 4, [255, 255, 255]);
  near(3, 4, 4, [255, 255, 255]);
  near(4, 0, 4, [255, 0, 0]); // what was left is now on top
  near(4, 7, 4, [0, 0, 255]);
});

test('all that is wrong is told with the line, the first ten in the message', async () => {
  const png = await stripes();
  const jpg = await sharp({
    create: {
      width: 64,
      height: 64,
      channels: 3,
      background: '#f00',
      noise: { type: 'gaussian', mean: 128, sigma: 50 },
    },
  })
    .jpeg()
    .toBuffer();
  const path = folder(
    [
      '{"file_name": "good.png", "text": "good"}',
      '',
      '{"file_name": "nocaption.png"}',
      '{"file_name": "a.png", "text": " "}',
      '{"text": "no file"}',
      '{"file_name": "gone.png", "text": "gone"}',
      '{"file_name": "cut.png", "text": "cut"}',
      '{"file_name": "text.png", "text": "not an image"}',
      '{"file_name": "empty.png", "text": "empty"}',
      '{broken',
      '{"file_name": "cut.jpg", "text": "cut"}',
      '{"file_name": "good.png", "text": "again"}',
      '[1]',
    ].join('\n'),
  );
  writeFileSync(join(path, 'good.png'), png);
  writeFileSync(join(path, 'cut.png'), png.subarray(0, png.length - 30));
  writeFileSync(join(path, 'cut.jpg'), jpg.subarray(0, jpg.length / 2));
  writeFileSync(join(path, 'text.png'), 'this is no image');
  writeFileSync(join(path, 'empty.png'), '');
  const error = await failure(path);
  const lines = Object.fromEntries(error.problems.map((problem) => [problem.line, problem.reason]));
  assert.equal(Object.keys(lines), ['3', '4', '5', '6', '7', '8', '9', '10', '11', '12', '13']);
  assert.match(lines[3], "nocaption.png: no 'text'; the line has 'file_name'");
  assert.match(lines[4], 'caption is empty');
  assert.match(lines[5], "no 'file_name'");
  assert.match(lines[6], 'does not exist');
  assert.match(lines[7], 'cut.png: damaged or cut short');
  assert.match(lines[8], 'not an image');
  assert.match(lines[9], 'the file is empty');
  assert.match(lines[10], 'not a line of JSON');
  assert.match(lines[11], 'cut.jpg: damaged or cut short');
  assert.match(lines[12], 'already listed in line 1');
  assert.match(error.message, `${join(path, 'metadata.jsonl')}:3: nocaption.png`);
  assert.match(error.message, '… and 1 more');
  assert.match(error.message, '--skip_bad');

  const warnings: string[] = [];
  const data = await loadImageFolder(path, { resolution: 8, skipBad: true, onWarning: (text) => warnings.push(text) });
  assert.equal(data.ids, ['good.png']);
  assert.match(warnings[0], '11 entries cannot be used');
});

test('a folder with nothing in it says what it wants', async () => {
  const empty = join(root, 'empty');
  mkdirSync(empty);
  assert.match((await failure(empty)).message, /no metadata\.jsonl .*\n.*"file_name"/);
  assert.match((await failure(join(root, 'nowhere'))).message, 'is not a folder');
  assert.match((await failure(folder('\n\n'))).message, 'lists no images');
  const allBad = await failure(folder([{ file_name: 'x.png', text: 'x' }]), { skipBad: true });
  assert.match(allBad.message, '1 entry cannot be used');
  assert.match((await failure(folder('file_name,text\na.png\n', 'metadata.csv'))).message, /:2: 1 fields/);
});

test.run();
