import { readFile } from 'node:fs/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { add, init, mul, noGrad, scope, sub, tensor } from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { normal } from '../src/tensor/random.ts';
import { gaussianVelocity } from '../src/flow/oracle.ts';
import { createScheduler, DiffusionScheduler, schedulerNames } from '../src/flow/schedulers/index.ts';
import type { Denoiser, Scheduler } from '../src/flow/schedulers/index.ts';
import { interpolate, linspace, roundHalfEven, spaced, timestepOfSigma } from '../src/flow/schedulers/spacing.ts';
import { euler, heun } from '../src/flow/solvers.ts';
import { assertNear } from './check-op.ts';
import { gaussianNoise, make, schedule, trained } from './gaussian-diffusion.ts';

const test = suite('flow: schedulers');
const gpu = await init();
test.after(() => gpu.destroy());
/** A test that frees its tensors: the next one may look at the memory. */
const fact = (name: string, body: () => void | Promise<void>) => test(name, () => scope(async () => body()));

/** ε = 0.7 cos(0.0015 t) x + 0.25 sin(0.9 i + 0.004 t) */
const toy: Denoiser = (x, t) => {
  const wave = Float32Array.from({ length: x.size }, (_, i) => 0.25 * Math.sin(0.9 * i + 0.004 * t));
  return add(mul(x, 0.7 * Math.cos(0.0015 * t)), tensor(wave, x.shape));
};
const start = Float32Array.from({ length: 6 }, (_, i) => 1.3 * Math.cos(1.7 * i + 0.3));

/** The k-th draw of noise for six numbers. */
function numbered(): () => Tensor {
  let k = 0;
  return () => (
    k++,
    tensor(
      Float32Array.from(start, (_, i) => 1.5 * Math.sin(12.9898 * (i + 1) + 78.233 * k)),
      [1, 6],
    )
  );
}

interface Case {
  config: { _class_name: string };
  steps: number;
  start?: number;
  eta?: number;
  timesteps: number[];
  initNoiseSigma: number;
  sample: number[];
}
const { cases } = JSON.parse(await readFile('test/data/schedulers.json', 'utf8')) as { cases: Case[] };

fact('timesteps and samples are those of diffusers, for every class and option', async () => {
  for (const { config, steps, start: first, eta, timesteps, initNoiseSigma, sample } of cases) {
    const { trained_betas: _, ...shown } = config as { trained_betas?: unknown };
    const name = JSON.stringify(shown);
    using scheduler = createScheduler(config);
    scheduler.setTimesteps(steps);
    assertNear(scheduler.timesteps, timesteps, 1e-7, `timesteps of ${name}`);
    assertNear([scheduler.initNoiseSigma], [initNoiseSigma], 1e-7, `first noise level of ${name}`);
    const x = mul(tensor(start, [1, 6]), scheduler.initNoiseSigma);
    const end = await scheduler.run(toy, x, { start: first, eta, noise: numbered() });
    assertNear(await end.read(), sample, 1e-5, `sample of ${name}`);
  }
  const classes = new Set(cases.map(({ config }) => config._class_name));
  assert.equal(
    schedulerNames.filter((name) => !classes.has(name)),
    ['RectifiedFlow'],
  );
});

fact('a run is the loop of steps, bit for bit, and leaves nothing but its result', async () => {
  for (const name of schedulerNames) {
    const scheduler = make(name);
    scheduler.setTimesteps(9);
    const x = tensor(start, [1, 6]);
    const byHand = scope(() => {
      let sample = x;
      const noise = numbered();
      for (const t of scheduler.timesteps)
        sample = scheduler.step(toy(scheduler.scaleModelInput(sample, t), t), t, sample, { noise });
      return sample;
    });
    const want = [...(await byHand.read())];
    byHand.dispose();
    scheduler.dispose();
    const before = gpu.memory().live;
    const seen: number[] = [];
    const noise = numbered();
    const end = await scheduler.run(toy, x, { noise: () => noise(), onStep: (i, t) => void seen.push(i, t) });
    assert.equal([...(await end.read())], want, name);
    assert.equal(
      seen,
      scheduler.timesteps.flatMap((t, i) => [i, t]),
      name,
    );
    assert.is(gpu.memory().live, before + end.array.storage.bytes, `${name} keeps memory`);
    end.dispose();
    x.dispose();
  }
});

fact('what is remembered of earlier steps does not grow, and setTimesteps frees it', () => {
  for (const [name, config] of [
    ['PNDMScheduler', {}],
    ['PNDMScheduler', { skip_prk_steps: true }],
    ['DPMSolverMultistepScheduler', { solver_order: 3 }],
  ] as const) {
    const scheduler = make(name, config);
    scheduler.setTimesteps(40);
    const x = tensor(new Float32Array(4096), [4096]);
    const empty = gpu.memory().live;
    const held = scheduler.timesteps.map((t) => {
      scope(() => void scheduler.step(mul(x, 0.5), t, x));
      return gpu.memory().live - empty;
    });
    assert.ok(held.at(-1)! > 0 && Math.max(...held) <= 8 * 4 * 4096, `${name} holds ${held.join(' ')}`);
    scheduler.setTimesteps(40);
    assert.is(gpu.memory().live, empty, name);
    x.dispose();
  }
});

