/** Group "sched": noise schedules, and schedulers on a toy network, step by step. */
import { add, mul, tensor } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { createScheduler, DiffusionScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler } from '../../flow/schedulers/index.ts'; // prettier-ignore
import { affine } from './rule.ts';
import { Skip, tolerance, type Check, type Context, type GoldenCase, type Runner } from './runner.ts';

export const runSched: Runner = async (c, context) => {
  const kinds: Record<string, (c: GoldenCase, context: Context) => Promise<Check[]>> = {
    betas: betaChecks,
    scheduler: schedulerChecks,
    add_noise: addNoiseChecks,
    toy_model: toyChecks,
  };
  const run = kinds[c.kind];
  if (!run) throw new Skip(`sched kind ${c.kind} is not known`);
  return run(c, context);
};

/** The scheduler of a class in diffusers. */
function diffusion(name: string, config: object): DiffusionScheduler {
  const scheduler = createScheduler({ ...config, _class_name: name.replace(/^diffusers\./, '') });
  if (scheduler instanceof DiffusionScheduler) return scheduler;
  throw new Skip(`${name} is no scheduler of a diffusion`);
}

/** ε(x, t)ᵢ = 0.7 cos(0.0015 t) xᵢ + 0.25 sin(0.9 i + 0.004 t), i over all of x, row-major */
function toy(x: Tensor, t: number): Tensor {
  const wave = Float32Array.from({ length: x.size }, (_, i) => 0.25 * Math.sin(0.9 * i + 0.004 * t));
  return add(mul(x, 0.7 * Math.cos(0.0015 * t)), tensor(wave, x.shape));
}

async function betaChecks(c: GoldenCase, context: Context): Promise<Check[]> {
  const { schedule } = diffusion('DDPMScheduler', c.config);
  const { betas, alphas_cumprod } = await context.tensors(c);
  return [
    { name: 'betas', got: schedule.betas, want: betas.data, tolerance: tolerance(c) },
    { name: 'alphas_cumprod', got: schedule.alphasCumprod, want: alphas_cumprod.data, tolerance: tolerance(c) },
  ];
}

async function schedulerChecks(c: GoldenCase, context: Context): Promise<Check[]> {
  await context.gpu();
  const file = await context.tensors(c);
  const limit = tolerance(c);
  using scheduler = diffusion(c.class, c.config);
  scheduler.setTimesteps(c.num_inference_steps);
  const checks: Check[] = [
    { name: 'timesteps', got: scheduler.timesteps, want: file.timesteps.data, tolerance: limit },
    { name: 'init_noise_sigma', got: [scheduler.initNoiseSigma], want: [c.init_noise_sigma], tolerance: limit },
  ];
  if (scheduler instanceof EulerDiscreteScheduler || scheduler instanceof EulerAncestralDiscreteScheduler)
    checks.push({ name: 'sigmas', got: scheduler.sigmas, want: file.sigmas.data, tolerance: limit });

  const { shape } = file['in.x'];
  const row = (name: string, i: number) => file[name].data.subarray(i * size, (i + 1) * size);
  let sample = mul(tensor(file['in.x'].data, shape), scheduler.initNoiseSigma);
  const size = sample.size;
  let drawn = 0;
  const noise = () => tensor(row('noise', drawn++), shape);
  for (const [k, t] of scheduler.timesteps.entries()) {
    const output = toy(scheduler.scaleModelInput(sample, t), t);
    const image = file.pred_x0 && scheduler.predictOriginal(output, t, sample);
    sample = scheduler.step(output, t, sample, { noise, ...c.step_kwargs });
    if (image)
      checks.push({ name: `pred_x0 ${k}`, got: await image.read(), want: row('pred_x0', k), tolerance: limit });
    checks.push({ name: `step ${k}`, got: await sample.read(), want: row('traj', k + 1), tolerance: limit });
  }
  return checks;
}

async function addNoiseChecks(c: GoldenCase, context: Context): Promise<Check[]> {
  await context.gpu();
  const file = await context.tensors(c);
  const limit = tolerance(c);
  const { timestep_spacing: _, ...config } = c.euler_config;
  const ddpm = diffusion('DDPMScheduler', config);
  const euler = diffusion('EulerDiscreteScheduler', c.euler_config);
  euler.setTimesteps(25);
  const x0 = tensor(file.x0.data, file.x0.shape),
    noise = tensor(file.noise.data, file.noise.shape);
  const times = Array.from(file.timesteps.data),
    sigmaTimes = Array.from(file['euler25.timesteps'].data);
  const rows: [name: string, got: Tensor][] = [
    ['ddpm.add_noise', ddpm.addNoise(x0, noise, times)],
    ['ddpm.velocity', ddpm.getVelocity(x0, noise, times)],
    ['euler25.add_noise', euler.addNoise(x0, noise, sigmaTimes)],
  ];
  return Promise.all(
    rows.map(async ([name, got]) => ({ name, got: await got.read(), want: file[name].data, tolerance: limit })),
  );
}

/** The toy network itself, which all trajectories stand on; its values are printed with nine digits. */
async function toyChecks(c: GoldenCase, context: Context): Promise<Check[]> {
  await context.gpu();
  const x = tensor(affine(c.n, c.seed, c.name, Math.sqrt(3)), [c.n]);
  const checks: Check[] = [{ name: 'x', got: await x.read(), want: c.x, tolerance: 1e-6 }];
  for (const [t, want] of Object.entries(c.eps_at_t as Record<string, number[]>))
    checks.push({ name: `eps at ${t}`, got: await toy(x, Number(t)).read(), want, tolerance: 1e-6 });
  return checks;
}
