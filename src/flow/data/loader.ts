import { permutation, uniformU32 } from '../../tensor/random.ts';
import type { CaptionedImages } from './captioned-images.ts';

/** How far training has come: the next sample is number `index` of epoch `epoch`. Goes into checkpoints as JSON. */
export interface Cursor {
  epoch: number;
  index: number;
}

export interface SamplerOptions {
  batchSize: number;
  seed: number;
  nullText?: number; // share of samples whose caption is dropped, for guidance (0.1)
  specific?: number; // share of the others that get their first caption; the rest any of the later ones (0.5)
  randomFlip?: boolean; // mirror every second sample, at random
}

/** Which images go into a batch, with which words. */
export interface Batch {
  indices: Uint32Array; // [B]
  captions: string[]; // [B], '' where dropped
  flips: boolean[]; // [B]
}

/**
 * Batches from a data set in a new order every epoch, without end: a batch may reach into the next epoch.
 *
 * Every choice is a function of the seed and of the sample's number, none of what was drawn before. A sampler given
 * another's cursor goes on exactly as the other would have, and a longer run starts like a shorter one.
 */
export class BatchSampler {
  readonly length: number;
  readonly batchSize: number;
  readonly #captions: readonly (readonly string[])[];
  readonly #options: Required<SamplerOptions>;
  #cursor: Cursor = { epoch: 0, index: 0 };
  #order: { epoch: number; indices: Uint32Array } | undefined;

  /** captions: [N], at least one for each image */
  constructor(captions: readonly (readonly string[])[], options: SamplerOptions, cursor?: Cursor) {
    this.#options = { nullText: 0.1, specific: 0.5, randomFlip: false, ...options };
    const { batchSize, nullText, specific } = this.#options;
    const bare = captions.findIndex((list) => list.length === 0);
    const problem =
      captions.length === 0
        ? 'the data set is empty'
        : bare >= 0
          ? `image ${bare} has no caption`
          : !(Number.isInteger(batchSize) && batchSize > 0)
            ? `batchSize must be a whole number above 0, not ${batchSize}`
            : !isShare(nullText) || !isShare(specific)
              ? 'nullText and specific must lie in [0, 1]'
              : '';
    if (problem) throw new Error(`BatchSampler: ${problem}`);
    this.#captions = captions;
    this.length = captions.length;
    this.batchSize = batchSize;
    if (cursor) this.cursor = cursor;
  }

  get cursor(): Cursor {
    return { ...this.#cursor };
  }

  set cursor({ epoch, index }: Cursor) {
    if (!(Number.isInteger(epoch) && epoch >= 0 && Number.isInteger(index) && index >= 0 && index < this.length)) {
      throw new Error(
        `BatchSampler: cursor {epoch: ${epoch}, index: ${index}} does not fit ${this.length} images;` +
          ' is it from a run on other data?',
      );
    }
    this.#cursor = { epoch, index };
  }

  next(): Batch {
    const batch: Batch = { indices: new Uint32Array(this.batchSize), captions: [], flips: [] };
    for (let i = 0; i < this.batchSize; i++) {
      const { epoch, index } = this.#cursor;
      const image = this.#epochOrder(epoch)[index];
      const sample = epoch * this.length + index;
      batch.indices[i] = image;
      batch.captions.push(this.#caption(this.#captions[image], sample));
      batch.flips.push(this.#options.randomFlip && this.#share('flip', sample) < 0.5);
      this.#cursor = index + 1 < this.length ? { epoch, index: index + 1 } : { epoch: epoch + 1, index: 0 };
    }
    return batch;
  }

  #caption(captions: readonly string[], sample: number): string {
    if (this.#share('null text', sample) < this.#options.nullText) return '';
    const others = captions.length - 1;
    if (others === 0 || this.#share('specific caption', sample) < this.#options.specific) return captions[0];
    return captions[1 + Math.floor(this.#share('caption', sample) * others)];
  }

  /** A number in [0, 1) that belongs to this purpose and sample. */
  #share(purpose: string, sample: number): number {
    return uniformU32(this.#options.seed, purpose, sample) * 2 ** -32;
  }

  #epochOrder(epoch: number): Uint32Array {
    if (this.#order?.epoch !== epoch) {
      this.#order = { epoch, indices: permutation(this.#options.seed, epoch, this.length) };
    }
    return this.#order.indices;
  }
}

/** The pixels of a batch, mirrored where it says so: [B, H, W, 3] */
export function gatherImages(data: Pick<CaptionedImages, 'size' | 'images'>, batch: Batch): Float32Array {
  const { size, images } = data;
  const stride = size * size * 3;
  const out = new Float32Array(batch.indices.length * stride);
  batch.indices.forEach((image, i) => {
    const pixels = images.subarray(image * stride, (image + 1) * stride);
    out.set(batch.flips[i] ? mirror(pixels, size) : pixels, i * stride);
  });
  return out;
}

/** Left becomes right. pixels: [H, W, 3] */
export function mirror(pixels: Float32Array, size: number): Float32Array {
  const out = new Float32Array(pixels.length);
  for (let from = 0; from < pixels.length; from += 3) {
    const x = (from / 3) % size;
    const to = from + 3 * (size - 1 - 2 * x);
    for (let c = 0; c < 3; c++) out[to + c] = pixels[from + c];
  }
  return out;
}

function isShare(value: number): boolean {
  return value >= 0 && value <= 1;
}
