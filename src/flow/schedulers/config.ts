/** Fields of a diffusers scheduler_config.json: their defaults, and what each may be. */
import { betaSchedules } from './noise-schedule.ts';
import { spacings } from './spacing.ts';

/** One field: what it is when not given (or null), and what it may be. */
export interface Field<T> {
  standard: T;
  want: string;
  ok(value: unknown): boolean;
}

/** A configuration as its fields say. */
export type Config<F> = { [K in keyof F]: F[K] extends Field<infer T> ? T : never };

const field = <T>(standard: T, want: string, ok: (value: unknown) => boolean): Field<T> => ({ standard, want, ok });
const isNumber = (value: unknown): value is number => typeof value === 'number';

export const whole = (standard: number, least: number, most = 1e6): Field<number> =>
  field(standard, `a whole number from ${least} to ${most}`, (v) => Number.isInteger(v) && +v! >= least && +v! <= most);
export const positive = (standard: number): Field<number> =>
  field(standard, 'a number above 0', (v) => isNumber(v) && v > 0 && v < Infinity);
export const fraction = (standard: number): Field<number> =>
  field(standard, 'a number between 0 and 1', (v) => isNumber(v) && v > 0 && v < 1);
export const notNaN = (standard: number): Field<number> =>
  field(standard, 'a number', (v) => isNumber(v) && !Number.isNaN(v));
export const flag = (standard: boolean): Field<boolean> =>
  field(standard, 'true or false', (v) => typeof v === 'boolean');
export const oneOf = <T extends string>(standard: T, names: readonly T[]): Field<T> =>
  field(standard, `one of ${names.join(', ')}`, (v) => names.includes(v as T));
const fractions: Field<readonly number[] | undefined> = field(
  undefined as readonly number[] | undefined,
  'a list of numbers between 0 and 1',
  (v) => Array.isArray(v) && v.every((beta) => isNumber(beta) && beta > 0 && beta < 1),
);

/** What the network's output means: the noise, the image, or `v = √ᾱ·noise − √(1 − ᾱ)·image`. */
export const predictionTypes = ['epsilon', 'sample', 'v_prediction'] as const;
/** One of the meanings of a network's output. */
export type PredictionType = (typeof predictionTypes)[number];

/** What all schedulers of a discrete diffusion are told: how noise was added in training, and which times are sampled. */
export const trainingFields = {
  num_train_timesteps: whole(1000, 2),
  beta_start: fraction(0.0001),
  beta_end: fraction(0.02),
  beta_schedule: oneOf('linear', betaSchedules),
  trained_betas: fractions,
  prediction_type: oneOf<PredictionType>('epsilon', predictionTypes),
  timestep_spacing: oneOf('leading', spacings),
  steps_offset: whole(0, 0),
};

/** Clipping of the image that a step believes in. */
export const clipFields = { clip_sample: flag(true), clip_sample_range: positive(1) };

/** Would change the numbers, and is not done here. What leaves them as they are may be said. */
const refused: Record<string, readonly unknown[]> = {
  thresholding: [false],
  variance_type: ['fixed_small', 'fixed_small_log', 'fixed_large'],
  rescale_betas_zero_snr: [false],
  use_exponential_sigmas: [false],
  use_beta_sigmas: [false],
  use_lu_lambdas: [false],
  use_flow_sigmas: [false],
  timestep_type: ['discrete'],
};

/**
 * The configuration of a scheduler. Fields that it does not know belong to other schedulers and are ignored, as in
 * diffusers, except those known to ask for other numbers.
 * @throws RangeError that names the field, its value and what it may be
 */
export function readConfig<F extends object>(scheduler: string, given: object, fields: F): Config<F> {
  const said = given as Record<string, unknown>;
  for (const [name, allowed] of Object.entries(refused)) {
    const value = said[name] ?? undefined;
    if (value === undefined || name in fields || allowed.includes(value)) continue;
    throw new RangeError(
      `${scheduler}: ${name} ${show(value)} is not supported\n  known  ${allowed.map(show).join(', ')}`,
    );
  }
  const entries = Object.entries(fields as Record<string, Field<unknown>>).map(([name, { standard, want, ok }]) => {
    const value = said[name] ?? undefined;
    if (value === undefined) return [name, standard];
    if (ok(value)) return [name, value];
    throw new RangeError(`${scheduler}: ${name} is ${show(value)}, must be ${want}`);
  });
  return Object.fromEntries(entries) as Config<F>;
}

/** As in JSON, which has neither NaN nor infinities. */
const show = (value: unknown): string =>
  typeof value === 'number' ? String(value) : (JSON.stringify(value) ?? String(value)).slice(0, 80);
