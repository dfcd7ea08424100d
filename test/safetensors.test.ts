import { mkdtemp, readdir, readFile, rm, writeFile, open, rename } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { bfloatToFloat, floatToBfloat, floatToHalf, halfToFloat } from '../src/tensor/io/half.ts';
import { readHeader, readTensors, writeAtomic, writeTensors } from '../src/tensor/io/files-node.ts';
import { parseHeader, readSafetensors, writeSafetensors, type HostTensor } from '../src/tensor/io/safetensors.ts';

const test = suite('safetensors');
const tensors: Record<string, HostTensor> = {
  weight: { shape: [2, 3], data: Float32Array.of(1, -2, 0.1, 1e-30, 3e38, -0) },
  half: { shape: [3], data: Float32Array.of(0.5, -65504, 2 ** -24), dtype: 'F16' },
  ids: { shape: [4], data: Float32Array.of(0, 255, 7, 1), dtype: 'U8' },
  steps: { shape: [], data: Float32Array.of(-12345), dtype: 'I64' },
  empty: { shape: [0, 5], data: new Float32Array(0) },
};

/** A file from a header object and a number of data bytes. */
function file(header: unknown, dataBytes: number): Uint8Array {
  const text = new TextEncoder().encode(typeof header === 'string' ? header : JSON.stringify(header));
  const out = new Uint8Array(8 + text.length + dataBytes);
  new DataView(out.buffer).setBigUint64(0, BigInt(text.length), true);
  out.set(text, 8);
  return out;
}
const f32 = (shape: number[], begin: number, end: number) => ({ dtype: 'F32', shape, data_offsets: [begin, end] });

test('what is written is read back, names, shapes, values and metadata', () => {
  const read = readSafetensors(writeSafetensors(tensors, { step: '7' }));
  assert.equal(read.metadata, { step: '7' });
  assert.equal(Object.keys(read.tensors).sort(), Object.keys(tensors).sort());
  for (const [name, { shape, data }] of Object.entries(tensors)) {
    assert.equal(read.tensors[name].shape, shape, name);
    assert.equal(read.tensors[name].data, data, name);
  }
});

test('the header is padded so that every tensor is aligned', () => {
  const { entries, dataStart } = parseHeader(writeSafetensors(tensors));
  assert.is(dataStart % 8, 0);
  assert.is(entries.get('weight')!.begin % 4, 0);
  assert.is(entries.get('steps')!.begin % 8, 0);
});

test('a file at an odd address in a larger buffer reads the same', () => {
  const bytes = writeSafetensors(tensors),
    shifted = new Uint8Array(bytes.length + 3);
  shifted.set(bytes, 3);
  assert.equal(readSafetensors(shifted.subarray(3)), readSafetensors(bytes));
});

test('every way of being broken is named', () => {
  const broken: [Uint8Array, RegExp][] = [
    [new Uint8Array(5), /5 bytes are too short/],
    [new TextEncoder().encode('<!DOCTYPE html><html>'), /not a safetensors file/],
    [file({ a: f32([2], 0, 8) }, 8).subarray(0, 20), /truncated in the header/],
    [file('{"a": ', 0), /header is not JSON/],
    [file('[]', 0), /not a JSON object/],
    [file({ a: { dtype: 'F33', shape: [1], data_offsets: [0, 4] } }, 4), /a: dtype "F33"/],
    [file({ a: { dtype: 'toString', shape: [1], data_offsets: [0, 4] } }, 4), /a: dtype "toString"/],
    [file({ a: f32([-1], 0, 4) }, 4), /a: bad shape \[-1\]/],
    [file({ a: f32([1], 4, 0) }, 4), /a: bad data_offsets/],
    [file({ a: null }, 4), /a: dtype/],
    [file({ a: f32([2], 0, 4) }, 4), /a: F32 \[2\] takes 8 bytes, data_offsets 0…4 hold 4/],
    [file({ a: f32([2], 0, 8), b: f32([1], 4, 8) }, 8), /b overlaps a/],
    [file({ a: f32([1], 0, 4), b: f32([1], 8, 12) }, 12), /hole of 4 bytes between a and b/],
    [file({ a: f32([3], 0, 12) }, 8), /truncated: a ends at byte/],
    [file({ a: f32([1], 0, 4) }, 9), /5 bytes are left over after a/],
    [file({ __metadata__: { n: 1 } }, 0), /__metadata__ must map names to texts/],
  ];
  for (const [bytes, message] of broken) assert.throws(() => readSafetensors(bytes, 'x'), message);
});

