import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readTar } from '../scripts/setup/tar.mjs';

const test = suite('setup');

test('--check finds the adapter, quickly', () => {
  const start = performance.now();
  const { status, stdout } = spawnSync(process.execPath, ['scripts/setup.mjs', '--check'], { encoding: 'utf8' });
  assert.is(status, 0, stdout);
  assert.match(stdout, /^setup: adapter: \S/m);
  assert.ok(performance.now() - start < 20_000);
});

test('an unknown flag is refused with exit status 2', () => {
  assert.is(spawnSync(process.execPath, ['scripts/setup.mjs', '--chekc']).status, 2);
});

test('imports nothing but Node built-ins, for it runs before the packages are there', () => {
  for (const file of [
    'setup.mjs',
    ...['apt', 'browser', 'packaged', 'shell', 'tar'].map((name) => `setup/${name}.mjs`),
  ]) {
    const code = readFileSync(resolve('scripts', file), 'utf8');
    for (const [, name] of code.matchAll(/^import .* from '([^']+)'/gm)) assert.match(name, /^(node:|\.)/, file);
  }
});

test.run();

const tar = suite('tar reader');

/** One member: a ustar header and its padded data. */
function member(name: string, data: string, { type = '0', prefix = '' } = {}): Buffer {
  const header = Buffer.alloc(512);
  header.write(name, 0);
  header.write('0000644\0', 100);
  header.write(`${Buffer.byteLength(data).toString(8).padStart(11, '0')}\0`, 124);
  header.write('        ', 148);
  header.write(type, 156);
  header.write('ustar\x0000', 257);
  header.write(prefix, 345);
  header.write(
    `${header
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
    148,
  );
  const body = Buffer.alloc(Math.ceil(Buffer.byteLength(data) / 512) * 512);
  body.write(data);
  return Buffer.concat([header, body]);
}

const END = Buffer.alloc(1024);
const unpack = (...parts: Buffer[]) =>
  [...readTar(Buffer.concat(parts))].map(({ name, data }) => [name, Buffer.from(data).toString()]);

tar('reads names and contents, and skips folders', () => {
  const files = unpack(
    member('a/', '', { type: '5' }),
    member('a/b.txt', 'hello'),
    member('c', 'x'.repeat(512)),
    member('empty', ''),
    END,
  );
  assert.equal(files, [
    ['a/b.txt', 'hello'],
    ['c', 'x'.repeat(512)],
    ['empty', ''],
  ]);
});

tar('reads long names: a ustar prefix, a GNU long name, a pax path', () => {
  const path = `deep/${'d'.repeat(120)}/file`;
  const record = ` path=${path}\n`;
  const pax = `${record.length + 3}${record}`;
  assert.is(pax.length, record.length + 3);
  const files = unpack(
    member('file', '1', { prefix: 'some/where' }),
    member('././@LongLink', `${path}\0`, { type: 'L' }),
    member('deep/cut', '2'),
    member('PaxHeader', pax, { type: 'x' }),
    member('deep/cut', '3'),
    member('short', '4'),
    END,
  );
  assert.equal(files, [
    ['some/where/file', '1'],
    [path, '2'],
    [path, '3'],
    ['short', '4'],
  ]);
});

tar('refuses what is cut off, damaged, or points outside', () => {
  assert.throws(() => unpack(member('a', 'x'.repeat(2000)).subarray(0, 1024)), /cut off inside a/);
  const damaged = member('a', 'x');
  damaged[3] ^= 1;
  assert.throws(() => unpack(damaged, END), /no valid header at byte 0/);
  assert.throws(() => unpack(member('../a', 'x'), END), /points outside/);
});

tar.run();
