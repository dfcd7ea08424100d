/** How well images fit their prompts, as CLIP sees it: the cosine between the two vectors. */
import { CLIPTextModel, idsTensor } from '../../nn/index.ts';
import { cosine } from '../../nn/cosine.ts';
import type { CLIPVisionModel } from '../../nn/models/clip-vision.ts';
import type { ClipTokenizer } from '../../nn/tokenizer.ts';
import { clipTensor, read } from './feature-network.ts';

export class ClipScore {
  readonly #texts = new Map<string, Float32Array>();

  /** `weights`: where they come from, when that is known. */
  constructor(
    readonly parts: { text: CLIPTextModel; vision: CLIPVisionModel; tokenizer: ClipTokenizer },
    readonly weights: string | undefined,
  ) {}

  /** What its numbers are called: CLIP score only where the weights are CLIP's. */
  get name(): string {
    return this.weights
      ? `CLIP score (${this.weights})`
      : 'text similarity (CLIP-shaped network, weights not recognised)';
  }

  /**
   * Cosines of images and their prompts, 0 where they are negative.   images: [n, side, side, 3] in −1 … 1 → [n]
   * @see Hessel et al. 2021, CLIPScore, without its factor of 2.5. https://arxiv.org/abs/2104.08718
   */
  async of(images: Float32Array, side: number, prompts: readonly string[]): Promise<number[]> {
    const { vision } = this.parts;
    await this.#embed(prompts);
    const seen = await read(() => vision.forward(clipTensor(images, side, vision.config.image_size)));
    return prompts.map((prompt, i) =>
      Math.max(0, cosine(seen.subarray(i * vision.width, (i + 1) * vision.width), this.#texts.get(prompt)!)),
    );
  }

  dispose(): void {
    this.parts.text.dispose();
    this.parts.vision.dispose();
  }

  async #embed(prompts: readonly string[]): Promise<void> {
    const { text, tokenizer } = this.parts;
    const fresh = [...new Set(prompts)].filter((prompt) => !this.#texts.has(prompt));
    if (fresh.length === 0) return;
    const rows = fresh.map((prompt) => tokenizer.encode(prompt).ids);
    const vectors = await read(() => text.project(text.pool(text.forward(idsTensor(rows)).lastHiddenState, rows)));
    const width = vectors.length / fresh.length;
    fresh.forEach((prompt, i) => this.#texts.set(prompt, vectors.slice(i * width, (i + 1) * width)));
  }
}
