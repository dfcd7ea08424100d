import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { add, init, mul, noGrad, scope, tensor } from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { normal } from '../src/tensor/random.ts';
import { guided } from '../src/flow/guidance.ts';
import { latentStatistics, scaleLatents, seededNoise, unscaleLatents } from '../src/flow/latents.ts';
import { gaussianVelocity, pointsVelocity } from '../src/flow/oracle.ts';
import { pathPoints, timeOf, timestepOf } from '../src/flow/rectified-flow.ts';
import type { Velocity } from '../src/flow/rectified-flow.ts';
import { adamsBashforth, euler, heun, reversed, rk45, solve } from '../src/flow/solvers.ts';
import { TorchGenerator } from '../src/tensor/random.ts';
import { collectGarbage } from './garbage.ts';

const test = suite('flow: solvers');
const gpu = await init();
test.after(() => gpu.destroy());

const noise = normal(3, 'test', 64);
const rms = (a: ArrayLike<number>, b: (i: number) => number) =>
  Math.sqrt(Array.from(a).reduce((sum, x, i) => sum + (x - b(i)) ** 2, 0) / a.length);

test('the U-Net is told 1000 at pure noise and 0 at the image, unrounded', () => {
  assert.is(timestepOf(0), 1000);
  assert.is(timestepOf(1), 0);
  assert.is(timestepOf(1 / 3), 1000 * (1 - 1 / 3));
  assert.ok(Math.abs(timeOf(timestepOf(0.3)) - 0.3) < 1e-15);
});

test('a path begins at the noise, ends at the image, and its velocity points from one to the other', () => {
  const x0 = Float32Array.of(1, 2, 3, 4, 5, 6),
    x1 = Float32Array.of(-1, 0, 1, 2, 3, 4);
  const { xt, target, timesteps } = pathPoints(x0, x1, Float32Array.of(0, 0.5, 1));
  assert.equal([...xt], [1, 2, 2, 3, 3, 4]);
  assert.equal([...target], [-2, -2, -2, -2, -2, -2]);
  assert.equal([...timesteps], [1000, 500, 0]);
});

test('one Euler step is z + v(z, 0), bit for bit', async () => {
  const z = tensor(noise, [4, 16]);
  const velocity: Velocity = (x, t) => add(mul(x, 0.37), 0.1 + t);
  const one = await euler(velocity, z, 1).read();
  const sum = await add(z, velocity(z, 0)).read();
  assert.equal([...one], [...sum]);
});

test('Euler follows a straight flow exactly, in any number of steps', async () => {
  const z = tensor(noise, [4, 16]);
  for (const steps of [1, 2, 8]) {
    const end = await euler((x) => add(mul(x, 0), 0.5), z, steps).read();
    assert.ok(rms(end, (i) => noise[i] + 0.5) < 1e-6);
  }
});

test('solvers asked for the right times and counted what they asked', async () => {
  const times: number[] = [];
  const { evaluations } = await solve('euler', (x, t) => (times.push(t), mul(x, 0)), tensor(noise, [64]), { steps: 4 });
  assert.equal(times, [0, 0.25, 0.5, 0.75]);
  assert.is(evaluations, 4);
  assert.is((await solve('heun', (x) => mul(x, 0), tensor(noise, [64]), { steps: 4 })).evaluations, 8);
  assert.is((await solve('adams-bashforth', (x) => mul(x, 0), tensor(noise, [64]), { steps: 4 })).evaluations, 4);
});

test('on a Gaussian flow the error of Euler falls like 1/N, of Heun and Adams–Bashforth like 1/N², and RK45 keeps its tolerance', async () => {
  const velocity = gaussianVelocity(1.5, 0.3);
  const exact = (i: number) => 1.5 + 0.3 * noise[i];
  const error = async (end: Tensor) => rms(await end.read(), exact);
  const z = tensor(noise, [64]);
  const euler20 = await error(euler(velocity, z, 20)),
    euler40 = await error(euler(velocity, z, 40));
  const heun20 = await error(heun(velocity, z, 20)),
    heun40 = await error(heun(velocity, z, 40));
  assert.ok(euler20 / euler40 > 1.6 && euler20 / euler40 < 2.6, `Euler ${euler20} ${euler40}`);
  assert.ok(heun20 / heun40 > 3 && heun20 / heun40 < 5.5, `Heun ${heun20} ${heun40}`);
  const multi40 = await error(adamsBashforth(velocity, z, 40)),
    multi80 = await error(adamsBashforth(velocity, z, 80));
  assert.ok(multi40 / multi80 > 3 && multi40 / multi80 < 5.5, `Adams–Bashforth ${multi40} ${multi80}`);
  assert.ok(multi80 < euler40 / 4, `Adams–Bashforth ${multi80}, Euler ${euler40}`);
  const adaptive = await rk45(velocity, z);
  const adaptiveError = await error(adaptive.z);
  assert.ok(adaptiveError < 1e-4, `RK45 ${adaptiveError}`);
  assert.ok(adaptive.evaluations < 200 && adaptive.evaluations > 12);
});

