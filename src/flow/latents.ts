/** Latents on the host: noise by seed, and the scale that flows work at. */
import { TorchGenerator } from '../tensor/random.ts';

/** [H, W, C] of one latent. */
export type LatentShape = readonly [height: number, width: number, channels: number];

export const latentSize = ([h, w, c]: LatentShape): number => h * w * c;

/** Noise for one image: drawn as PyTorch's CPU generator would for [C, H, W], laid out as [H, W, C]. */
export const seededNoise = (seed: number, shape: LatentShape): Float32Array =>
  drawNoise(new TorchGenerator(seed), shape);

/** The next noise of a generator. */
export function drawNoise(generator: TorchGenerator, [h, w, c]: LatentShape): Float32Array {
  const drawn = generator.randn(h * w * c);
  const out = new Float32Array(drawn.length);
  for (let channel = 0; channel < c; channel++) {
    for (let pixel = 0; pixel < h * w; pixel++) out[pixel * c + channel] = drawn[channel * h * w + pixel];
  }
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
