import { shapeError } from '../../kernels/index.ts';
import { add, concat, expand, narrow, reshape } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { gaussian, onesInit } from '../initializers.ts';
import { Conv2d } from '../layers/conv2d.ts';
import { Embedding } from '../layers/embedding.ts';
import { Linear } from '../layers/linear.ts';
import { LayerNorm } from '../layers/norm.ts';
import { Module, parameter } from '../module.ts';
import type { Parameter } from '../module.ts';
import { CLIPEncoder } from './clip-text.ts';
import type { CLIPSizes } from './clip-text.ts';

/** The fields of a transformers CLIPVisionConfig that matter. */
export interface CLIPVisionConfig extends CLIPSizes {
  image_size: number;
  patch_size: number;
  projection_dim: number;
}

/** CLIP ViT-L/14's image tower. */
export const clipVisionLConfig: CLIPVisionConfig = {
  hidden_size: 1024,
  intermediate_size: 4096,
  num_hidden_layers: 24,
  num_attention_heads: 16,
  hidden_act: 'quick_gelu',
  layer_norm_eps: 1e-5,
  image_size: 224,
  patch_size: 14,
  projection_dim: 768,
};

/** Patches of an image and their places, behind a token that stands for all of it. */
class CLIPVisionEmbeddings extends Module {
  class_embedding: Parameter; // [C]
  patch_embedding: Conv2d;
  position_embedding: Embedding;

  constructor({ hidden_size: C, image_size, patch_size }: CLIPVisionConfig) {
    super();
    this.class_embedding = parameter([C], gaussian(C ** -0.5));
    this.patch_embedding = new Conv2d(3, C, patch_size, { stride: patch_size, bias: false });
    this.position_embedding = new Embedding((image_size / patch_size) ** 2 + 1, C, gaussian(0.02));
  }

  /** x: [B, H, W, 3] → [B, 1 + patches, C] */
  forward(x: Tensor): Tensor {
    const [B] = x.shape;
    const C = this.class_embedding.size;
    const patches = reshape(this.patch_embedding.forward(x), [B, -1, C]);
    const first = expand(reshape(this.class_embedding, [1, 1, C]), [B, 1, C]);
    return add(concat([first, patches], { axis: 1 }), this.position_embedding.weight);
  }
}

class CLIPVisionTransformer extends Module {
  embeddings: CLIPVisionEmbeddings;
  pre_layrnorm: LayerNorm; // so spelt in checkpoints
  encoder: CLIPEncoder;
  post_layernorm: LayerNorm;

  constructor(config: CLIPVisionConfig) {
    super();
    const { hidden_size: C, layer_norm_eps: eps } = config;
    this.embeddings = new CLIPVisionEmbeddings(config);
    this.pre_layrnorm = new LayerNorm(C, { eps });
    this.encoder = new CLIPEncoder(config, false);
    this.post_layernorm = new LayerNorm(C, { eps });
  }

  /** x: [B, H, W, 3] → the first token, [B, C] */
  forward(x: Tensor): Tensor {
    let h = this.pre_layrnorm.forward(this.embeddings.forward(x));
    for (const layer of this.encoder.layers) h = layer.forward(h);
    const [B, , C] = h.shape;
    return this.post_layernorm.forward(reshape(narrow(h, { axis: 1, start: 0, length: 1 }), [B, C]));
  }
}

/** Checkpoints hold the tower one level down. */
class CLIPVisionModel extends Module {
  vision_model: CLIPVisionTransformer;

  constructor(config: CLIPVisionConfig) {
    super();
    this.vision_model = new CLIPVisionTransformer(config);
  }
}

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
    this.vision_model = new CLIPVisionModel(c);
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
    return this.visual_projection.forward(this.vision_model.vision_model.forward(x));
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
      const above = (table: Numbers, thresholds: Numbers, stricter: number) =>
        Array.from(thresholds).some((limit, i) => {
          const score = cosine(image, table.subarray(i * P, (i + 1) * P)) - limit + stricter;
          return Math.round(score * 1000) > 0;
        });
      return above(concepts, limits, above(specials, specialLimits, 0) ? 0.01 : 0);
    });
  }
}

type Numbers = Awaited<ReturnType<Tensor['read']>>;

function cosine(a: Numbers, b: Numbers): number {
  let [dot, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    dot += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return dot / Math.sqrt(aa * bb);
}
