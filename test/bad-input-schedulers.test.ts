import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { init, mul, scope, tensor } from '../src/tensor/index.ts';
import { createScheduler, schedulerNames } from '../src/flow/schedulers/index.ts';
import type { Scheduler } from '../src/flow/schedulers/index.ts';
import { t as counted } from './bad-input-rows.ts';

const test = suite('bad input: schedulers');
const gpu = await init();
test.after(() => gpu.destroy());
scope(() => void mul(tensor([1]), 2)); // what the device makes once

const { NaN: nan, POSITIVE_INFINITY: inf } = Number;
const make = (_class_name: string, config: object = {}) => createScheduler({ _class_name, ...config });
const ready = (name: string, config: object = {}, steps = 4): Scheduler => {
  const scheduler = make(name, config);
  scheduler.setTimesteps(steps);
  return scheduler;
};

type Row = [what: string, call: () => unknown, wants: RegExp];
const known = schedulerNames.join(', ');
const ddim = (field: string, value: unknown, want: string): Row => [
  `${field} ${String(value)}`,
  () => make('DDIMScheduler', { [field]: value }),
  new RegExp(`^DDIMScheduler: ${field} is .*, must be ${want}$`),
];

const configurations: Row[] = [
  ['an unknown class', () => make('UniPCMultistepScheduler'), new RegExp(`^createScheduler: there is no scheduler "UniPCMultistepScheduler"\n {2}known {2}${known}$`)],
  ['a name that every object has', () => make('constructor'), /there is no scheduler "constructor"/],
  ['a class that is a number', () => createScheduler({ _class_name: 7 }), /there is no scheduler 7/],
  ['no class', () => createScheduler({}), /names no _class_name\n {2}known {2}DDIM/],
  ...[null, 'DDIMScheduler', 7, undefined, []].map((config): Row => [`${String(config)} for a configuration`, () => createScheduler(config as never), /wants the object of a scheduler_config/]), // prettier-ignore
  ...['beta_start', 'beta_end'].flatMap((field) => [-0.1, 0, 1, nan, inf, '0.1', true, [0.1]].map((value) => ddim(field, value, 'a number between 0 and 1'))),
  ...[0, 1, -1000, 10.5, nan, inf, 1e9, '1000'].map((value) => ddim('num_train_timesteps', value, 'a whole number from 2 to 1000000')),
  ...[-1, 0.5, nan, '1'].map((value) => ddim('steps_offset', value, 'a whole number from 0 to 1000000')),
  ...[0, 'yes', nan].map((value) => ddim('clip_sample', value, 'true or false')),
  ...[0, -1, nan, inf].map((value) => ddim('clip_sample_range', value, 'a number above 0')),
  ddim('beta_schedule', 'sigmoid', 'one of linear, scaled_linear, squaredcos_cap_v2'),
  ddim('prediction_type', 'v', 'one of epsilon, sample, v_prediction'),
  ddim('timestep_spacing', 'log', 'one of leading, linspace, trailing'),
  ddim('timestep_spacing', '__proto__', 'one of leading, linspace, trailing'),
  ...[[-0.1, 0.2], [0.1, nan], 'betas', { 0: 0.1 }].map((value) => ddim('trained_betas', value, 'a list of numbers between 0 and 1')),
  ['betas for other timesteps', () => make('DDIMScheduler', { trained_betas: [0.1, 0.2] }), /^trained_betas has 2 numbers for 1000 timesteps\n {2}num_train_timesteps {2}1000$/],
  ['PNDM of samples', () => make('PNDMScheduler', { prediction_type: 'sample' }), /^PNDMScheduler: prediction_type is "sample", must be one of epsilon, v_prediction$/],
  ['Euler ancestral of samples', () => make('EulerAncestralDiscreteScheduler', { prediction_type: 'sample' }), /must be one of epsilon, v_prediction$/],
  ...[0, 4, 1.5, nan].map((order): Row => [`order ${order}`, () => make('DPMSolverMultistepScheduler', { solver_order: order }), /solver_order is .*, must be a whole number from 1 to 3/]),
  ['an unknown algorithm', () => make('DPMSolverMultistepScheduler', { algorithm_type: 'deis' }), /algorithm_type is "deis", must be one of dpmsolver, /],
  ['order 3 with noise', () => make('DPMSolverMultistepScheduler', { solver_order: 3, algorithm_type: 'sde-dpmsolver++' }), /sde-dpmsolver\+\+ has no order 3\n {2}solver_order {2}1 or 2/],
  ['the noise at no noise', () => make('DPMSolverMultistepScheduler', { algorithm_type: 'dpmsolver', final_sigmas_type: 'zero' }), /cannot end without noise\n {2}final_sigmas_type {2}sigma_min/],
  ['NaN for a clipped λ', () => make('DPMSolverMultistepScheduler', { lambda_min_clipped: nan }), /lambda_min_clipped is NaN, must be a number/],
  ['a λ that nothing has', () => ready('DPMSolverMultistepScheduler', { lambda_min_clipped: 99 }), /lambda_min_clipped 99 leaves no timesteps/],
  ['an unknown solver', () => make('RectifiedFlow', { solver: 'midpoint' }), /^RectifiedFlow: solver is "midpoint", must be one of euler, heun, adams-bashforth, rk45$/],
  ['no tolerance', () => make('RectifiedFlow', { rtol: 0 }), /rtol is 0, must be a number above 0/],
  ['more distilled steps than timesteps', () => ready('LCMScheduler', { original_inference_steps: 2000 }), /original_inference_steps is 2000, must be at most num_train_timesteps 1000/],
  ['dynamic thresholding', () => make('DDIMScheduler', { thresholding: true }), /^DDIMScheduler: thresholding true is not supported\n {2}known {2}false$/],
  ['learned variances', () => make('DDPMScheduler', { variance_type: 'learned_range' }), /variance_type is "learned_range", must be one of fixed_small/],
  ['learned variances elsewhere', () => make('DPMSolverMultistepScheduler', { variance_type: 'learned' }), /variance_type "learned" is not supported/],
  ['a schedule of a later version', () => make('EulerDiscreteScheduler', { use_beta_sigmas: true }), /use_beta_sigmas true is not supported/],
  ['rescaled betas where there is no end without signal', () => make('EulerDiscreteScheduler', { rescale_betas_zero_snr: true }), /rescale_betas_zero_snr true is not supported/],
]; // prettier-ignore

