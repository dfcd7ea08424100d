import { existsSync, readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { refuses } from './refuses.ts';
import { memoryBytes, type Bytes } from '../src/tensor/io/bytes.ts';
import { unpickle } from '../src/tensor/io/pickle.ts';
import { torchGlobals } from '../src/tensor/io/torch-globals.ts';
import { torchSource } from '../src/tensor/io/torch-source.ts';
import { openWeights } from '../src/tensor/io/weights-node.ts';
import { readFloat32 } from '../src/tensor/io/weights.ts';
import { readZip } from '../src/tensor/io/zip.ts';
import { torchFile, zip } from './torch-writer.ts';

// test/data/torch was written by PyTorch 1.13: the same tensors in both formats, their bits in tensors.json.
const folder = 'test/data/torch';
const test = suite('torch files');
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const want = JSON.parse(readFileSync(`${folder}/tensors.json`, 'utf8')) as Record<
  string,
  { dtype: string; shape: number[]; bytes: string }
>;

for (const file of ['zip.pt', 'legacy.bin']) {
  test(`${file} of PyTorch is read bit for bit: every dtype, transposed, shared, channels-last, expanded`, async () => {
    const source = await openWeights(`${folder}/${file}`);
    assert.equal([...source.entries.keys()], Object.keys(want));
    for (const [key, { dtype, shape, bytes }] of Object.entries(want)) {
      assert.equal(source.entries.get(key), { dtype, shape }, key);
      assert.is(hex(await source.read(key)), bytes, key);
      const width = shape.length && bytes.length / shape[0];
      for (let row = 0; row < (shape[0] ?? 0); row++) {
        assert.is(hex(await source.read(key, [row, row + 1])), bytes.slice(row * width, (row + 1) * width), key);
      }
    }
    await source.close();
  });
}

test('a training checkpoint gives the tensors of its state_dict', async () => {
  const source = await openWeights(`${folder}/nested.ckpt`);
  assert.equal([...source.entries.keys()], ['weight', 'bias']);
  assert.equal([...(await readFloat32(source, 'weight')).data], [0, 1, 2, 3, 4, 5]);
  await source.close();
});

test('what would run something is refused by name, and is not run', async () => {
  await refuses(
    openWeights(`${folder}/evil.pt`),
    /evil\.pt: refused: its pickle asks for posix\.system .*runs nothing/s,
  );
  await refuses(openWeights(`${folder}/module.pt`), /refused: its pickle asks for torch\.nn\.modules\.linear\.Linear/);
  assert.not.ok(existsSync('rectiflow-was-here')); // what evil.pt would have made
  for (const [pickle, message] of [
    ["cos\nsystem\n(S'true'\ntR.", /asks for os\.system/],
    ["(S'true'\nios\nsystem\n.", /makes an object of os\.system/],
    ['\x80\x04\x8c\x08builtins\x8c\x04eval\x93.', /asks for builtins\.eval/],
    ['c__builtin__\ngetattr\n.', /asks for __builtin__\.getattr/],
    ['ctorch.storage\n_load_from_bytes\n.', /asks for torch\.storage\._load_from_bytes/],
    ['ctorch\nFloatStorage\n)R.', /calls torch\.FloatStorage/],
    ['ctorch\nFloatStorage\n)\x81.', /makes an object of torch\.FloatStorage/],
    ['ccollections\nOrderedDict\n)R}bN)R.', /calls what is no function/],
    ['\x82\x01.', /opcode 0x82/],
  ] as [string, RegExp][]) {
    assert.throws(() => unpickleText(pickle), message);
  }
});

const unpickleText = (text: string) =>
  unpickle(
    Uint8Array.from(text, (c) => c.charCodeAt(0)),
    world,
  ).value;
const world = { find: (name: string) => torchGlobals.get(name), persistent: () => null };

test('plain data of every protocol of Python is read', () => {
  const pickles = JSON.parse(readFileSync(`${folder}/pickles.json`, 'utf8')) as Record<string, string>;
  for (const [protocol, base64] of Object.entries(pickles)) {
    const value = unpickle(new Uint8Array(Buffer.from(base64, 'base64')), world).value as Map<string, unknown>;
    const numbers = [1, -1, 255, 256, 65536, -(2 ** 31), 2 ** 31, 2n ** 62n, -(2n ** 70n), 2n ** 63n];
    assert.equal(value.get('a'), numbers, protocol);
    assert.is(value.get('again'), value.get('a'));
    assert.equal(
      [...'bcde'].map((key) => value.get(key)),
      [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4]],
    );
    assert.equal(
      [...'fghij'].map((key) => value.get(key)),
      [1.5, -1e-300, null, true, false],
    );
    assert.is(value.get('k'), 'text é ∑');
    assert.equal(value.get('l'), Uint8Array.of(0, 128, 255));
    assert.equal(value.get('q'), new Set([3]));
    assert.is(value.get('r'), 'x'.repeat(300));
  }
});

