/** Latents on the host: noise by seed, and the scale that flows work at. */
import { TorchGenerator } from '../tensor/random.ts';

/** [H, W, C] of one latent. */
export type LatentShape = readonly [height: number, width: number, channels: number];

export const latentSize = ([h, w, c]: LatentShape): number => h * w * c;

/** Noise for one image: drawn as PyTorch's CPU generator would for [C, H, W], laid out as [H, W, C]. */
export const seededNoise = (seed: number, shape: LatentShape): Float32Array =>
  drawNoise(new TorchGenerator(seed), shape);

/** The next noise of a generator. */
export const drawNoise = (generator: TorchGenerator, shape: LatentShape): Float32Array =>
  channelsLast(generator.randn(latentSize(shape)), shape);

/** As PyTorch has it → as we have it.   [C, H, W] → [H, W, C] */
export const channelsLast = (z: Float32Array, [h, w, c]: LatentShape): Float32Array => swapped(z, c, h * w);

/** And back.   [H, W, C] → [C, H, W] */
export const channelsFirst = (z: Float32Array, [h, w, c]: LatentShape): Float32Array => swapped(z, h * w, c);

/** [rows, cols] → [cols, rows] */
function swapped(z: Float32Array, rows: number, cols: number): Float32Array {
  const out = new Float32Array(z.length);
  for (let row = 0; row < rows; row++) for (let col = 0; col < cols; col++) out[col * rows + row] = z[row * cols + col];
  return out;
}

/** The fields of a diffusers AutoencoderKL configuration that say how its latents are scaled. */
export interface LatentScale {
  scaling_factor?: number;
  shift_factor?: number | null;
  /** Per channel, [C]. */
  latents_mean?: number[] | null;
  latents_std?: number[] | null;
}

/** What the encoder makes → what flows work on: mean 0 and deviation 1 in every channel.   z: [N, H, W, C] */
export function scaleLatents(z: Float32Array, channels: number, scale: LatentScale): Float32Array {
  const { mean, factor } = affine(channels, scale);
  return z.map((value, i) => (value - mean[i % channels]) * factor[i % channels]);
}

/** And back, for the decoder. */
export function unscaleLatents(z: Float32Array, channels: number, scale: LatentScale): Float32Array {
  const { mean, factor } = affine(channels, scale);
  return z.map((value, i) => value / factor[i % channels] + mean[i % channels]);
}

/** What is taken off each channel and what the rest is multiplied by: [C] each. */
export function affine(channels: number, { scaling_factor = 1, shift_factor, latents_mean, latents_std }: LatentScale) {
  const mean = Array.from({ length: channels }, (_, c) => latents_mean?.[c] ?? shift_factor ?? 0);
  const factor = Array.from({ length: channels }, (_, c) => scaling_factor / (latents_std?.[c] ?? 1));
  return { mean, factor };
}

/** Mean and deviation of each channel.   z: [N, H, W, C] */
export function latentStatistics(z: Float32Array, channels: number): { latents_mean: number[]; latents_std: number[] } {
  const count = z.length / channels;
  const mean = Array<number>(channels).fill(0);
  const square = Array<number>(channels).fill(0);
  z.forEach((value, i) => (mean[i % channels] += value / count));
  z.forEach((value, i) => (square[i % channels] += (value - mean[i % channels]) ** 2 / count));
  return { latents_mean: mean, latents_std: square.map((v) => Math.max(Math.sqrt(v), 1e-6)) };
}