const x = () => counted(1, 6);
const steps: Row[] = [
  ...schedulerNames.flatMap((name) =>
    [0, -1, 1.5, nan, inf].map((n): Row => [`${n} steps of ${name}`, () => ready(name, {}, n), new RegExp(`^${name}: steps is ${n}, must be a whole number from \\d+ to \\d+$`)]),
  ),
  ...schedulerNames.filter((name) => name !== 'RectifiedFlow').map((name): Row => [`more steps than timesteps of ${name}`, () => ready(name, {}, 1001), new RegExp(`^${name}: steps is 1001, must be a whole number from \\d to (1000|50)$`)]),
  ['fewer steps than Runge–Kutta begins with', () => ready('PNDMScheduler', {}, 3), /steps is 3, must be a whole number from 4 to 1000/],
  ['as many steps as leave no leading timesteps', () => ready('DPMSolverMultistepScheduler', { timestep_spacing: 'leading' }, 1000), /from 1 to 999$/],
  ['an offset past the last timestep', () => ready('DDIMScheduler', { steps_offset: 1 }, 1000), /a timestep is 1000, and 999 is the last\n {2}steps_offset {2}1\n {2}take fewer steps/],
  ['a step before setTimesteps', () => make('DDIMScheduler').step(x(), 1, x()), /^DDIMScheduler: 1 is none of its timesteps\n {2}timesteps {2}\(none\)\n {2}call setTimesteps\(steps\) first/],
  ['a run before setTimesteps', () => make('DDIMScheduler').run((z) => z, x()), /start is 0, of 0 timesteps\n {2}setTimesteps comes first/],
  ...schedulerNames.flatMap((name) => [nan, 3, -1, 999.5].map((t): Row => [`timestep ${t} of ${name}`, () => ready(name).step(x(), t, x(), { noise: x }), new RegExp(`^${name}: ${t} is none of its timesteps\n  timesteps  [\\d., …]+\n  pass one of scheduler.timesteps$`)])),
  ...schedulerNames.map((name): Row => [`a network of another batch in ${name}`, () => { const s = ready(name); return s.step(counted(2, 6), s.timesteps[0], x(), { noise: x }); }, new RegExp(`^${name}: step: shapes differ\n  sample       \\[1, 6\\]\n  modelOutput  \\[2, 6\\]`)]),
  ...[-0.1, 1.1, nan].map((eta): Row => [`eta ${eta}`, () => ready('DDIMScheduler').step(x(), 750, x(), { eta }), new RegExp(`^DDIMScheduler: eta is ${eta}, must be from 0 to 1`)]),
  ...([['DDPMScheduler', {}], ['EulerAncestralDiscreteScheduler', {}], ['LCMScheduler', {}], ['DPMSolverMultistepScheduler', { algorithm_type: 'sde-dpmsolver' }]] as const).map(([name, config]): Row => [`no noise for ${name}`, () => { const s = ready(name, config); return s.step(x(), s.timesteps[0], x()); }, new RegExp(`^${name}: this step adds noise\n  give step\\(\\) or run\\(\\) noise: \\(\\) => a tensor of \\[1, 6\\]`)]),
  ['noise of another shape', () => ready('DDPMScheduler').step(x(), 750, x(), { noise: () => counted(6) }), /^DDPMScheduler: noise: shapes differ\n {2}sample {2}\[1, 6\]\n {2}noise {3}\[6\]/],
  ['a step of Heun', () => ready('RectifiedFlow', { solver: 'heun' }).step(x(), 1000, x()), /^RectifiedFlow: heun asks the network several times a step\n {2}use run\(\)/],
  ...[4, -1, 0.5, nan].map((start): Row => [`start ${start}`, () => ready('DDIMScheduler').run((z) => z, x(), { start }), new RegExp(`^DDIMScheduler: start is ${start}, of 4 timesteps`)]),
  ['noise at a timestep never trained', () => make('DDIMScheduler').addNoise(x(), x(), 1000), /timestep is 1000, must be a whole number from 0 to 999/],
  ['noise at half a timestep', () => make('DDIMScheduler').addNoise(x(), x(), 0.5), /timestep is 0.5, must be/],
  ['noise at another σ than the chosen', () => ready('EulerDiscreteScheduler').addNoise(x(), x(), 998), /998 is none of its timesteps/],
  ['noise at no time', () => ready('RectifiedFlow').addNoise(x(), x(), nan), /timestep is NaN, must be from 0 to 1000/],
  ['timesteps for another batch', () => ready('DDIMScheduler').addNoise(x(), x(), [1, 2]), /^addNoise: 2 timesteps for 1 samples/],
  ['other noise', () => ready('DDIMScheduler').addNoise(x(), counted(6), 1), /noise: shapes differ/],
]; // prettier-ignore