const numbers = (n: number) => new Uint8Array(Float32Array.from({ length: n }, (_, i) => i).buffer);
const small = torchFile({ a: { dtype: 'F32', shape: [2, 3], bytes: numbers(6) } }, { under: 'model' });

test('only the bytes of the tensor that is asked for are read', async () => {
  const big = { dtype: 'F32', shape: [1000, 100], bytes: numbers(100_000) } as const;
  const reads: number[] = [];
  const inner = memoryBytes(torchFile({ big, small: { dtype: 'F32', shape: [3], bytes: numbers(3) } }));
  const file: Bytes = { ...inner, read: (begin, length) => (reads.push(length), inner.read(begin, length)) };
  const source = await torchSource(file);
  assert.ok(Math.max(...reads) <= 65_557, `${Math.max(...reads)} bytes`); // the end of the file, where zip has its directory
  reads.length = 0;
  assert.is((await source.read('small')).length, 12);
  assert.equal(reads, [30, 12]);
  reads.length = 0;
  assert.equal(await source.read('big', [999, 1000]), numbers(100_000).slice(-400));
  assert.equal(reads, [30, 400]);
});

test('a zip64 archive reads the same', async () => {
  const data = numbers(4);
  const entries = [...(await readZip(memoryBytes(zip([['x/a', data]], { zip64: true })))).values()];
  assert.equal(entries, [...(await readZip(memoryBytes(zip([['x/a', data]])))).values()]);
});

test('a file that was cut anywhere is refused, with its name', async () => {
  for (const bytes of [small, new Uint8Array(readFileSync(`${folder}/legacy.bin`))]) {
    for (let length = 4; length < bytes.length; length += 7) {
      await refuses(torchSource(memoryBytes(bytes.subarray(0, length), 'cut.bin')), /cut\.bin: truncated/);
    }
  }
});

test('archives that lie are refused', async () => {
  const pickle = (text: string) => zip([['archive/data.pkl', Uint8Array.from(text, (c) => c.charCodeAt(0))]]);
  const edited = (at: number, byte: number) => {
    const copy = small.slice();
    copy[at] = byte;
    return copy;
  };
  const directory = Buffer.from(small).indexOf('PK\x01\x02', 0, 'latin1');
  for (const [bytes, message] of [
    [edited(directory + 10, 8), /data\.pkl is compressed \(method 8\)/],
    [edited(directory + 8, 1), /data\.pkl is encrypted/],
    [edited(directory + 27, 1), /takes \d+ bytes for|reaches beyond/],
    [zip([['a', numbers(1)]]), /0 data\.pkl, so not made by torch\.save/],
    [
      zip([
        ['a', numbers(1)],
        ['a', numbers(1)],
      ]),
      /two entries are called a/,
    ],
    [pickle('(lp0\n.'), /holds no dict of tensors/],
    [pickle('(dp0\nS"x"\nI1\ns.'), /holds no tensors by name\n {2}its keys: x/],
    [pickle('N'), /truncated: the pickle has no end/],
    [pickle('\x80\x09N.'), /protocol 9/],
    [pickle('a.'), /takes a value where there is none/],
    [pickle('h\x07.'), /nothing is remembered as 7/],
  ] as [Uint8Array, RegExp][]) {
    await refuses(torchSource(memoryBytes(bytes, 'x.pt')), message);
  }
});

test('a tensor that reaches beyond its storage is refused, and one that repeats itself beyond the file', async () => {
  const text = Buffer.from(small).toString('latin1');
  const [rows, cols] = ['\x8a\x08\x02', '\x8a\x08\x03'];
  assert.ok(text.includes(rows) && text.includes(cols));
  const edit = (from: string, to: string) => Uint8Array.from(text.replace(from, to), (c) => c.charCodeAt(0));
  await refuses(
    torchSource(memoryBytes(edit(rows, '\x8a\x08\x09'))),
    /\[9, 3\] with strides \[3, 1\] from 0 on reaches beyond/,
  );
  const flat = text.replace(rows + '\0'.repeat(7) + cols, `\x8a\x08${'\0\0\0\0\x01\0\0\0'}${cols}`);
  const still = flat.replace(
    '(' + cols + '\0'.repeat(7) + '\x8a\x08\x01',
    '(' + '\x8a\x08\0' + '\0'.repeat(7) + '\x8a\x08\x01',
  );
  const bytes = Uint8Array.from(still, (c) => c.charCodeAt(0));
  await refuses(torchSource(memoryBytes(bytes)), /a \[4294967296, 3\] takes 51539607552 bytes, more than the file has/);
});

test.run();
