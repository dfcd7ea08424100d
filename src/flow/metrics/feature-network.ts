/** Networks that turn images into vectors, for the Fréchet distance and for the nearest real image. */
import type { InceptionV3 } from '../../nn/models/inception.ts';
import type { CLIPVisionModel } from '../../nn/models/clip-vision.ts';
import { clipPixels } from '../../nn/models/clip-pixels.ts';
import { noGrad, scope, tensor } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { fromBytes, toBytes } from '../data/captioned-images.ts';
import { featureCount, imageFeatures } from './features.ts';

export interface FeatureNetwork {
  /** As results name it: 'small fixed features'. */
  readonly name: string;
  /** Numbers per image. */
  readonly dims: number;
  /** What the Fréchet distance in this space is called: FID only where network and weights are those of the FID. */
  readonly distance: string;
  /** images: [n, side, side, 3] in −1 … 1 → [n, dims] */
  features(images: Float32Array, side: number): Promise<Float32Array>;
  dispose(): void;
}

const named = (name: string) => ({ name, distance: `Fréchet distance (${name})` });

/** The fixed features of features.ts: nothing to download. */
export const smallFeatures: FeatureNetwork = {
  ...named('small fixed features'),
  dims: featureCount,
  features: (images, side) => Promise.resolve(imageFeatures(images, side, side)),
  dispose() {},
};

/** `weights`: where they come from, when that is known. */
export function clipFeatures(model: CLIPVisionModel, weights: string | undefined): FeatureNetwork {
  return {
    ...named(`CLIP image tower, ${weights ?? 'weights not recognised'}`),
    dims: model.width,
    features: (images, side) => read(() => model.forward(clipTensor(images, side, model.config.image_size))),
    dispose: () => model.dispose(),
  };
}

/** `isFid`: the weights are those of the FID. */
export function inceptionFeatures(model: InceptionV3, isFid: boolean): FeatureNetwork {
  const name = `Inception v3, ${isFid ? 'weights of the FID' : 'weights not recognised'}`;
  return {
    ...named(name),
    ...(isFid ? { distance: 'FID' } : {}),
    dims: 2048,
    // The FID is a distance of image files, whose pixels are bytes.
    features: (images, side) => {
      const bytes = fromBytes(Uint8Array.from(toBytes(images)));
      return read(() => model.forward(tensor(bytes, [bytes.length / (side * side * 3), side, side, 3])));
    },
    dispose: () => model.dispose(),
  };
}

/** Pixels as CLIP's image tower wants them.   images: [n, side, side, 3] in −1 … 1 → [n, wanted, wanted, 3] */
export function clipTensor(images: Float32Array, side: number, wanted: number): Tensor {
  const each = side * side * 3;
  const count = images.length / each;
  const pixels = new Float32Array(count * wanted * wanted * 3);
  for (let i = 0; i < count; i++) {
    const image = images.subarray(i * each, (i + 1) * each).map((v) => v / 2 + 0.5);
    pixels.set(clipPixels(image, [side, side], { side: wanted }), i * wanted * wanted * 3);
  }
  return tensor(pixels, [count, wanted, wanted, 3]);
}

/** The numbers of a tensor that is made without a tape. */
export async function read(make: () => Tensor): Promise<Float32Array> {
  const made = noGrad(() => scope(make));
  try {
    return (await made.read()) as Float32Array;
  } finally {
    made.dispose();
  }
}
