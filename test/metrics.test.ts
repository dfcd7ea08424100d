import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { featureCount, imageFeatures } from '../src/flow/metrics/features.ts';
import { frechetDistance, gaussianOf, symmetricEigenvalues } from '../src/flow/metrics/frechet.ts';
import { captionAccuracy, deviations, nearest, standardise } from '../src/flow/metrics/nearest.ts';
import { fewStepError, Straightness, straightness } from '../src/flow/metrics/straightness.ts';
import { normal, uniform } from '../src/tensor/random.ts';

const test = suite('metrics');
const near = (got: number, want: number, tolerance = 1e-9) =>
  assert.ok(Math.abs(got - want) <= tolerance * Math.max(1, Math.abs(want)), `${got}, want ${want}`);

test('the eigenvalues of a symmetric matrix with known ones come out, also equal and vanishing ones', () => {
  const n = 40;
  const want = Float64Array.from({ length: n }, (_, i) => [0, 0, 7, 7, -3][i] ?? 1.3 ** i);
  const m = new Float64Array(n * n);
  want.forEach((value, i) => (m[i * n + i] = value));
  for (let turn = 0; turn < 3; turn++) {
    // H m H with H = 1 − 2 v vᵀ
    const z = normal(1, turn, n);
    const length = Math.hypot(...z);
    const reflect = (at: (i: number) => number) => {
      const along = z.reduce((sum, v, i) => sum + (v / length) * m[at(i)], 0);
      z.forEach((v, i) => (m[at(i)] -= (2 * along * v) / length));
    };
    for (let row = 0; row < n; row++) reflect((i) => row * n + i);
    for (let column = 0; column < n; column++) reflect((i) => i * n + column);
  }
  const got = symmetricEigenvalues(m, n).sort();
  want.sort().forEach((value, i) => near(got[i] / 1e4, value / 1e4, 1e-14));
  assert.equal([...symmetricEigenvalues(new Float64Array(9), 3)], [0, 0, 0]);
  assert.equal([...symmetricEigenvalues(Float64Array.of(5), 1)], [5]);
});

test('few vectors in many dimensions have the distance that their covariances have', () => {
  const dims = 30;
  const few = gaussianOf(normal(4, 0, 12 * dims), dims),
    many = gaussianOf(normal(4, 1, 90 * dims), dims);
  near(frechetDistance(few, many), frechetDistance({ ...few }, { ...many }), 1e-7); // copies are known by their covariances alone
  near(frechetDistance(many, few), frechetDistance(few, many), 1e-10);
});

test('the Fréchet distance of one-dimensional Gaussians is (μ₁ − μ₂)² + (σ₁ − σ₂)²', () => {
  const a = gaussianOf([1, 3], 1),
    b = gaussianOf([4, 10], 1); // means 2, 7; σ √2, √18
  near(frechetDistance(a, b), 25 + (Math.sqrt(18) - Math.sqrt(2)) ** 2);
});

test('the Fréchet distance is zero to itself, symmetric, and adds up a shift', () => {
  const x = normal(2, 0, 600),
    shifted = x.map((v) => v + 2),
    y = normal(2, 1, 600).map((v, i) => v * (1 + (i % 6)));
  const [gx, gs, gy] = [x, shifted, y].map((f) => gaussianOf(f, 6));
  near(frechetDistance(gx, gx), 0, 1e-10);
  near(frechetDistance(gx, gs), 6 * 4, 1e-6);
  near(frechetDistance(gx, gy), frechetDistance(gy, gx), 1e-10);
});

test('fewer vectors than dimensions, or none, or NaN', () => {
  const few = gaussianOf(normal(3, 0, 3 * 8), 8);
  near(frechetDistance(few, few), 0, 1e-5); // eigenvalues that are zero cost √1e-16 each
  assert.throws(() => gaussianOf([1, 2, 3], 3), /not two or more vectors/);
  assert.throws(() => gaussianOf([1, 2, NaN, 4], 2), /NaN/);
});

test('a constant velocity is perfectly straight', () => {
  const v = Float32Array.of(3, 4, 0, 1);
  assert.equal(straightness([v, v, v], 2), { straightness: 0, cost: 13, ratio: 0, samples: 2 });
});

test('a quarter circle has the straightness that calculus gives', () => {
  // z(t) = (cos, sin)(πt/2): |v|² = π²/4 and |Z₁ − Z₀|² = 2, so S = π²/4 − 2
  const n = 1000;
  const velocities = Array.from({ length: n }, (_, i) => {
    const a = ((Math.PI / 2) * (i + 0.5)) / n;
    return [(-Math.sin(a) * Math.PI) / 2, (Math.cos(a) * Math.PI) / 2];
  });
  const { straightness: s, cost, ratio } = straightness(velocities, 1);
  near(s, Math.PI ** 2 / 4 - 2, 1e-5);
  near(cost, 2, 1e-5);
  near(ratio, s / cost);
});

