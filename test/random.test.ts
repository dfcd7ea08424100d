import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  normal,
  permutation,
  randint,
  threefry,
  TorchGenerator,
  uniform,
  uniformU32,
  words,
} from '../src/tensor/random.ts';
import { boxMuller, exactBoxMuller } from '../src/tensor/random/gaussian.ts';

const test = suite('random');
const close = (got: ArrayLike<number>, want: number[], tolerance = 6e-5) =>
  want.forEach((w, i) => assert.ok(Math.abs(got[i] - w) < tolerance, `element ${i}: ${got[i]}, want ${w}`));
const hex = (pair: Uint32Array) => [...pair].map((word) => word.toString(16).padStart(8, '0')).join(' ');

test('Threefry2x32-20 gives the published vectors of Random123', () => {
  const out = new Uint32Array(2);
  threefry(0, 0, 0, 0, out);
  assert.is(hex(out), '6b200159 99ba4efe');
  threefry(0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, out);
  assert.is(hex(out), '1cb996fc bb002be7');
  threefry(0x13198a2e, 0x03707344, 0x243f6a88, 0x85a308d3, out);
  assert.is(hex(out), 'c4923a9c 483df7a0');
});

test('streams are the same for ever', () => {
  assert.equal([...permutation(0, 0, 8)], [5, 4, 1, 6, 2, 0, 3, 7]);
  close(normal(0, 'x', 4), [-0.36591408, 0.42622802, -0.27163425, -0.24365736], 1e-7);
});

test('any part of a stream can be computed without the rest', () => {
  const all = words(7, 'noise', 0, 101);
  for (const [start, count] of [
    [0, 5],
    [3, 8],
    [99, 2],
    [50, 1],
  ]) {
    assert.equal(words(7, 'noise', start, count), all.slice(start, start + count));
  }
  assert.is(uniformU32(7, 'noise', 42), all[42]);
  assert.equal(normal(7, 'noise', 20, 7), normal(7, 'noise', 40).subarray(7, 27));
});

test('seeds above 32 bits and streams do not repeat each other', () => {
  const seen = [1, 2 ** 32 + 1, 2 ** 33 + 1].flatMap((seed) =>
    [0, 1, 'a'].map((stream) => uniformU32(seed, stream, 0)),
  );
  assert.is(new Set(seen).size, 9);
  assert.throws(() => uniformU32(-1, 0, 0), /seed must be a whole number/);
  assert.throws(() => uniformU32(0.5, 0, 0), /seed must be a whole number/);
});

test('uniforms fill [0, 1) evenly and normals are normal', () => {
  const n = 100_000;
  const u = uniform(3, 0, n),
    z = normal(3, 1, n);
  const moment = (x: Float32Array, k: number) => x.reduce((sum, v) => sum + v ** k, 0) / n;
  assert.ok(Math.min(...u.subarray(0, 1000)) >= 0 && u.every((v) => v < 1));
  assert.ok(Math.abs(moment(u, 1) - 1 / 2) < 0.004 && Math.abs(moment(u, 2) - 1 / 3) < 0.004);
  assert.ok(Math.abs(moment(z, 1)) < 0.012 && Math.abs(moment(z, 2) - 1) < 0.02);
  assert.ok(Math.abs(moment(z, 3)) < 0.05 && Math.abs(moment(z, 4) - 3) < 0.15);
});

