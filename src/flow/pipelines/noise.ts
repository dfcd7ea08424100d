import { tensor } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { TorchGenerator } from '../../tensor/random.ts';
import { drawNoise } from '../latents.ts';
import type { LatentShape } from '../latents.ts';
import { concatenate } from './arrays.ts';

/**
 * Noise for a batch, each image from a generator of its own: what an image gets does not depend on its neighbours, and is
 * what diffusers draws with a list of CPU generators.
 */
export class NoiseSource {
  readonly #generators: TorchGenerator[];

  constructor(
    seeds: readonly number[],
    readonly shape: LatentShape,
  ) {
    this.#generators = seeds.map((seed) => new TorchGenerator(seed));
  }

  /** The next noise of every image: [B, h, w, C] */
  next(): Tensor {
    const numbers = concatenate(this.#generators.map((generator) => drawNoise(generator, this.shape)));
    return tensor(numbers, [this.#generators.length, ...this.shape]);
  }
}