test('an integer that f32 would round is refused', () => {
  const bytes = file({ a: { dtype: 'I64', shape: [1], data_offsets: [0, 8] } }, 8);
  new DataView(bytes.buffer).setBigInt64(bytes.length - 8, 16777217n, true);
  assert.throws(() => readSafetensors(bytes), /a\[0\] = 16777217 does not fit/);
});

test('all 65,536 halves survive the way through f32', () => {
  for (let h = 0; h < 65536; h++) {
    const value = halfToFloat(h);
    if (Number.isNaN(value)) assert.ok(Number.isNaN(halfToFloat(floatToHalf(value))));
    else assert.is(floatToHalf(value), h);
  }
});

test('rounding to half goes to the nearest, ties to even', () => {
  const cases: [number, number][] = [
    [1 + 2 ** -11, 1],
    [1 + 3 * 2 ** -11, 1 + 2 ** -9],
    [1 + 2 ** -11 + 2 ** -20, 1 + 2 ** -10],
    [65519, 65504],
    [65520, Infinity],
    [-1e9, -Infinity],
    [2 ** -25, 0],
    [3 * 2 ** -25, 2 ** -23],
    [2 ** -25 * 1.001, 2 ** -24],
    [2 ** -14 - 2 ** -26, 2 ** -14],
    [0.1, 0.0999755859375],
  ];
  for (const [value, want] of cases) assert.is(halfToFloat(floatToHalf(value)), want, `${value}`);
  assert.is(floatToHalf(-0), 0x8000);
  assert.is(bfloatToFloat(floatToBfloat(1 + 2 ** -8)), 1);
  assert.is(bfloatToFloat(floatToBfloat(1 + 3 * 2 ** -8)), 1 + 2 ** -6);
  assert.ok(Number.isNaN(bfloatToFloat(floatToBfloat(NaN))));
});

const folder = await mkdtemp(join(tmpdir(), 'rectiflow-test-'));
test.after(() => rm(folder, { recursive: true }));

test('one tensor is read from disk without the others', async () => {
  const path = join(folder, 'a.safetensors');
  await writeTensors(path, tensors, { by: 'test' });
  const read = await readTensors(path, (name) => name === 'half');
  assert.equal(Object.keys(read.tensors), ['half']);
  assert.equal(read.tensors.half.data, tensors.half.data);
  assert.is((await readHeader(path)).metadata.by, 'test');
});

test('missing and truncated files are explained', async () => {
  const rejects = async (promise: Promise<unknown>, message: RegExp) => {
    const error = await promise.then(
      () => undefined,
      (e) => e as Error,
    );
    assert.match(error?.message ?? 'no error', message);
  };
  await rejects(readTensors(join(folder, 'none')), /cannot read .*none: no such file/);
  const bytes = writeSafetensors(tensors),
    path = join(folder, 'cut.safetensors');
  for (const length of [0, 4, 30, bytes.length - 1]) {
    await writeFile(path, bytes.subarray(0, length));
    await rejects(readTensors(path), /cut\.safetensors: .*(too short|truncated)/);
  }
});

test('a full disk keeps the old file and leaves nothing else', async () => {
  const path = join(folder, 'model.safetensors');
  await writeAtomic(path, 'old');
  const full = {
    rename,
    rm,
    async open(name: string, flags: string) {
      const handle = await open(name, flags);
      handle.write = async () => {
        throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' });
      };
      return handle;
    },
  };
  const error = await writeAtomic(path, 'new', full).then(
    () => undefined,
    (e) => e as Error,
  );
  assert.match(error!.message, /cannot write .*model\.safetensors: the disk is full/);
  assert.is(await readFile(path, 'utf8'), 'old');
  assert.not.ok((await readdir(folder)).some((name) => name.endsWith('.part')));
  await writeAtomic(path, 'new');
  assert.is(await readFile(path, 'utf8'), 'new');
});

test.run();
