/**
 * Which scheduler in how many steps:   node scripts/run.mjs examples/12-schedulers.ts [out.png]
 *
 * When the images are a Gaussian, the best network is a formula, and so is the end of every path. Here each scheduler
 * follows that network with the noise schedule of Stable Diffusion, and its distance from the true end is measured.
 */
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { init, mul, noGrad, normal, sub, tensor } from 'rectiflow';
import { drawCurves } from '../src/cli/pictures/curves.ts';
import { renderSvg } from '../src/cli/pictures/image.ts';
import { gaussianVelocity } from '../src/flow/oracle.ts';
import { createScheduler, DiffusionScheduler, NoiseSchedule } from '../src/flow/schedulers/index.ts';
import type { Denoiser, Scheduler } from '../src/flow/schedulers/index.ts';
import { interpolate } from '../src/flow/schedulers/spacing.ts';

const file = process.argv[2] ?? 'out/schedulers.png';
const gpu = await init();
const [mean, deviation, count] = [1.5, 0.3, 4096];
const noise = normal(3, 'schedulers', count);
const stableDiffusion = { num_train_timesteps: 1000, beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'scaled_linear', clip_sample: false, set_alpha_to_one: false } as const; // prettier-ignore
const schedule = new NoiseSchedule(stableDiffusion);
const logSigmas = schedule.sigmas.map(Math.log);

/** x = α image + σ noise at a timestep, also between two. */
function level(t: number): { alpha: number; sigma: number } {
  const ratio = Math.exp(interpolate(logSigmas, t));
  return { alpha: 1 / Math.hypot(1, ratio), sigma: ratio / Math.hypot(1, ratio) };
}
/** The noise to be expected in x when images are N(mean, deviation²). */
const epsilon: Denoiser = (x, t) => {
  const { alpha, sigma } = level(t);
  return mul(sub(x, alpha * mean), sigma / ((alpha * deviation) ** 2 + sigma ** 2));
};
const velocity: Denoiser = (z, t) => gaussianVelocity(mean, deviation)(z, 1 - t / 1000);

/** Where the path of each sample ends: as many deviations from the mean as it began. */
function truth(scheduler: Scheduler): Float32Array {
  if (!(scheduler instanceof DiffusionScheduler)) return noise.map((z) => mean + deviation * z);
  const first = level(scheduler.timesteps[0]);
  // Euler's samples are images plus noise: `initNoiseSigma` is said in that scale, and the last σ is 0.
  const atImageScale = scheduler.name.startsWith('Euler');
  const begin = (z: number) => (atImageScale ? z * scheduler.initNoiseSigma * first.alpha : z);
  const last = atImageScale ? { alpha: 1, sigma: 0 } : schedule.scales(0);
  const spread = ({ alpha, sigma }: typeof first) => Math.hypot(alpha * deviation, sigma);
  return noise.map((z) => last.alpha * mean + ((begin(z) - first.alpha * mean) * spread(last)) / spread(first));
}

async function sample(config: { _class_name: string }, steps: number) {
  const scheduler = createScheduler({ ...stableDiffusion, ...config });
  scheduler.setTimesteps(steps);
  let evaluations = 0;
  let draws = 0;
  const network: Denoiser = (x, t) => (
    evaluations++,
    (scheduler instanceof DiffusionScheduler ? epsilon : velocity)(x, t)
  );
  const start = mul(tensor(noise, [count]), scheduler.initNoiseSigma);
  const fresh = () => tensor(normal(4, `draw ${draws++}`, count), [count]);
  const end = await noGrad(() => scheduler.run(network, start, { noise: fresh }));
  const got = Array.from(await end.read());
  const wanted = truth(scheduler);
  const average = got.reduce((sum, x) => sum + x, 0) / count;
  const rms = (by: (x: number, i: number) => number) =>
    Math.sqrt(got.reduce((sum, x, i) => sum + by(x, i) ** 2, 0) / count);
  const error = rms((x, i) => x - wanted[i]);
  const spread = rms((x) => x - average);
  return { evaluations, error, average, spread };
}

const paths = {
  DDIM: { _class_name: 'DDIMScheduler', steps_offset: 1 },
  PNDM: { _class_name: 'PNDMScheduler', skip_prk_steps: true, steps_offset: 1 },
  'DPM++ 2M': { _class_name: 'DPMSolverMultistepScheduler' },
  'DPM++ 2M Karras': { _class_name: 'DPMSolverMultistepScheduler', use_karras_sigmas: true },
  Euler: { _class_name: 'EulerDiscreteScheduler' },
  'flow, Euler': { _class_name: 'RectifiedFlow', solver: 'euler' },
  'flow, Heun': { _class_name: 'RectifiedFlow', solver: 'heun' },
};
const steps = [5, 10, 15, 20, 25, 30, 40, 50];
const curves = [];
for (const [name, config] of Object.entries(paths)) {
  const results: Awaited<ReturnType<typeof sample>>[] = [];
  for (const n of steps) results.push(await sample(config, n));
  const shown = [0, 1, 4, 7].map((i) => `${steps[i]}: ${results[i].error.toFixed(4)}`).join('   ');
  console.log(`${name.padEnd(16)} error after steps ${shown}`);
  curves.push({ name, x: results.map((r) => r.evaluations), y: results.map((r) => r.error) });
}
for (const name of ['DDPMScheduler', 'EulerAncestralDiscreteScheduler']) {
  const { average, spread } = await sample({ _class_name: name }, 50);
  console.log(
    `${name}: mean ${average.toFixed(3)}, deviation ${spread.toFixed(3)} after 50 steps; true ${mean}, ${deviation}`,
  );
}
const adaptive = await sample({ _class_name: 'RectifiedFlow', solver: 'rk45' } as { _class_name: string }, 1);
console.log(`flow, RK45       error ${adaptive.error.toExponential(1)} after ${adaptive.evaluations} evaluations`);

await mkdir(dirname(file), { recursive: true });
const labels = {
  title: 'Distance from the true end of each path',
  xLabel: 'network evaluations',
  yLabel: 'RMS error',
  logY: true,
};
await writeFile(file, await renderSvg(drawCurves(curves, { ...labels, width: 900 })));
console.log(file);

const at25 = Object.fromEntries(curves.map(({ name, y }) => [name, y[4]]));
assert.ok(at25.PNDM < at25.DDIM / 3, 'four outputs of the network say more than one');
assert.ok(at25['DPM++ 2M Karras'] < at25.DDIM / 5, 'second order, with short steps where there is little noise');
assert.ok(adaptive.error < 1e-4);
gpu.destroy();