fact('a step frees what it made when it fails', () => {
  const scheduler = make('DDPMScheduler');
  scheduler.setTimesteps(4);
  const x = tensor(start, [1, 6]);
  const before = gpu.memory().live;
  assert.throws(() => scheduler.step(x, 750, x), /this step adds noise/);
  assert.is(gpu.memory().live, before);
});

fact('onStep may give another sample to go on from', async () => {
  const scheduler = make('DDIMScheduler');
  scheduler.setTimesteps(4);
  const end = await scheduler.run(toy, tensor(start, [1, 6]), {
    onStep: (i) => (i === 3 ? tensor(Array(6).fill(7), [1, 6]) : undefined),
  });
  assert.equal([...(await end.read())], Array(6).fill(7));
});

fact('another class for the same model takes over the fields that both have', () => {
  const published = { _class_name: 'PNDMScheduler', _diffusers_version: '0.6.0', ...trained, set_alpha_to_one: false, skip_prk_steps: true, steps_offset: 1, trained_betas: null, clip_sample: false }; // prettier-ignore
  const other = createScheduler({ ...published, _class_name: 'EulerDiscreteScheduler', timestep_spacing: 'leading' });
  other.setTimesteps(4);
  assert.equal(other.timesteps, [751, 501, 251, 1]);
});

const noise = normal(3, 'schedulers', 4096);
const rms = (a: ArrayLike<number>, b: (i: number) => number) =>
  Math.sqrt(Array.from(a).reduce((sum, x, i) => sum + (x - b(i)) ** 2, 0) / a.length);
const moments = (a: ArrayLike<number>) => {
  const mean = Array.from(a).reduce((sum, x) => sum + x, 0) / a.length;
  return [mean, rms(a, () => mean)];
};

/** Where the flow of a Gaussian ends that began at a sample of the first timestep. */
function gaussianEnd(scheduler: Scheduler, mean: number, deviation: number, last: number): (i: number) => number {
  const spread = (t: number) => {
    const { alpha, sigma } = t < 0 ? { alpha: 1, sigma: 0 } : schedule.scales(t);
    return [alpha * mean, Math.hypot(alpha * deviation, sigma)];
  };
  const [from, wide] = spread(scheduler.timesteps[0]),
    [to, narrow] = spread(last);
  return (i) => to + (narrow * (noise[i] - from)) / wide;
}

fact(
  'on a Gaussian, errors of first-order schedulers halve with twice the steps, of higher order fall to a third or less',
  async () => {
    const error = async (name: string, config: object, steps: number) => {
      const scheduler = make(name, config);
      scheduler.setTimesteps(steps);
      const end = await scheduler.run(gaussianNoise(1.5, 0.3), tensor(noise, [4096]));
      return rms(await end.read(), gaussianEnd(scheduler, 1.5, 0.3, 0));
    };
    const ratio = async (name: string, config: object = {}) => (await error(name, config, 20)) / (await error(name, config, 40)); // prettier-ignore
    const within = (x: number, least: number, most: number, what: string) =>
      assert.ok(x > least && x < most, `${what}: ${x}`);
    within(await ratio('DDIMScheduler', { steps_offset: 1 }), 1.6, 2.6, 'DDIM');
    within(await ratio('DPMSolverMultistepScheduler', { solver_order: 1 }), 1.6, 2.6, 'DPM-Solver++ 1');
    // Evenly spaced timesteps end in a step so long that its error is most of all; Karras's do not.
    within(await ratio('DPMSolverMultistepScheduler', { use_karras_sigmas: true }), 3, 6, 'DPM-Solver++ 2M');
    within(await ratio('PNDMScheduler', { skip_prk_steps: true, steps_offset: 1 }), 2.5, 6, 'PNDM');
    const first = await error('DPMSolverMultistepScheduler', { solver_order: 1, use_karras_sigmas: true }, 25);
    const second = await error('DPMSolverMultistepScheduler', { use_karras_sigmas: true }, 25);
    assert.ok(second < first / 4, `25 steps of DPM-Solver++: order 1 ${first}, order 2 ${second}`);
  },
);

fact('schedulers that add noise give the distribution of the data', async () => {
  for (const [name, config] of [
    ['DDPMScheduler', {}],
    ['EulerAncestralDiscreteScheduler', {}],
    ['DPMSolverMultistepScheduler', { algorithm_type: 'sde-dpmsolver++' }],
  ] as const) {
    const scheduler = make(name, config);
    scheduler.setTimesteps(200);
    let k = 0;
    const draw = () => tensor(normal(5, `noise ${k++}`, 4096), [4096]);
    const x = mul(tensor(noise, [4096]), scheduler.initNoiseSigma);
    const end = await noGrad(() => scheduler.run(gaussianNoise(1.5, 0.3), x, { noise: draw }));
    const [mean, deviation] = moments(await end.read());
    assert.ok(Math.abs(mean - 1.5) < 0.02 && Math.abs(deviation - 0.3) < 0.035, `${name}: ${mean} ${deviation}`);
  }
});