test('batches add up, and unequal steps are weighted', () => {
  const a = [
      [1, 0],
      [0, 1],
    ],
    b = [
      [2, 2],
      [2, 2],
    ];
  const both = new Straightness().add(a, 1).add(b, 1).result();
  near(both.straightness, (straightness(a, 1).straightness + 0) / 2);
  near(both.cost, (0.5 + 8) / 2);
  near(straightness([[1], [1], [3]], 1, [0.25, 0.25, 0.5]).straightness, straightness([[1], [3]], 1).straightness);
  near(fewStepError([1, 2], [1, 4]), Math.SQRT2);
});

test('the nearest real image decides the caption', () => {
  const real = [0, 0, 10, 0, 0, 10],
    captions = ['dot', 'right', 'up'];
  const made = [1, 1, 9, 2, 6, 1];
  assert.equal([...nearest(made, real, 2).index], [0, 1, 1]);
  near(nearest(made, real, 2).distance[0], Math.SQRT2);
  near(captionAccuracy(made, ['dot', 'right', 'up'], real, captions, 2), 2 / 3);
  assert.is(captionAccuracy([NaN, NaN], ['dot'], real, captions, 2), 0);
  assert.throws(() => captionAccuracy(made, ['dot'], real, captions, 2), /needs a caption/);
});

test('standardised dimensions have a spread of one, constant ones stay', () => {
  const x = [1, 5, 3, 5, 5, 5],
    spread = deviations(x, 2);
  near(deviations(standardise(x, spread), 2)[0], 1, 1e-6);
  assert.is(spread[1], 1);
});

/** Discs of random colour and place: [count, 32, 32, 3]. */
function discs(seed: number, count: number): Float32Array {
  const out = new Float32Array(count * 32 * 32 * 3),
    u = uniform(seed, 'discs', count * 6);
  for (let i = 0; i < count; i++) {
    const [cx, cy, radius, ...colour] = [
      8 + 16 * u[i * 6],
      8 + 16 * u[i * 6 + 1],
      4 + 6 * u[i * 6 + 2],
      u[i * 6 + 3],
      u[i * 6 + 4],
      u[i * 6 + 5],
    ];
    for (let y = 0; y < 32; y++) {
      for (let x = 0; x < 32; x++) {
        const inside = Math.hypot(x - cx, y - cy) < radius;
        for (let c = 0; c < 3; c++) out[((i * 32 + y) * 32 + x) * 3 + c] = inside ? 2 * colour[c] - 1 : 1;
      }
    }
  }
  return out;
}

test('in the feature space, blur, noise and other colours are all further away than a second draw', () => {
  const count = 200;
  const gauss = (images: Float32Array) => gaussianOf(imageFeatures(images, 32, 32), featureCount);
  const real = gauss(discs(1, count)),
    other = discs(2, count);
  const floor = frechetDistance(real, gauss(other));
  const blurred = other.map(
    (_, i) => (other[i] + other[i - 3] + other[i + 3] + other[i - 96] + other[i + 96]) / 5 || 0,
  );
  const noise = normal(9, 0, other.length);
  const variants = {
    blurred,
    noisy: other.map((v, i) => v + 0.1 * noise[i]),
    grey: other.map((v, i) => (i % 3 ? v * 0.5 : v)),
  };
  for (const [name, images] of Object.entries(variants)) {
    const distance = frechetDistance(real, gauss(images));
    assert.ok(distance > 1.5 * floor, `${name}: ${distance}, floor ${floor}`);
  }
});

test('features are the same for ever', () => {
  const features = imageFeatures(
    uniform(1, 'image', 32 * 32 * 3).map((u) => 2 * u - 1),
    32,
    32,
  );
  assert.is(features.length, featureCount);
  const pinned: [number, number][] = [
    [0, 0.0232363194],
    [20, -0.0579427034],
    [24, 2.9141845703],
    [31, 1.9119889736],
    [32, 1.8167498112],
    [45, 0.0422933586],
    [63, 0.3063171804],
  ];
  for (const [i, value] of pinned) near(features[i], value, 1e-6);
  assert.throws(() => imageFeatures(new Float32Array(8 * 8 * 3), 8, 8), /smaller than 16/);
  assert.throws(() => imageFeatures(new Float32Array(100), 32, 32), /are not images/);
});

test.run();
