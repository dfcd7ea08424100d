/** The real images that made ones are held to, as vectors of a feature network. */
import type { CaptionedImages } from '../data/captioned-images.ts';
import { concatenate } from '../pipelines/arrays.ts';
import type { FeatureNetwork } from './feature-network.ts';
import { frechetDistance, gaussianOf } from './frechet.ts';
import type { Gaussian } from './frechet.ts';
import { deviations, nearest, standardise } from './nearest.ts';

export class RealImages {
  readonly #gaussian: Gaussian;
  readonly #spread: Float64Array;
  readonly #standard: Float32Array;

  private constructor(
    readonly captions: readonly string[][],
    features: Float32Array,
    readonly dims: number,
  ) {
    this.#gaussian = gaussianOf(features, dims);
    this.#spread = deviations(features, dims);
    this.#standard = standardise(features, this.#spread);
  }

  static async of(data: CaptionedImages, network: FeatureNetwork, batchSize: number): Promise<RealImages> {
    const each = data.size * data.size * 3;
    const parts: Float32Array[] = [];
    for (let from = 0; from < data.ids.length; from += batchSize)
      parts.push(await network.features(data.images.subarray(from * each, (from + batchSize) * each), data.size));
    return new RealImages(data.captions, concatenate(parts), network.dims);
  }

  /** Fréchet distance of made images: [n, dims] */
  distance(features: Float32Array): number {
    return frechetDistance(gaussianOf(features, this.dims), this.#gaussian);
  }

  /** Share of made images [n, dims] whose nearest real one carries the prompt that they were made from. */
  captionAccuracy(features: Float32Array, prompts: readonly string[]): number {
    const { index } = nearest(standardise(features, this.#spread), this.#standard, this.dims);
    return index.reduce((right, j, i) => right + Number(this.captions[j]?.includes(prompts[i])), 0) / prompts.length;
  }
}
