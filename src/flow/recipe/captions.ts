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

/** The prompts on sample sheets: those that were asked for, else well-known ones among the captions, then others. */
export function previewPrompts(captions: readonly string[], asked: readonly string[] = [], count = 12): string[] {
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
  const have = new Set(captions);
  const found = wanted.filter((prompt) => have.has(prompt));
  const others = [...have].filter((caption) => !found.includes(caption));
  return [...found, ...others].slice(0, count);
}