test('normals are correctly rounded to f32', () => {
  // (a, b) → bits of r cos θ and r sin θ, worked out with 60 decimal digits
  const known: [a: number, b: number, cos: number, sin: number][] = [
    [0, 0, 0x40d5224d, 0x00000000],
    [0, 2147483648, 0xc0d5224d, 0x00000000],
    [4294967294, 3, 0x37b504f3, 0x29d54225],
    [123456789, 1073741824, 0x00000000, 0x402a8444],
    [77, 1073741825, 0xb2160eb3, 0x40bf0f1d],
    [987654321, 3221225471, 0xb12c5deb, 0xbfdb76dd],
    [5, 536870912, 0x40907e42, 0x40907e42],
    [2147483648, 4294967295, 0x3f96b55f, 0xb0ecbb7a],
    [577090037, 2444712010, 0xbfe8987d, 0xbf58111b],
    [3639700191, 3445702192, 0x3e3e083d, 0xbf0b6e52],
    [3280387012, 271041745, 0x3f2d5bde, 0x3e912a9a],
    [1095513148, 506456969, 0x3f9c1eb1, 0x3f8ecf8e],
    [2127877499, 3268308804, 0x3da70dba, 0xbf9757b3],
    [1930549411, 2028277857, 0xbf9f6abf, 0x3e60af9a],
    [2798570523, 1630434966, 0xbf2c5522, 0x3f229dea],
    [3387541014, 901749037, 0x3e2fa55f, 0x3f2ad296],
  ];
  const out = new Float32Array(2),
    bits = new Uint32Array(out.buffer);
  for (const [a, b, cos, sin] of known) {
    for (const draw of [boxMuller, exactBoxMuller]) {
      draw(a, b, out, 0);
      assert.equal([...bits], [cos, sin], `${draw.name}(${a}, ${b})`);
    }
  }
  const raw = words(5, 'pairs', 0, 4000),
    exact = new Float32Array(2);
  for (let i = 0; i < raw.length; i += 2) {
    const b = i % 3 ? raw[i + 1] : (raw[i + 1] & 0xffff) + 2 ** 30 * (i % 4); // every third one near an axis
    boxMuller(raw[i], b >>> 0, out, 0);
    exactBoxMuller(raw[i], b >>> 0, exact, 0);
    assert.equal([...out], [...exact], `${raw[i]}, ${b >>> 0}`);
  }
});
test('a permutation holds each number once and differs by epoch', () => {
  const a = permutation(5, 0, 1000),
    b = permutation(5, 1, 1000);
  assert.equal(
    [...a].sort((x, y) => x - y),
    [...Array(1000).keys()],
  );
  assert.equal(permutation(5, 0, 1000), a);
  assert.ok(a.some((v, i) => v !== b[i]));
  assert.equal(permutation(5, 0, 0).length, 0);
});

test('randint stays in its range and reaches both ends', () => {
  const drawn = randint(1, 0, 1000, -3, 4);
  assert.equal(
    [...new Set(drawn)].sort((x, y) => x - y),
    [-3, -2, -1, 0, 1, 2, 3],
  );
  assert.throws(() => randint(1, 0, 1, 4, 4), /nothing to draw/);
});

test('mt19937 gives its published first and 10,000th outputs', () => {
  const generator = new TorchGenerator(5489);
  assert.is(generator.random(), 3499211612);
  for (let i = 0; i < 9998; i++) generator.random();
  assert.is(generator.random(), 4123659995);
});

test('the same seeds give the numbers torch prints: fewer than 16 normals', () => {
  close(new TorchGenerator(0).randn(6), [1.541, -0.2934, -2.1788, 0.5684, -1.0845, -1.3986]);
  close(new TorchGenerator(42).randn(9), [0.3367, 0.1288, 0.2345, 0.2303, -1.1229, -0.1863, 2.2082, -0.638, 0.4617]);
});

test('the same seeds give the numbers torch prints: 16 normals and more', () => {
  close(
    new TorchGenerator(0).randn(64),
    [
      -1.1258, -1.1524, -0.2506, -0.4339, 0.8487, 0.692, -0.316, -2.1152, 0.3223, -1.2633, 0.35, 0.3081, 0.1198, 1.2377,
      1.1168, -0.2473,
    ],
  );
  close(
    new TorchGenerator(42).randn(64),
    [
      1.9269, 1.4873, 0.9007, -2.1055, 0.6784, -1.2345, -0.0431, -1.6047, -0.7521, 1.6487, -0.3925, -1.4036, -0.7279,
      -0.5594, -0.7688, 0.7624,
    ],
  );
});

test('a count that is no multiple of 16 draws its last 16 again', () => {
  const long = new TorchGenerator(1).randn(32),
    short = new TorchGenerator(1).randn(20);
  assert.equal(short.subarray(0, 4), long.subarray(0, 4));
  const generator = new TorchGenerator(1);
  generator.rand(20);
  assert.equal(short.subarray(4), generator.randn(16));
});

test('rand, randint and randperm follow torch', () => {
  close(new TorchGenerator(0).rand(3), [0.4963, 0.7682, 0.0885]);
  assert.equal([...new TorchGenerator(0).randint(0, 10, 10)], [4, 9, 3, 0, 3, 9, 7, 3, 7, 3]);
  assert.equal([...new TorchGenerator(0).randperm(10)], [4, 1, 7, 5, 3, 9, 0, 8, 6, 2]);
  assert.equal([...new TorchGenerator(42).randperm(10)], [2, 6, 1, 8, 4, 5, 0, 9, 3, 7]);
});

test.run();
