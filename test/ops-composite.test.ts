import { suite } from 'uvu';
import { init, Tensor, tensor } from '../src/tensor/index.ts';
import * as f from '../src/tensor/index.ts';
import { assertClose } from './check-op.ts';
import { randoms } from './randoms.ts';

const test = suite('functions made of other functions');
await init();

/** Forward against plain numbers, gradient of Σ y · ct against their central differences. */
async function check(
  name: string,
  x: number[],
  shape: number[],
  fn: (x: Tensor) => Tensor,
  plain: (x: number[]) => number[],
) {
  const t = tensor(x, shape, { requiresGrad: true });
  const y = fn(t);
  const want = plain(x);
  assertClose(await y.read(), want, 1e-5, name);
  const ct = [...randoms(want.length, 5)];
  f.sum(f.mul(y, tensor(ct, y.shape))).backward();
  const value = (numbers: number[]) => plain(numbers).reduce((s, v, i) => s + v * ct[i], 0);
  const slopes = x.map((_, i) => {
    const moved = (h: number) => value(x.map((v, k) => (k === i ? v + h : v)));
    return (moved(1e-5) - moved(-1e-5)) / 2e-5;
  });
  assertClose(await t.grad!.read(), slopes, 2e-5, `gradient of ${name}`);
}

const x = [...randoms(24, 3)];
const rows = (numbers: number[], width: number) =>
  Array.from({ length: numbers.length / width }, (_, i) => numbers.slice(i * width, (i + 1) * width));
const mean = (row: number[]) => row.reduce((s, v) => s + v, 0) / row.length;
const variance = (row: number[], less = 1) => row.reduce((s, v) => s + (v - mean(row)) ** 2, 0) / (row.length - less);
const length = (row: number[]) => Math.sqrt(row.reduce((s, v) => s + v * v, 0));

test('variance and standard deviation, of a sample and of all', async () => {
  await check(
    'variance',
    x,
    [4, 6],
    (t) => f.variance(t, { axes: [1] }),
    (n) => rows(n, 6).map((r) => variance(r)),
  );
  await check(
    'std',
    x,
    [2, 12],
    (t) => f.std(t, { axes: [-1], keepdim: true, unbiased: false }),
    (n) => rows(n, 12).map((r) => Math.sqrt(variance(r, 0))),
  );
});

test('norms', async () => {
  await check(
    'norm',
    x,
    [4, 6],
    (t) => f.norm(t),
    (n) => [length(n)],
  );
  await check(
    'norm 1',
    x,
    [4, 6],
    (t) => f.norm(t, { ord: 1, axes: [1] }),
    (n) => rows(n, 6).map((r) => r.reduce((s, v) => s + Math.abs(v), 0)),
  );
  await check(
    'l2Normalize',
    x,
    [4, 6],
    (t) => f.l2Normalize(t),
    (n) => rows(n, 6).flatMap((r) => r.map((v) => v / length(r))),
  );
});

test('either operand may be a number', async () => {
  await check(
    '1 − 2x',
    x,
    [24],
    (t) => f.sub(1, f.mul(2, t)),
    (n) => n.map((v) => 1 - 2 * v),
  );
  await check(
    '3 / (x + 5)',
    x,
    [24],
    (t) => f.div(3, f.add(5, t)),
    (n) => n.map((v) => 3 / (v + 5)),
  );
  await check(
    '(x / 2)² − 1',
    x,
    [24],
    (t) => f.sub(f.pow(f.div(t, 2), 2), 1),
    (n) => n.map((v) => (v / 2) ** 2 - 1),
  );
});

test('pieces and their reunion', async () => {
  await check(
    'chunks swapped',
    x,
    [4, 6],
    (t) => f.concat(f.chunk(t, 2).reverse()),
    (n) => rows(n, 6).flatMap((r) => [...r.slice(3), ...r.slice(0, 3)]),
  );
  await check(
    'split',
    x,
    [4, 6],
    (t) => f.split(t, [1, 3], { axis: 0 })[1],
    (n) => n.slice(6),
  );
  await check(
    'stack',
    x,
    [4, 6],
    (t) => f.stack([t, f.neg(t)], { axis: 1 }),
    (n) => rows(n, 6).flatMap((r) => [...r, ...r.map((v) => -v)]),
  );
  await check(
    'transpose',
    x,
    [4, 6],
    (t) => f.transpose(t),
    (n) => n.map((_, i) => n[(i % 4) * 6 + Math.floor(i / 4)]),
  );
});

test('reflection and repetition', async () => {
  const mirror = (r: number[]) => [r[2], r[1], ...r, r[4]];
  await check(
    'reflect',
    x,
    [4, 6],
    (t) =>
      f.pad(
        t,
        [
          [0, 0],
          [2, 1],
        ],
        { mode: 'reflect' },
      ),
    (n) => rows(n, 6).flatMap(mirror),
  );
  await check(
    'repeatInterleave',
    x,
    [4, 6],
    (t) => f.repeatInterleave(t, 3, { axis: 0 }),
    (n) => rows(n, 6).flatMap((r) => [...r, ...r, ...r]),
  );
});

test.run();
