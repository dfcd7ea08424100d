import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { init, mul, sub, tensor } from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { normal } from '../src/tensor/random.ts';
import { diffusionTimestepOf, flowTimeOf, velocityOfDiffusion } from '../src/flow/diffusion-velocity.ts';
import { gaussianVelocity } from '../src/flow/oracle.ts';
import type { Denoiser } from '../src/flow/schedulers/index.ts';
import { interpolate } from '../src/flow/schedulers/spacing.ts';
import { assertNear } from './check-op.ts';
import { gaussianNoise, make, schedule } from './gaussian-diffusion.ts';

const test = suite('flow: a diffusion as a velocity');
const gpu = await init();
test.after(() => gpu.destroy());
const noise = normal(3, 'schedulers', 4096);

test('the timesteps of Stable Diffusion stand at these times of the rectified flow', () => {
  for (const [k, t] of [
    [999, 0.064],
    [750, 0.1961],
    [500, 0.3819],
    [250, 0.5897],
    [100, 0.7441],
    [0, 0.9717],
  ]) {
    assert.ok(Math.abs(flowTimeOf(k, schedule) - t) < 6e-5, `${k}: ${flowTimeOf(k, schedule)}`);
    assert.ok(Math.abs(diffusionTimestepOf(flowTimeOf(k, schedule), schedule) - k) < 1e-6, String(k));
  }
  assert.equal([diffusionTimestepOf(0, schedule), diffusionTimestepOf(1, schedule)], [999, 0]);
});

test('a network of noise, of the image or of v becomes the velocity of the flow, exactly', async () => {
  const z = tensor(noise, [4096]);
  const epsilon = gaussianNoise(1.5, 0.3);
  const known = (x: Tensor, k: number) => {
    const sigma = Math.exp(interpolate(schedule.sigmas.map(Math.log), k));
    return { alpha: 1 / Math.hypot(1, sigma), sigma: sigma / Math.hypot(1, sigma), e: epsilon(x, k) };
  };
  const image: Denoiser = (x, k) => {
    const { alpha, sigma, e } = known(x, k);
    return mul(sub(x, mul(e, sigma)), 1 / alpha);
  };
  const v: Denoiser = (x, k) => {
    const { alpha, sigma, e } = known(x, k);
    return sub(mul(e, alpha), mul(image(x, k), sigma));
  };
  for (const [type, network] of [
    ['epsilon', epsilon],
    ['sample', image],
    ['v_prediction', v],
  ] as const) {
    const velocity = velocityOfDiffusion(network, schedule, type);
    for (const t of [0.0641, 0.2, 0.5, 0.8, 0.97])
      assertNear(
        await velocity(z, t).read(),
        await gaussianVelocity(1.5, 0.3)(z, t).read(),
        3e-5 / t,
        `${type} at ${t}`,
      );
  }
});

test('RK45 along the velocity and DPM-Solver on the noise end at the same samples', async () => {
  const epsilon = gaussianNoise(1.5, 0.3);
  const first = flowTimeOf(999, schedule),
    last = flowTimeOf(0, schedule);
  const velocity = velocityOfDiffusion(epsilon, schedule);
  // The part of the flow that the diffusion knows, as a flow of its own; both ends at the scale of the flow.
  const flow = make('RectifiedFlow', { solver: 'rk45' });
  flow.setTimesteps(1);
  const size = (t: number) => Math.hypot(t, 1 - t);
  const along: Denoiser = (z, t) => mul(velocity(z, first + (last - first) * (1 - t / 1000)), last - first);
  const ended = await flow.run(
    along,
    tensor(
      noise.map((x) => x * size(first)),
      [4096],
    ),
  );
  const solver = make('DPMSolverMultistepScheduler', { solver_order: 3 });
  solver.setTimesteps(200);
  const solved = await solver.run(epsilon, tensor(noise, [4096]));
  assertNear(
    await solved.read(),
    (await ended.read()).map((z) => z / size(last)),
    2e-3,
    'end',
  );
});

test('what the network is conditioned on reaches it, outside the known times too', async () => {
  const heard: [number, string][] = [];
  const velocity = velocityOfDiffusion(
    (x: Tensor, k: number, text: string) => (heard.push([k, text]), mul(x, 0)),
    schedule,
  );
  const z = tensor([1, 2], [1, 2]);
  const [at0, at1] = [await velocity(z, 0, 'a').read(), await velocity(z, 1, 'b').read()];
  assert.equal(heard.map(([, text]) => text), ['a', 'b']); // prettier-ignore
  assertNear(heard.map(([k]) => k), [999, 0], 1e-9, 'timesteps'); // prettier-ignore
  assertNear(at0, [1 / flowTimeOf(999, schedule), 2 / flowTimeOf(999, schedule)], 1e-6, 'held at the noisy end');
  assertNear(at1, [1 / flowTimeOf(0, schedule), 2 / flowTimeOf(0, schedule)], 1e-6, 'held at the clean end');
  assert.throws(() => velocity(z, NaN, 'c'), /^velocityOfDiffusion: t is NaN, must be from 0 to 1/);
});

test.run();
