/**
 * Learning rates over time, by the names and formulas of diffusers' `get_scheduler`.
 * @see https://github.com/huggingface/diffusers/blob/v0.21.4/src/diffusers/optimization.py
 */
export interface ScheduleOptions {
  /** The peak. */
  lr: number;
  /** The rate climbs from 0 for this many steps. */
  warmupSteps?: number;
  /** All steps, with those of the warm-up. */
  trainingSteps?: number;
  /** cosine: half a wave unless given; cosine_with_restarts: restarts (1). */
  cycles?: number;
  /** polynomial */
  power?: number;
  lrEnd?: number;
  /** piecewise_constant: '1:10,0.1:20,0.01' is 1 until step 10, 0.1 until step 20, then 0.01, times lr. */
  stepRules?: string;
}

/** The schedules by name, as in diffusers. */
export const scheduleNames = [
  'constant',
  'constant_with_warmup',
  'linear',
  'cosine',
  'cosine_with_restarts',
  'polynomial',
  'piecewise_constant',
] as const;
/** One of `scheduleNames`. */
export type ScheduleName = (typeof scheduleNames)[number];

/** The learning rate of step 0, 1, 2, … */
export function schedule(name: ScheduleName, options: ScheduleOptions): (step: number) => number {
  const { lr, warmupSteps = 0 } = options;
  if (!scheduleNames.includes(name))
    throw new Error(`unknown learning-rate schedule ${name}\n  known: ${scheduleNames.join(' ')}`);
  const factor = factors[name](options);
  const warms = name !== 'constant' && name !== 'piecewise_constant';
  return (step) => lr * (warms && step < warmupSteps ? step / Math.max(1, warmupSteps) : factor(step));
}

const factors: Record<ScheduleName, (options: ScheduleOptions) => (step: number) => number> = {
  constant: () => () => 1,
  constant_with_warmup: () => () => 1,
  linear: (o) => (step) => Math.max(0, 1 - progress(o, step)),
  cosine: (o) => (step) => Math.max(0, 0.5 * (1 + Math.cos(Math.PI * 2 * (o.cycles ?? 0.5) * progress(o, step)))),
  cosine_with_restarts: (o) => (step) => {
    const p = progress(o, step);
    return p >= 1 ? 0 : Math.max(0, 0.5 * (1 + Math.cos(Math.PI * (((o.cycles ?? 1) * p) % 1))));
  },
  polynomial: (o) => {
    const { lr, lrEnd = 1e-7, power = 1 } = o;
    if (lrEnd >= lr) throw new Error(`polynomial: lrEnd (${lrEnd}) must be below lr (${lr})`);
    return (step) => ((lr - lrEnd) * Math.max(0, 1 - progress(o, step)) ** power + lrEnd) / lr;
  },
  piecewise_constant: ({ stepRules = '1' }) => {
    const rules = stepRules.split(',').map((rule) => {
      const [value, until] = rule.split(':').map(Number);
      return { value, until: until ?? Infinity };
    });
    if (
      rules.some(({ value, until }) => Number.isNaN(value) || Number.isNaN(until)) ||
      rules.at(-1)!.until !== Infinity
    ) {
      throw new Error(`piecewise_constant: cannot read the rules "${stepRules}"\n  write them as 1:10,0.1:20,0.01`);
    }
    return (step) => rules.find(({ until }) => step < until)!.value;
  },
};

/** 0 after the warm-up, 1 at the end. */
function progress({ warmupSteps = 0, trainingSteps }: ScheduleOptions, step: number): number {
  if (!trainingSteps) throw new Error('this learning-rate schedule needs trainingSteps');
  return (step - warmupSteps) / Math.max(1, trainingSteps - warmupSteps);
}
