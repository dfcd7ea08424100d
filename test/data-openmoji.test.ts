import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { fromBytes, toBytes } from '../src/flow/data/captioned-images.ts';
import { drawSvg, loadOpenMoji, openMojiEntries } from '../src/flow/data/openmoji.ts';

const folder = mkdtempSync(join(tmpdir(), 'rectiflow-openmoji-'));
const test = suite('data: openmoji');
test.after(() => rmSync(folder, { recursive: true, force: true }));

test('has thousands of captioned pictures; skin tones are optional and know what they are of', () => {
  const all = openMojiEntries('all'),
    toned = openMojiEntries('all', true);
  assert.ok(all.length > 2000 && toned.length > 4000);
  assert.is(new Set(toned.map((entry) => entry.id)).size, toned.length);
  assert.ok(toned.every((entry) => entry.captions.length > 0 && entry.captions.every((c) => c === c.toLowerCase())));
  const wave = toned.find((entry) => entry.id === '1F44B-1F3FB')!;
  assert.is(wave.captions[0], 'waving hand light skin tone');
  assert.ok(wave.captions.includes('hello'));
});

test('captions go from the specific to the general', () => {
  const apple = openMojiEntries('popular').find((entry) => entry.id === '1F34E')!;
  assert.equal(apple.captions, [
    'red apple',
    'apple',
    'diet',
    'food',
    'fruit',
    'health',
    'red',
    'ripe',
    'food fruit',
    'food drink',
  ]);
});

test('the popular set is 256 different things with names of their own', () => {
  const names = openMojiEntries('popular').map((entry) => entry.captions[0]);
  assert.is(names.length, 256);
  assert.is(new Set(names).size, 256);
  for (const name of [
    'red apple',
    'green apple',
    'banana',
    'strawberry',
    'red heart',
    'blue heart',
    'grinning face',
    'smiling face with sunglasses',
    'cat face',
    'dog face',
    'sun',
    'rainbow',
    'rocket',
    'automobile',
    'pizza',
    'soccer ball',
    'red circle',
    'blue square',
  ])
    assert.ok(names.includes(name), name);
});

test('a drawing fills the frame, over white, in its colours', async () => {
  const circle = (r: number) =>
    Buffer.from(
      '<svg viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg">' +
        `<circle cx="30" cy="40" r="${r}" fill="#f00"/></svg>`,
    );
  const widthOf = (rgb: Uint8Array) => {
    const row = Array.from({ length: 32 }, (_, x) => rgb[(16 * 32 + x) * 3 + 1]);
    return row.filter((green) => green < 128).length;
  };
  const large = await drawSvg(circle(24), 32);
  assert.equal([...large.slice(0, 3)], [255, 255, 255]);
  assert.equal([...large.slice((16 * 32 + 16) * 3, (16 * 32 + 16) * 3 + 3)], [255, 0, 0]);
  assert.is(widthOf(large), 30);
  assert.is(widthOf(await drawSvg(circle(20), 32)), 30);
  assert.ok(widthOf(await drawSvg(circle(6), 32)) < 16, 'what is small stays smaller');
});

test('pictures are drawn once, then read from the cache, and a damaged cache is drawn again', async () => {
  let drawn = 0;
  const options = { size: 8, cacheFolder: folder, onProgress: () => drawn++ };
  const first = await loadOpenMoji(options);
  assert.is(drawn, 256);
  assert.is(first.images.length, 256 * 8 * 8 * 3);
  assert.ok(first.images.every((value) => value >= -1 && value <= 1));
  assert.equal(readdirSync(folder).length, 1, 'nothing half-written is left');
  assert.equal((await loadOpenMoji(options)).images, first.images);
  assert.is(drawn, 256);
  const file = join(folder, readdirSync(folder)[0]);
  truncateSync(file, readFileSync(file).length - 1);
  assert.equal((await loadOpenMoji(options)).images, first.images);
  assert.is(drawn, 512);
});

test('a cache that cannot be written is a warning, not the end', async () => {
  const notAFolder = join(folder, 'a-file');
  writeFileSync(notAFolder, '');
  const warnings: string[] = [];
  const data = await loadOpenMoji({ size: 4, cacheFolder: notAFolder, onWarning: (message) => warnings.push(message) });
  assert.is(data.ids.length, 256);
  assert.is(warnings.length, 1);
});

test('the credit names the author and the licence', async () => {
  const { attribution } = await loadOpenMoji({ size: 4, cacheFolder: join(folder, 'small') });
  assert.match(attribution, /OpenMoji \d+\.\d+/);
  assert.match(attribution, /CC BY-SA 4\.0/);
});

test('bytes survive the way to -1 … 1 and back', () => {
  const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
  assert.equal([...toBytes(fromBytes(bytes))], [...bytes]);
  assert.equal([...toBytes(new Float32Array([-3, 3]))], [0, 255]);
});

test.run();
