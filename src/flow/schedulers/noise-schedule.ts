/** How much noise each training timestep holds. */

/** Names of the ways that β goes. */
export const betaSchedules = ['linear', 'scaled_linear', 'squaredcos_cap_v2'] as const;

/** What a noise schedule is made of, by the names of diffusers' fields. */
export interface NoiseScheduleConfig {
  num_train_timesteps: number;
  beta_start: number;
  beta_end: number;
  beta_schedule: (typeof betaSchedules)[number];
  trained_betas?: readonly number[];
  rescale_betas_zero_snr?: boolean;
}

/**
 * A variance-preserving diffusion, in float64.
 *
 *     x_t = √ᾱ_t · image + √(1 − ᾱ_t) · noise        ᾱ_t = ∏ (1 − β_s), s ≤ t
 *
 * @see Ho et al. 2020, Denoising Diffusion Probabilistic Models, eq. 4. https://arxiv.org/abs/2006.11239
 */
export class NoiseSchedule {
  /** [num_train_timesteps] */
  readonly betas: Float64Array;
  /** ᾱ: [num_train_timesteps] */
  readonly alphasCumprod: Float64Array;
  /** σ = √((1 − ᾱ) / ᾱ), noise per image: [num_train_timesteps] */
  readonly sigmas: Float64Array;

  constructor(config: NoiseScheduleConfig) {
    const betas = betasOf(config);
    this.betas = config.rescale_betas_zero_snr ? withoutLastSignal(betas) : betas;
    this.alphasCumprod = cumulative(this.betas);
    this.sigmas = this.alphasCumprod.map((abar) => Math.sqrt((1 - abar) / abar));
  }

  /** How many training timesteps there are. */
  get length(): number {
    return this.betas.length;
  }

  /** √ᾱ and √(1 − ᾱ): how much of the image and of the noise there is at a timestep. */
  scales(t: number): { alpha: number; sigma: number } {
    return scalesOf(this.alphasCumprod[t]);
  }
}

/** √ᾱ and √(1 − ᾱ). */
export const scalesOf = (abar: number): { alpha: number; sigma: number } => ({
  alpha: Math.sqrt(abar),
  sigma: Math.sqrt(1 - abar),
});

function betasOf({ num_train_timesteps: n, beta_start: a, beta_end: b, ...config }: NoiseScheduleConfig): Float64Array {
  const { trained_betas: trained, beta_schedule: schedule } = config;
  if (trained) {
    if (trained.length === n) return Float64Array.from(trained);
    throw new RangeError(`trained_betas has ${trained.length} numbers for ${n} timesteps\n  num_train_timesteps  ${n}`);
  }
  const along = (from: number, to: number) =>
    Float64Array.from({ length: n }, (_, i) => from + (i * (to - from)) / (n - 1));
  if (schedule === 'linear') return along(a, b);
  if (schedule === 'scaled_linear') return along(Math.sqrt(a), Math.sqrt(b)).map((root) => root * root);
  return Float64Array.from({ length: n }, (_, i) => Math.min(1 - cosine((i + 1) / n) / cosine(i / n), 0.999));
}

/** @see Nichol & Dhariwal 2021, Improved Denoising Diffusion Probabilistic Models, eq. 17. https://arxiv.org/abs/2102.09672 */
const cosine = (t: number): number => Math.cos((((t + 0.008) / 1.008) * Math.PI) / 2) ** 2;

function cumulative(betas: Float64Array): Float64Array {
  let product = 1;
  return betas.map((beta) => (product *= 1 - beta));
}

/**
 * Betas after which nothing of the image is left: √ᾱ moved down to 0 at the end, and stretched to begin where it did.
 * @see Lin et al. 2023, Common Diffusion Noise Schedules and Sample Steps are Flawed, alg. 1. https://arxiv.org/abs/2305.08891
 */
function withoutLastSignal(betas: Float64Array): Float64Array {
  const root = cumulative(betas).map(Math.sqrt);
  const first = root[0],
    last = root.at(-1)!;
  const abar = root.map((s) => ((s - last) * (first / (first - last))) ** 2);
  return abar.map((value, i) => 1 - value / (i === 0 ? 1 : abar[i - 1]));
}
