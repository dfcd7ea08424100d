import { createScheduler, schedulerNames } from '../schedulers/index.ts';
import type { Scheduler, SchedulerName } from '../schedulers/index.ts';
import { RectifiedFlowScheduler } from '../schedulers/rectified-flow.ts';
import { solverNames } from '../solvers.ts';
import { PromptError } from './options.ts';

/** Short names for models of diffusion. */
const shortNames: Record<string, SchedulerName> = {
  ddim: 'DDIMScheduler',
  ddpm: 'DDPMScheduler',
  'dpm++': 'DPMSolverMultistepScheduler',
  euler: 'EulerDiscreteScheduler',
  euler_a: 'EulerAncestralDiscreteScheduler',
  lcm: 'LCMScheduler',
  pndm: 'PNDMScheduler',
};

/** What may be asked of a model: solvers of a rectified flow, schedulers of a diffusion. */
export function samplersFor(own: { _class_name?: string }): string[] {
  return own._class_name === 'RectifiedFlow' ? [...solverNames] : Object.keys(shortNames);
}

/**
 * The scheduler that is asked for: the model's own; by a name of `samplersFor`, or a class of diffusers, with the model's
 * settings; or one described in full.
 * @throws PromptError when the model's network cannot be sampled so
 */
export function chooseScheduler(own: { _class_name?: string }, wanted?: string | object): Scheduler {
  if (typeof wanted !== 'string') return createScheduler(wanted ?? own);
  const isFlow = own._class_name === 'RectifiedFlow';
  if (isFlow && solverNames.includes(wanted as never)) return createScheduler({ ...own, solver: wanted });
  const name = Object.hasOwn(shortNames, wanted) ? shortNames[wanted] : (wanted as SchedulerName);
  if (!isFlow && name !== 'RectifiedFlow' && schedulerNames.includes(name))
    return createScheduler({ ...own, _class_name: name });
  throw new PromptError(
    `there is no scheduler ${wanted} for ${isFlow ? 'a rectified flow' : 'this model'}\n  known: ${samplersFor(own).join(', ')}`,
  );
}

/** 'DDIM', or 'RectifiedFlow euler' */
export const samplerName = (scheduler: Scheduler): string =>
  scheduler instanceof RectifiedFlowScheduler
    ? `${scheduler.name} ${scheduler.config.solver}`
    : scheduler.name.replace(/(Discrete)?Scheduler$/, '');