fact('DPM-Solver++ may end without noise, at the image it believes in, or in a first-order step', async () => {
  const config = { final_sigmas_type: 'zero' };
  const scheduler = make('DPMSolverMultistepScheduler', config);
  scheduler.setTimesteps(20);
  let last: Tensor | undefined;
  const end = await scheduler.run(toy, tensor(start, [1, 6]), {
    onStep: (i, t, sample) => {
      const next = scheduler.timesteps[i + 1];
      if (i === 18) last = scheduler.predictOriginal(toy(sample, next), next, sample);
    },
  });
  assertNear(await end.read(), await last!.read(), 1e-5, 'end');

  const after = async (options: object) => {
    const other = make('DPMSolverMultistepScheduler', options);
    other.setTimesteps(20);
    return [...(await (await other.run(toy, tensor(start, [1, 6]))).read())];
  };
  // The last of 20 steps alone tells the two apart: from the same sample, in the first-order way.
  const first = make('DPMSolverMultistepScheduler', { solver_order: 1 });
  const second = make('DPMSolverMultistepScheduler');
  first.setTimesteps(20);
  second.setTimesteps(20);
  let stepped: Tensor | undefined;
  await second.run(toy, tensor(start, [1, 6]), {
    onStep: (i, t, sample) => {
      const next = second.timesteps[i + 1];
      if (i === 18) stepped = first.step(toy(sample, next), next, sample);
    },
  });
  assert.equal(await after({ euler_at_final: true }), [...(await stepped!.read())]);
  assert.not.equal(await after({ euler_at_final: true }), await after({}));
});

fact('image → image begins at the image plus the noise of the timestep', async () => {
  const original = tensor(start, [1, 6]),
    drawn = numbered()();
  for (const name of schedulerNames) {
    const scheduler = make(name);
    scheduler.setTimesteps(10);
    const t = scheduler.timesteps[6];
    const noisy = scheduler.addNoise(original, drawn, t);
    // A network that knows the noise leads straight back.
    const output = name === 'RectifiedFlow' ? sub(original, drawn) : drawn;
    const back = await scheduler.predictOriginal(output, t, noisy).read();
    assertNear(back, start, 1e-5, name);
  }
});

fact('rectified flow: run follows the flow as solvers.ts does, and one Euler step is z + v', async () => {
  const velocity = gaussianVelocity(1.5, 0.3);
  const network: Denoiser = (z, t) => velocity(z, 1 - t / 1000);
  const z = tensor(noise, [4096]);
  const end = async (solver: string, steps: number) => {
    const scheduler = make('RectifiedFlow', { solver });
    scheduler.setTimesteps(steps);
    return (await scheduler.run(network, z)).read();
  };
  assert.equal([...(await end('euler', 1))], [...(await add(z, velocity(z, 0)).read())]);
  assertNear(await end('euler', 8), await euler(velocity, z, 8).read(), 2e-6, 'Euler');
  assertNear(await end('heun', 8), await heun(velocity, z, 8).read(), 2e-6, 'Heun');
  for (const steps of [1, 3]) {
    const error = rms(await end('rk45', steps), (i) => 1.5 + 0.3 * noise[i]);
    assert.ok(error < 1e-4, `RK45 in ${steps} spans: ${error}`);
  }
});

fact('numbers are rounded, spaced and interpolated as NumPy does', () => {
  assert.equal(
    [0.5, 1.5, 2.5, -0.5, -1.5, 2.4].map(roundHalfEven).map((x) => x + 0),
    [0, 2, 2, 0, -2, 2],
  );
  assert.equal(linspace(0, 999, 1), [0]);
  assert.equal(linspace(0, 999, 4), [0, 333, 666, 999]);
  assert.equal(spaced('trailing', 61, 1000, 0).length, 61);
  assert.equal(interpolate(Float64Array.of(1, 3, 7), 1.5), 5);
  assert.equal([interpolate(Float64Array.of(1, 3), -1), interpolate(Float64Array.of(1, 3), 9)], [1, 3]);
  assert.equal(
    schedule.sigmas.findIndex((sigma) => timestepOfSigma(sigma, schedule.sigmas) % 1 !== 0),
    -1,
  );
});

fact('without signal at the last timestep, v still tells the image and ε is refused', async () => {
  const config = { rescale_betas_zero_snr: true, timestep_spacing: 'trailing' };
  const v = make('DDIMScheduler', { ...config, prediction_type: 'v_prediction' });
  v.setTimesteps(2);
  assert.ok(v instanceof DiffusionScheduler && v.schedule.alphasCumprod[999] === 0);
  const x = tensor(start, [1, 6]);
  assertNear(
    await v.predictOriginal(x, 999, x).read(),
    start.map((s) => -s),
    1e-6,
    'v',
  );
  const epsilon = make('DDIMScheduler', config);
  epsilon.setTimesteps(2);
  assert.throws(() => epsilon.step(x, 999, x), /only noise, of which the image cannot be told/);
});

test.run();
