import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { drawTimes, quantile } from '../src/flow/times.ts';
import type { TimeOptions } from '../src/flow/times.ts';

const test = suite('flow: times');

/** Times drawn one at a time, so that they are independent. */
const draw = (options: TimeOptions, count: number) =>
  Float64Array.from({ length: count }, (_, step) => drawTimes(options, 11, 'test', step, 1)[0]);

const BINS = 40;

/** χ² of counts in equal bins against the density that a distribution claims to have. */
function chiSquare(times: Float64Array, density: (t: number) => number): number {
  const expected = Array.from({ length: BINS }, (_, bin) => {
    const fine = 400; // the midpoint rule
    const sum = Array.from({ length: fine }, (_, i) => density((bin + (i + 0.5) / fine) / BINS));
    return (times.length * sum.reduce((a, b) => a + b)) / (fine * BINS);
  });
  const counts = Array<number>(BINS).fill(0);
  for (const t of times) counts[Math.floor(t * BINS)]++;
  return counts.reduce((sum, n, i) => sum + (n - expected[i]) ** 2 / expected[i], 0);
}

/** 39 degrees of freedom: 0.001 lies above. */
const LIMIT = 72.1;

const uShaped = (a: number) => (t: number) => ((a / 2) * (Math.exp(a * t) + Math.exp(a * (1 - t)))) / Math.expm1(a);
const logitNormal = (mean: number, std: number) => (t: number) =>
  Math.exp(-((Math.log(t / (1 - t)) - mean) ** 2) / (2 * std ** 2)) / (std * Math.sqrt(2 * Math.PI) * t * (1 - t));

const cases: [TimeOptions, (t: number) => number][] = [
  [{ distribution: 'uniform' }, () => 1],
  [{ distribution: 'u-shaped' }, uShaped(4)],
  [{ distribution: 'u-shaped', steepness: 2 }, uShaped(2)],
  [{ distribution: 'logit-normal' }, logitNormal(0, 1)],
  [{ distribution: 'logit-normal', mean: -0.5, std: 0.8 }, logitNormal(-0.5, 0.8)],
];

for (const [options, density] of cases) {
  test(`${JSON.stringify(options)} has its density, and no other's`, () => {
    const times = draw(options, 20_000);
    assert.ok(times.every((t) => t >= 0 && t < 1));
    const fit = chiSquare(times, density);
    assert.ok(fit < LIMIT, `χ² is ${fit.toFixed(1)} in ${BINS} bins`);
    for (const [other, its] of cases) if (other !== options) assert.ok(chiSquare(times, its) > 2 * LIMIT);
  });
}

test('quantiles are those of the densities: F(quantile(u)) = u', () => {
  const F = (t: number, a: number) => 0.5 + (Math.exp(a * t) - Math.exp(a * (1 - t))) / (2 * Math.expm1(a));
  for (const steepness of [0.5, 4, 9]) {
    for (const u of [0, 0.01, 0.3, 0.5, 0.77, 0.999]) {
      const t = quantile({ distribution: 'u-shaped', steepness }, u);
      assert.ok(Math.abs(F(t, steepness) - u) < 1e-12, `${steepness} ${u}`);
    }
  }
});

test('a grid of k has each of its times equally often, and zero has one', () => {
  const times = draw({ distribution: 'k-grid', steps: 4 }, 4000);
  const counts = [0, 0.25, 0.5, 0.75].map((t) => times.filter((x) => x === t).length);
  assert.is(counts.reduce((a, b) => a + b), 4000); // prettier-ignore
  const fit = counts.reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0);
  assert.ok(fit < 16.3, `χ² is ${fit}`); // three degrees of freedom, 0.001
  assert.ok(draw({ distribution: 'zero' }, 10).every((t) => t === 0));
  assert.equal([...drawTimes({ distribution: 'k-grid' }, 1, 'test', 0, 3)], [0, 0, 0]);
});

test('the times of one step cover the path, and are a function of seed, stream and step', () => {
  const times = [...drawTimes({ distribution: 'uniform' }, 3, 'test', 5, 8)].sort((a, b) => a - b);
  times.forEach((t, i) => assert.ok(t >= i / 8 && t < (i + 1) / 8));
  for (const [options] of cases) {
    const again = () => [...drawTimes(options, 3, 'test', 5, 6)];
    assert.equal(again(), again());
    assert.not.equal(again(), [...drawTimes(options, 3, 'test', 6, 6)]);
    assert.not.equal(again(), [...drawTimes(options, 4, 'test', 5, 6)]);
    assert.not.equal(again(), [...drawTimes(options, 3, 'other', 5, 6)]);
  }
});

test('times stay below 1, where no way is left, in f32 too', () => {
  const close = { distribution: 'logit-normal', mean: 40, std: 1 } as const;
  assert.ok(drawTimes(close, 1, 'test', 0, 100).every((t) => t < 1));
  for (const distribution of ['uniform', 'u-shaped'] as const)
    assert.ok(Math.fround(quantile({ distribution }, 1 - 2 ** -40)) < 1, distribution);
});

test('numbers that make no sense are refused', () => {
  const refuse = (options: object, words: RegExp) =>
    assert.throws(() => drawTimes(options as TimeOptions, 1, 'test', 0, 2), words);
  refuse({ distribution: 'u-shaped', steepness: 0 }, /times: steepness is 0, must be above 0/);
  refuse({ distribution: 'logit-normal', std: -1 }, /times: .*\n {2}mean {2}0\n {2}std {3}-1/);
  refuse({ distribution: 'k-grid', steps: 1.5 }, /times: steps is 1.5, must be a whole number of at least 1/);
  refuse({ distribution: 'cosine' }, /times: cosine has no quantiles\n {2}known: uniform u-shaped/);
});

test.run();
