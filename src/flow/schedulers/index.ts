/**
 * Schedulers by the names of diffusers, with its conventions (0.21.4; LCM: 0.24), from its scheduler_config.json.
 */
import { readConfig } from './config.ts';
import { ddimFields, DDIMScheduler } from './ddim.ts';
import { ddpmFields, DDPMScheduler } from './ddpm.ts';
import { DPMSolverMultistepScheduler, dpmSolverFields } from './dpm-solver.ts';
import { EulerAncestralDiscreteScheduler, eulerAncestralFields, EulerDiscreteScheduler, eulerFields } from './euler.ts';
import { lcmFields, LCMScheduler } from './lcm.ts';
import { pndmFields, PNDMScheduler } from './pndm.ts';
import { rectifiedFlowFields, RectifiedFlowScheduler } from './rectified-flow.ts';
import type { Scheduler } from './scheduler.ts';

export { NoiseSchedule } from './noise-schedule.ts';
export { Scheduler } from './scheduler.ts';
export type { Denoiser, RunOptions, StepOptions } from './scheduler.ts';
export { DiffusionScheduler } from './diffusion.ts';
export { EulerAncestralDiscreteScheduler, EulerDiscreteScheduler } from './euler.ts';

const makers = {
  DDIMScheduler: (given) => new DDIMScheduler(readConfig('DDIMScheduler', given, ddimFields)),
  DDPMScheduler: (given) => new DDPMScheduler(readConfig('DDPMScheduler', given, ddpmFields)),
  DPMSolverMultistepScheduler: (given) =>
    new DPMSolverMultistepScheduler(readConfig('DPMSolverMultistepScheduler', given, dpmSolverFields)),
  EulerAncestralDiscreteScheduler: (given) =>
    new EulerAncestralDiscreteScheduler(readConfig('EulerAncestralDiscreteScheduler', given, eulerAncestralFields)),
  EulerDiscreteScheduler: (given) =>
    new EulerDiscreteScheduler(readConfig('EulerDiscreteScheduler', given, eulerFields)),
  LCMScheduler: (given) => new LCMScheduler(readConfig('LCMScheduler', given, lcmFields)),
  PNDMScheduler: (given) => new PNDMScheduler(readConfig('PNDMScheduler', given, pndmFields)),
  RectifiedFlow: (given) => new RectifiedFlowScheduler(readConfig('RectifiedFlow', given, rectifiedFlowFields)),
} satisfies Record<string, (given: object) => Scheduler>;

/** What `_class_name` may be. */
export type SchedulerName = keyof typeof makers;
/** The names of all schedulers. */
export const schedulerNames = Object.keys(makers) as SchedulerName[];

/**
 * The scheduler that a scheduler_config.json describes: `_class_name` and the fields of that class. Another one for the
 * same model is `createScheduler({ ...config, _class_name: 'DPMSolverMultistepScheduler' })`.
 * @throws RangeError when the class is not known, or a field is not what it may be
 */
export function createScheduler(config: object): Scheduler {
  if (typeof config !== 'object' || config === null || Array.isArray(config))
    throw new RangeError('createScheduler: wants the object of a scheduler_config.json');
  const { _class_name: name } = config as { _class_name?: unknown };
  if (typeof name === 'string' && Object.hasOwn(makers, name)) return makers[name as SchedulerName](config);
  throw new RangeError(
    `createScheduler: ${name === undefined ? 'the configuration names no _class_name' : `there is no scheduler ${JSON.stringify(name)}`}\n` +
      `  known  ${schedulerNames.join(', ')}`,
  );
}