test('RK45 there and back is where it began', async () => {
  const velocity = gaussianVelocity(-2, 0.5);
  const z = tensor(noise, [64]);
  const image = (await rk45(velocity, z)).z;
  const back = (await rk45(reversed(velocity), image)).z;
  assert.ok(rms(await back.read(), (i) => noise[i]) < 1e-3);
});

test('RK45 takes fewer evaluations for a straighter flow', async () => {
  const z = tensor(noise, [64]);
  const bent = await rk45(gaussianVelocity(0, 0.05), z);
  const straight = await rk45((x) => add(mul(x, 0), 1), z);
  assert.ok(straight.evaluations < bent.evaluations / 2);
});

test('RK45 refuses a velocity that is not a number', async () => {
  try {
    await rk45((x) => mul(x, NaN), tensor(noise, [64]));
    assert.unreachable();
  } catch (error) {
    assert.match((error as Error).message, /not a number/);
  }
});

test('from noise to three points: Euler ends on the points, and its first step heads for their mean', async () => {
  const points = Float32Array.of(3, 0, -3, 1, 0, -4);
  const velocity = pointsVelocity(points, 2);
  const z = tensor(noise, [32, 2]);
  const one = await euler(velocity, z, 1).read();
  for (let i = 0; i < 32; i++) assert.ok(Math.hypot(one[2 * i] - 0, one[2 * i + 1] + 1) < 1e-4);
  const end = await euler(velocity, z, 50).read();
  let near = 0;
  for (let i = 0; i < 32; i++) {
    near += Number([0, 2, 4].some((p) => Math.hypot(end[2 * i] - points[p], end[2 * i + 1] - points[p + 1]) < 0.01));
  }
  assert.ok(near >= 31, `${near} of 32`);
});

test('guidance runs the empty text first, in one batch, and adds α times the difference', async () => {
  const seen: number[][] = [];
  const network = (z: Tensor, _: number, text: Tensor) => (
    seen.push([z.shape[0], text.shape[0]]),
    add(mul(z, 0), text)
  );
  const text = tensor([5, 7], [2, 1]),
    none = tensor([1, 2], [2, 1]);
  const v = await guided(network, text, none, 1.5)(tensor([0, 0], [2, 1]), 0).read();
  assert.equal([...v], [1 + 1.5 * 4, 2 + 1.5 * 5]);
  assert.equal(seen, [[4, 4]]);
  seen.length = 0;
  for (const alpha of [0, 1]) {
    assert.equal([...(await guided(network, text, none, alpha)(tensor([0, 0], [2, 1]), 0).read())], [5, 7]);
  }
  assert.equal(
    seen,
    [
      [2, 2],
      [2, 2],
    ],
    'α ≤ 1 skips the pass without text',
  );
});

test('seeded noise is PyTorch’s [C, H, W] order laid out as [H, W, C]', () => {
  const drawn = new TorchGenerator(42).randn(4 * 3 * 2);
  const made = seededNoise(42, [3, 2, 4]);
  assert.is(made[0], drawn[0]);
  assert.is(made[1], drawn[6]);
  assert.is(made[4], drawn[1]);
});

test('scaled latents have mean 0 and deviation 1, and scale back', () => {
  const z = normal(5, 'latents', 4000).map((x, i) => (i % 2 ? 3 * x + 1 : 0.1 * x - 2));
  const scale = { scaling_factor: 1, ...latentStatistics(z, 2) };
  const scaled = scaleLatents(z, 2, scale);
  const { latents_mean, latents_std } = latentStatistics(scaled, 2);
  for (const m of latents_mean) assert.ok(Math.abs(m) < 1e-5);
  for (const s of latents_std) assert.ok(Math.abs(s - 1) < 1e-5);
  assert.ok(rms(unscaleLatents(scaled, 2, scale), (i) => z[i]) < 1e-6);
  assert.ok(rms(scaleLatents(z, 2, { scaling_factor: 0.18215 }), (i) => 0.18215 * z[i]) < 1e-7);
});

test('sampling leaves no memory behind', async () => {
  const z = tensor(noise, [64]);
  await collectGarbage();
  const before = gpu.memory().arrays;
  const end = noGrad(() => scope(() => euler(gaussianVelocity(0, 0.5), z, 10)));
  end.dispose();
  const adaptive = await scope(() => rk45(gaussianVelocity(0, 0.5), z));
  adaptive.z.dispose();
  assert.is(gpu.memory().arrays, before);
});

test.run();
