/** The noise of a training step, as diffusers' --noise_offset and --input_perturbation change it. */
import { normal } from '../tensor/random.ts';
import type { LatentShape } from './latents.ts';

/** What is changed: both 0 unless given. */
export interface NoiseOptions {
  /** Deviation of what a whole channel of an image is lifted by: pictures that are darker or brighter than most. */
  noiseOffset?: number;
  /** Deviation of more noise in what the network sees, not in what it is to predict. */
  inputPerturbation?: number;
}

/**
 * Noise of B images for the n-th step, from a stream of random numbers by its name.   x0, seen: [B, h, w, C]
 *
 *     x0 = ε + offset · δ      δ: [B, 1, 1, C]        seen = x0 + perturbation · ε′
 *
 * @see Guttenberg 2023, Diffusion with Offset Noise. https://www.crosslabs.org/blog/diffusion-with-offset-noise
 * @see Ning et al. 2023, Input Perturbation Reduces Exposure Bias, eq. 4. https://arxiv.org/abs/2301.11706
 */
export function trainingNoise(
  seed: number,
  stream: string,
  n: number,
  batchSize: number,
  [h, w, C]: LatentShape,
  { noiseOffset = 0, inputPerturbation = 0 }: NoiseOptions = {},
): { x0: Float32Array; seen: Float32Array } {
  const each = h * w * C;
  const size = batchSize * each;
  const x0 = normal(seed, stream, size, n * size);
  if (noiseOffset) {
    const lift = normal(seed, `${stream} offset`, batchSize * C, n * batchSize * C);
    for (let i = 0; i < size; i++) x0[i] += noiseOffset * lift[Math.floor(i / each) * C + (i % C)];
  }
  if (!inputPerturbation) return { x0, seen: x0 };
  const more = normal(seed, `${stream} perturbation`, size, n * size);
  return { x0, seen: x0.map((value, i) => value + inputPerturbation * more[i]) };
}
