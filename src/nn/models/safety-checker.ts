import { shapeError } from '../../kernels/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { cosine } from '../cosine.ts';
import { onesInit } from '../initializers.ts';
import { Linear } from '../layers/linear.ts';
import { Module, parameter } from '../module.ts';
import type { Parameter } from '../module.ts';
import { clipVisionLConfig, CLIPVisionModel } from './clip-vision.ts';
import type { CLIPVisionConfig } from './clip-vision.ts';

/**
 * Says which images look like one of 17 concepts that nobody should be shown unasked; closeness to one of three more makes
 * it stricter. Keys are those of diffusers' StableDiffusionSafetyChecker.
 * @see Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision. https://arxiv.org/abs/2103.00020
 */
export class SafetyChecker extends Module {
  vision_model: CLIPVisionModel;
  visual_projection: Linear;
  concept_embeds: Parameter; // [concepts, P]
  special_care_embeds: Parameter; // [specials, P]
  concept_embeds_weights: Parameter; // [concepts]: thresholds
  special_care_embeds_weights: Parameter; // [specials]
  readonly config: CLIPVisionConfig;

  constructor(config: Partial<CLIPVisionConfig> = {}, { concepts = 17, specials = 3 } = {}) {
    super();
    const c = (this.config = { ...clipVisionLConfig, ...config });
    this.vision_model = new CLIPVisionModel(c, { projection: false });
    this.visual_projection = new Linear(c.hidden_size, c.projection_dim, { bias: false });
    this.concept_embeds = parameter([concepts, c.projection_dim], onesInit);
    this.special_care_embeds = parameter([specials, c.projection_dim], onesInit);
    this.concept_embeds_weights = parameter([concepts], onesInit);
    this.special_care_embeds_weights = parameter([specials], onesInit);
  }

  /** One vector for each image.   x: [B, 224, 224, 3], normalised by `clipPixels` → [B, P] */
  embed(x: Tensor): Tensor {
    const { image_size: side } = this.config;
    if (x.shape.length !== 4 || x.shape[1] !== side || x.shape[2] !== side || x.shape[3] !== 3)
      throw shapeError('SafetyChecker', `wants images [B, ${side}, ${side}, 3]`, { x }, 'make them with clipPixels()');
    return this.visual_projection.forward(this.vision_model.forward(x));
  }

  /** Whether to hide each image.   x: [B, 224, 224, 3] */
  async flagged(x: Tensor): Promise<boolean[]> {
    const embeds = this.embed(x);
    const tables = [
      this.special_care_embeds,
      this.special_care_embeds_weights,
      this.concept_embeds,
      this.concept_embeds_weights,
    ];
    const [images, specials, specialLimits, concepts, limits] = await Promise.all(
      [embeds, ...tables].map((t) => t.read()),
    );
    const [B, P] = embeds.shape;
    return Array.from({ length: B }, (_, b) => {
      const image = images.subarray(b * P, (b + 1) * P);
      /** Above its threshold, to three decimals as in diffusers. */
      const above = (
        table: Awaited<ReturnType<Tensor['read']>>,
        thresholds: Awaited<ReturnType<Tensor['read']>>,
        stricter: number,
      ) =>
        Array.from(thresholds).some((limit, i) => {
          const score = cosine(image, table.subarray(i * P, (i + 1) * P)) - limit + stricter;
          return Math.round(score * 1000) > 0;
        });
      return above(concepts, limits, above(specials, specialLimits, 0) ? 0.01 : 0);
    });
  }
}
