import { uniform } from '../../tensor/random.ts';
import { BatchSampler } from '../data/loader.ts';
import type { CaptionedImages } from '../data/captioned-images.ts';

/** A sampler that gives the batch of any step, as if all before it had been drawn. */
export function batchAt(sampler: BatchSampler, step: number) {
  const first = step * sampler.batchSize;
  sampler.cursor = { epoch: Math.floor(first / sampler.length), index: first % sampler.length };
  return sampler.next();
}

/** `count` prompts in the proportions of training: each image in turn, usually by its specific caption. */
export function drawPrompts(
  data: CaptionedImages,
  count: number,
  seed: number,
  specific: number,
): { image: number; text: string }[] {
  const sampler = new BatchSampler(data.captions, { batchSize: count, seed, nullText: 0, specific });
  const { indices, captions } = sampler.next();
  return captions.map((text, i) => ({ image: indices[i], text }));
}

/**
 * B times, spread evenly over [0, 1): each by itself is uniform, and together they cover the path.
 *
 *     tᵢ = frac(u + i / B)
 */
export function spreadTimes(seed: number, stream: string, step: number, batch: number): Float32Array {
  const [u] = uniform(seed, stream, 1, step);
  return Float32Array.from({ length: batch }, (_, i) => (u + i / batch) % 1);
}

/** The prompts on sample sheets: those that were asked for, else well-known ones when the data has them. */
export function previewPrompts(data: CaptionedImages, asked: readonly string[] = [], count = 12): string[] {
  if (asked.length) return [...asked];
  const wanted = [
    'red apple',
    'pizza',
    'rocket',
    'sunflower',
    'tiger face',
    'blue heart',
    'house',
    'penguin',
    'rainbow',
    'guitar',
    'ghost',
    'soccer ball',
  ];
  const have = new Set(data.captions.map(([first]) => first));
  const found = wanted.filter((prompt) => have.has(prompt));
  const others = [...have].filter((caption) => !found.includes(caption));
  return [...found, ...others].slice(0, count);
}
