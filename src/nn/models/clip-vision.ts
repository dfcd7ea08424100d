import { shapeError } from '../../kernels/index.ts';
import { add, concat, expand, narrow, reshape } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { gaussian } from '../initializers.ts';
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

export class CLIPVisionTransformer extends Module {
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

/**
 * Image → a vector. Keys are those of transformers' CLIPVisionModel, or CLIPVisionModelWithProjection.
 * @see Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision. https://arxiv.org/abs/2103.00020
 */
export class CLIPVisionModel extends Module {
  vision_model: CLIPVisionTransformer;
  visual_projection: Linear | undefined;
  readonly config: CLIPVisionConfig;

  /** `projection`: go on to the space that CLIP shares with texts. */
  constructor(config: Partial<CLIPVisionConfig> = {}, { projection = true } = {}) {
    super();
    const c = (this.config = { ...clipVisionLConfig, ...config });
    this.vision_model = new CLIPVisionTransformer(c);
    if (projection) this.visual_projection = new Linear(c.hidden_size, c.projection_dim, { bias: false });
  }

  /** Numbers in a vector. */
  get width(): number {
    return this.visual_projection ? this.config.projection_dim : this.config.hidden_size;
  }

  /** x: [B, 224, 224, 3], normalised by `clipPixels` → [B, width] */
  forward(x: Tensor): Tensor {
    const { image_size: side } = this.config;
    if (x.shape.length !== 4 || x.shape[1] !== side || x.shape[2] !== side || x.shape[3] !== 3)
      throw shapeError(
        'CLIPVisionModel',
        `wants images [B, ${side}, ${side}, 3]`,
        { x },
        'make them with clipPixels()',
      );
    const pooled = this.vision_model.forward(x);
    return this.visual_projection ? this.visual_projection.forward(pooled) : pooled;
  }
}
