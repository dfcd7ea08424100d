/** Which of the training timesteps are sampled. */

/** Ways to choose them. @see Lin et al. 2023, table 2. https://arxiv.org/abs/2305.08891 */
export const spacings = ['leading', 'linspace', 'trailing'] as const;
/** One of the ways to choose timesteps. */
export type Spacing = (typeof spacings)[number];

/** To the nearest whole number, halves to the even one, as NumPy rounds. */
export function roundHalfEven(x: number): number {
  const rounded = Math.round(x);
  return Math.abs(x % 1) === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/** `count` numbers from `first` to `last`, evenly; `first` alone when there is one. */
export function linspace(first: number, last: number, count: number): number[] {
  const step = (last - first) / (count - 1);
  return Array.from({ length: count }, (_, i) => (i > 0 && i === count - 1 ? last : first + (i && i * step)));
}

/**
 * `count` of `total` timesteps, the noisiest first; `linspace` ones are not rounded.
 *
 *     leading   0, k, 2k, … + offset          k = ⌊total / count⌋
 *     linspace  from 0 to total − 1
 *     trailing  total − 1, total − 1 − k, …   k = total / count
 */
export function spaced(spacing: Spacing, count: number, total: number, offset: number): number[] {
  if (spacing === 'linspace') return linspace(0, total - 1, count).reverse();
  if (spacing === 'trailing') return trailing(total, total / count);
  const ratio = Math.floor(total / count);
  return Array.from({ length: count }, (_, i) => i * ratio + offset).reverse();
}

/** From `last` − 1 down in steps of `ratio`. Rounding may leave one more step at −1 (61 of 1000), which is no timestep. */
export function trailing(last: number, ratio: number): number[] {
  const all = Array.from({ length: Math.ceil(last / ratio) }, (_, i) => roundHalfEven(last - i * ratio) - 1);
  return all.filter((t) => t >= 0);
}

/** `values` at places between its entries; the first or last beyond them. */
export function interpolate(values: Float64Array, at: number): number {
  const low = Math.max(0, Math.min(Math.floor(at), values.length - 2));
  const share = Math.max(0, Math.min(at - low, 1));
  return share === 1 ? values[low + 1] : values[low] + share * (values[low + 1] - values[low]);
}

/**
 * Noise levels that crowd together where there is little noise, from `most` to `least`, ρ = 7.
 * @see Karras et al. 2022, Elucidating the Design Space of Diffusion-Based Generative Models, eq. 5. https://arxiv.org/abs/2206.00364
 */
export function karrasSigmas(most: number, least: number, count: number): number[] {
  return linspace(0, 1, count).map((ramp) => (most ** (1 / 7) + ramp * (least ** (1 / 7) - most ** (1 / 7))) ** 7);
}

/** The timestep, not rounded, that has this much noise: between the two around it by ln σ. `sigmas` rise. */
export function timestepOfSigma(sigma: number, sigmas: Float64Array): number {
  let low = 0;
  while (low < sigmas.length - 2 && sigmas[low + 1] <= sigma) low++;
  const below = Math.log(sigmas[low]);
  const share = (Math.log(sigma) - below) / (Math.log(sigmas[low + 1]) - below);
  return low + Math.max(0, Math.min(share, 1));
}