for (const [title, rows] of [
  ['configurations', configurations],
  ['calls', steps],
] as const) {
  test(`${title} that cannot be right are refused, and say why`, async () => {
    const before = gpu.memory().live;
    const wrong: string[] = [];
    for (const [what, call, wants] of rows) {
      const error = await scope(() => Promise.resolve().then(call).then(() => undefined, (e) => e as Error)); // prettier-ignore
      if (!error) wrong.push(`${what}: not refused`);
      else if (!wants.test(error.message)) wrong.push(`${what}: refused with\n${error.message}\n  not ${wants}`);
    }
    assert.equal(wrong, []);
    assert.is(gpu.memory().live, before);
  });
}

test('a network that fails leaves no memory behind', async () => {
  const before = gpu.memory().live;
  for (const name of ['PNDMScheduler', 'DPMSolverMultistepScheduler', 'EulerDiscreteScheduler', 'RectifiedFlow']) {
    const scheduler = ready(name, {}, 8);
    const sample = tensor(Array(6).fill(1), [1, 6]);
    let calls = 0;
    const failing = (z: typeof sample) => {
      if (++calls === 5) throw new Error('no more');
      return mul(z, 0.5);
    };
    const error = await scheduler.run(failing, sample).then(() => undefined, (e) => e as Error); // prettier-ignore
    assert.is(error?.message, 'no more', name);
    sample.dispose();
    assert.is(gpu.memory().live, before, name);
  }
});

test('null, and fields of other classes, are as in diffusers', () => {
  const { config } = make('DDIMScheduler', { beta_start: null, clip_sample: null, skip_prk_steps: 'other', _diffusers_version: '9' }) as never; // prettier-ignore
  assert.equal(config, (make('DDIMScheduler') as unknown as { config: object }).config);
});

test.run();
