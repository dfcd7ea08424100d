/** Mutated weight files: every one is read or refused in words, and nothing else happens. RECTIFLOW_FUZZ_SEED repeats a run. */
import { existsSync, readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { memoryBytes, type Bytes } from '../src/tensor/io/bytes.ts';
import { Callable, PickleError, unpickle, type Value } from '../src/tensor/io/pickle.ts';
import { SafetensorsError, writeSafetensors } from '../src/tensor/io/safetensors.ts';
import { safetensorsSource } from '../src/tensor/io/safetensors-source.ts';
import { torchGlobals } from '../src/tensor/io/torch-globals.ts';
import { TorchFileError, torchSource } from '../src/tensor/io/torch-source.ts';
import { byteLength, type WeightSource } from '../src/tensor/io/weights.ts';
import { ZipError } from '../src/tensor/io/zip.ts';
import { torchFile, zip } from './torch-writer.ts';

const seed = Number(process.env.RECTIFLOW_FUZZ_SEED ?? Date.now() % 1e6);
console.log(`  fuzz seed ${seed}`);

/** mulberry32 */
let state = seed >>> 0;
function random(below: number): number {
  state = (state + 0x6d2b79f5) | 0;
  let z = Math.imul(state ^ (state >>> 15), 1 | state);
  z = (z + Math.imul(z ^ (z >>> 7), 61 | z)) ^ z;
  return Math.floor((((z ^ (z >>> 14)) >>> 0) / 2 ** 32) * below);
}
const pick = <T>(list: ArrayLike<T>): T => list[random(list.length)];

const file = (name: string) => new Uint8Array(readFileSync(`test/data/torch/${name}`));
const floats = new Uint8Array(Float32Array.from({ length: 12 }, (_, i) => i).buffer);
const safetensors = [
  writeSafetensors(
    { a: { shape: [3, 2], data: new Float32Array(6) }, b: { shape: [], data: new Float32Array(1) } },
    { by: 'x' },
  ),
  writeSafetensors(
    Object.fromEntries(
      [1, 2, 3, 4].map((n) => [
        `block.${n}.weight`,
        { shape: [n, 2], data: new Float32Array(2 * n), dtype: 'F16' as const },
      ]),
    ),
  ),
];
const legacy = file('legacy.bin');
const torch = [
  file('zip.pt'),
  file('nested.ckpt'),
  file('evil.pt'),
  legacy,
  torchFile({ a: { dtype: 'F32', shape: [3, 4], bytes: floats } }),
];
const zips = [
  file('zip.pt'),
  zip(
    [
      ['x/data.pkl', Uint8Array.of(0x7d, 0x2e)],
      ['x/data/0', floats],
    ],
    { zip64: true },
  ),
];
const plain: Record<string, string> = JSON.parse(readFileSync('test/data/torch/pickles.json', 'utf8'));
const pickles = [
  ...Object.values(plain).map((base64) => new Uint8Array(Buffer.from(base64, 'base64'))),
  pickleOf(file('zip.pt')),
  pickleOf(file('nested.ckpt')),
  legacy.subarray(0, 1200),
];

/** data.pkl, which comes first and ends before the next entry. */
function pickleOf(bytes: Uint8Array): Uint8Array {
  const next = Buffer.from(bytes).indexOf('PK\x03\x04', 4, 'latin1');
  return bytes.slice(Buffer.from(bytes).indexOf('\x80\x02', 0, 'latin1'), next);
}

/** Numbers that break sums and signs. */
const odd = [
  0n,
  1n,
  0x7fn,
  0xffn,
  0x7fffn,
  0xffffn,
  0x7fffffffn,
  0x80000000n,
  0xffffffffn,
  2n ** 53n,
  2n ** 63n - 1n,
  2n ** 64n - 1n,
];

const mutations: ((bytes: Uint8Array, from: number, to: number) => Uint8Array)[] = [
  function flip(bytes, from, to) {
    for (let n = 1 + random(4); n > 0; n--) bytes[from + random(to - from)] = random(256);
    return bytes;
  },
  function number(bytes, from, to) {
    const width = pick([1, 2, 4, 8]);
    const at = from + random(Math.max(1, to - from - width));
    const value = pick(odd);
    for (let i = 0; i < width && at + i < bytes.length; i++) bytes[at + i] = Number((value >> BigInt(8 * i)) & 255n);
    return bytes;
  },
  (bytes) => bytes.slice(0, random(bytes.length)),
  function copy(bytes, from, to) {
    const [a, b] = [from + random(to - from), from + random(to - from)];
    const length = random(Math.min(64, bytes.length - Math.max(a, b)));
    bytes.copyWithin(a, b, b + length);
    return bytes;
  },
  function insert(bytes, from, to) {
    const at = from + random(to - from);
    const part = bytes.slice(at, at + random(40));
    return Uint8Array.from([...bytes.subarray(0, at), ...part, ...bytes.subarray(at)]);
  },
  function remove(bytes, from, to) {
    const at = from + random(to - from);
    return Uint8Array.from([...bytes.subarray(0, at), ...bytes.subarray(at + 1 + random(20))]);
  },
  function opcode(bytes, from, to) {
    bytes[from + random(to - from)] = pick(
      Buffer.from('().012NIJKMFGSTUVXBC]leatd}suoigpqrhjcRbQ\x80\x81\x85\x8a\x8b\x93\x94', 'latin1'),
    );
    return bytes;
  },
  function digit(bytes, from, to) {
    const digits = [...bytes.keys()].slice(from, to).filter((i) => bytes[i] >= 0x30 && bytes[i] <= 0x39);
    if (digits.length) bytes[pick(digits)] = pick(Buffer.from('0123456789-.e"[]{},'));
    return bytes;
  },
];

/** One to three mutations, half of them in `head`, where the structure is. */
function mutate(original: Uint8Array, head: [from: number, to: number]): Uint8Array {
  let bytes: Uint8Array = original.slice();
  for (let n = 1 + random(3); n > 0 && bytes.length > 1; n--) {
    const inside = random(2) && head[1] < bytes.length;
    bytes = pick(mutations)(bytes, inside ? head[0] : 0, inside ? head[1] : bytes.length);
  }
  return bytes;
}

const known = [SafetensorsError, TorchFileError, ZipError, PickleError];
const count = { read: 0, refused: 0, slowest: 0 };

/** Open and read all; no read may reach beyond the file, no tensor be larger than it, no error be one of ours. */
async function attempt(bytes: Uint8Array, open: (file: Bytes) => Promise<WeightSource | void>): Promise<void> {
  const inner = memoryBytes(bytes, 'fuzz');
  const outside = (begin: number, length: number) => !(begin >= 0 && length >= 0 && begin + length <= bytes.length);
  const watched: Bytes = {
    ...inner,
    read(begin, length) {
      if (outside(begin, length)) throw new RangeError(`asks for ${length} bytes at ${begin} of ${bytes.length}`);
      return inner.read(begin, length);
    },
  };
  const start = performance.now();
  try {
    const source = await open(watched);
    for (const [key, info] of source?.entries ?? []) {
      const data = await source!.read(key);
      assert.is(data.length, byteLength(info));
      assert.ok(data.buffer.byteLength <= bytes.length, `${data.buffer.byteLength} bytes of a file of ${bytes.length}`);
    }
    count.read++;
  } catch (error) {
    if (!known.some((type) => error instanceof type)) {
      throw new Error(`seed ${seed}, file ${Buffer.from(bytes).toString('base64')}`, { cause: error });
    }
    count.refused++;
  }
  const took = performance.now() - start;
  count.slowest = Math.max(count.slowest, took);
  assert.ok(took < 2000, `seed ${seed}: ${took.toFixed(0)} ms for ${bytes.length} bytes`);
}

const test = suite('fuzz');
const began = performance.now();
const before = process.memoryUsage().rss;

test('4,000 mutated safetensors headers', async () => {
  for (let i = 0; i < 4000; i++) {
    const original = pick(safetensors);
    const header = Number(new DataView(original.buffer).getBigUint64(0, true));
    await attempt(mutate(original, [0, 8 + header]), safetensorsSource);
  }
});

test('4,000 mutated pickles, alone and in their files', async () => {
  const world = { find: (name: string) => torchGlobals.get(name), persistent: (): Value => null };
  for (let i = 0; i < 2000; i++) {
    await attempt(mutate(pick(pickles), [0, 300]), async (file) => void unpickle(await file.read(0, file.size), world));
  }
  for (let i = 0; i < 2000; i++) {
    const original = pick(torch);
    await attempt(mutate(original, [0, original === legacy ? 1500 : Math.min(900, original.length)]), torchSource);
  }
});

test('4,000 mutated zip directories', async () => {
  for (let i = 0; i < 4000; i++) {
    const original = pick(zips);
    const directory = Buffer.from(original).indexOf('PK\x01\x02', 0, 'latin1');
    await attempt(mutate(original, [directory, original.length]), torchSource);
  }
});

test('pickles that would grow without end are refused', () => {
  const world = { find: (name: string) => torchGlobals.get(name), persistent: (): Value => null };
  const run = (pieces: string) =>
    unpickle(
      Uint8Array.from(pieces, (c) => c.charCodeAt(0)),
      world,
    );
  const set = 'c__builtin__\nset\nq\x01(]q\x02(' + 'K\x07'.repeat(2000) + 'e';
  assert.throws(() => run(`${set}${'h\x01(h\x02tR'.repeat(2000)}.`), /builds more than the file holds/);
  assert.throws(() => run(`${']'.repeat(2_000_001)}.`), /more than 2000000 operations/);
  assert.throws(() => run(`\x8b\xff\xff\xff\x7f.`), /a whole number of 2147483647 bytes/);
  let nested: Value = run(`${']'.repeat(100_000)}${'a'.repeat(99_999)}.`).value;
  let depth = 0;
  for (; Array.isArray(nested); nested = nested[0]) depth++;
  assert.is(depth, 100_000);
});

test('nothing was run, memory stayed small, and it was quick', () => {
  assert.not.ok(existsSync('rectiflow-was-here')); // what evil.pt would have made
  const callable = [...torchGlobals.values()].filter((value) => value instanceof Callable).map(({ name }) => name);
  assert.is(
    callable.filter((name) => /system|eval|exec|import|getattr|open|load/.test(name)).length,
    0,
    callable.join(),
  );
  const grown = (process.memoryUsage().rss - before) / 2 ** 20;
  const seconds = (performance.now() - began) / 1000;
  console.log(
    `  ${count.read} read, ${count.refused} refused, the slowest ${count.slowest.toFixed(0)} ms; ${seconds.toFixed(1)} s, ${grown.toFixed(0)} MiB more`,
  );
  assert.is(count.read + count.refused, 12_000);
  assert.ok(count.read > 500 && count.refused > 5000, 'mutations are too mild or too wild');
  assert.ok(grown < 600, `${grown.toFixed(0)} MiB`);
});

test.run();
