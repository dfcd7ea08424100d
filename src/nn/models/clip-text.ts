import { shapeError, wantWhole } from '../../kernels/index.ts';
import { add, attention, embedding, gelu, narrow, quickGelu, reshape, tensor } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { gaussian, zerosInit } from '../initializers.ts';
import { Embedding } from '../layers/embedding.ts';
import { Linear } from '../layers/linear.ts';
import { LayerNorm } from '../layers/norm.ts';
import { Module } from '../module.ts';

/** The fields of a transformers CLIPTextModel config.json that matter. */
export interface CLIPTextConfig {
  vocab_size: number;
  hidden_size: number;
  intermediate_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  max_position_embeddings: number;
  hidden_act: 'quick_gelu' | 'gelu';
  layer_norm_eps: number;
  projection_dim: number;
}

/** CLIP ViT-L/14's text tower: the text encoder of Stable Diffusion 1.x. */
export const clipLConfig: CLIPTextConfig = {
  vocab_size: 49408,
  hidden_size: 768,
  intermediate_size: 3072,
  num_hidden_layers: 12,
  num_attention_heads: 12,
  max_position_embeddings: 77,
  hidden_act: 'quick_gelu',
  layer_norm_eps: 1e-5,
  projection_dim: 768,
};

/** Tokens and their places, added. */
class CLIPTextEmbeddings extends Module {
  token_embedding: Embedding;
  position_embedding: Embedding;

  constructor({ vocab_size, max_position_embeddings, hidden_size }: CLIPTextConfig) {
    super();
    this.token_embedding = new Embedding(vocab_size, hidden_size, gaussian(0.02));
    this.position_embedding = new Embedding(max_position_embeddings, hidden_size, gaussian(0.02));
  }

  /** ids: [B, T] → [B, T, C] */
  forward(ids: Tensor): Tensor {
    const [, T] = ids.shape;
    const places = this.position_embedding.weight;
    if (T > places.shape[0]) {
      throw shapeError(
        'CLIPTextModel',
        `${T} tokens, but only ${places.shape[0]} places`,
        { 'ids [B, T]': ids },
        'cut the text',
      );
    }
    return add(
      this.token_embedding.forward(ids),
      T === places.shape[0] ? places : narrow(places, { axis: 0, start: 0, length: T }),
    );
  }
}

/** The sizes of a CLIP transformer, of texts or of images. */
export type CLIPSizes = Pick<
  CLIPTextConfig,
  'hidden_size' | 'intermediate_size' | 'num_hidden_layers' | 'num_attention_heads' | 'hidden_act' | 'layer_norm_eps'
>;

/** In texts each token looks at itself and at those before it, in images at all. */
class CLIPAttention extends Module {
  k_proj: Linear;
  v_proj: Linear;
  q_proj: Linear;
  out_proj: Linear;
  readonly heads: number;

  constructor(
    { hidden_size: C, num_attention_heads, num_hidden_layers }: CLIPSizes,
    readonly causal: boolean,
  ) {
    super();
    const inside = { weightInit: gaussian(C ** -0.5 * (2 * num_hidden_layers) ** -0.5), biasInit: zerosInit };
    this.k_proj = new Linear(C, C, inside);
    this.v_proj = new Linear(C, C, inside);
    this.q_proj = new Linear(C, C, inside);
    this.out_proj = new Linear(C, C, { weightInit: gaussian(C ** -0.5), biasInit: zerosInit });
    this.heads = num_attention_heads;
  }

  /** x: [B, T, C] → [B, T, C], plus `residual` */
  forward(x: Tensor, { residual }: { residual: Tensor }): Tensor {
    const q = this.q_proj.forward(x),
      k = this.k_proj.forward(x),
      v = this.v_proj.forward(x);
    return this.out_proj.forward(attention(q, k, v, { heads: this.heads, causal: this.causal }), { residual });
  }
}

class CLIPMLP extends Module {
  fc1: Linear;
  fc2: Linear;
  readonly act: 'quick_gelu' | 'gelu';

  constructor({ hidden_size: C, intermediate_size: inner, num_hidden_layers, hidden_act }: CLIPSizes) {
    super();
    this.fc1 = new Linear(C, inner, { weightInit: gaussian((2 * C) ** -0.5), biasInit: zerosInit });
    this.fc2 = new Linear(inner, C, {
      weightInit: gaussian(C ** -0.5 * (2 * num_hidden_layers) ** -0.5),
      biasInit: zerosInit,
    });
    this.act = hidden_act;
  }

  /** x: [B, T, C] → [B, T, C], plus `residual` */
  forward(x: Tensor, { residual }: { residual: Tensor }): Tensor {
    const h = this.fc1.forward(x);
    return this.fc2.forward(this.act === 'gelu' ? gelu(h) : quickGelu(h), { residual });
  }
}

class CLIPEncoderLayer extends Module {
  self_attn: CLIPAttention;
  layer_norm1: LayerNorm;
  mlp: CLIPMLP;
  layer_norm2: LayerNorm;

  constructor(config: CLIPSizes, causal: boolean) {
    super();
    this.self_attn = new CLIPAttention(config, causal);
    this.layer_norm1 = new LayerNorm(config.hidden_size, { eps: config.layer_norm_eps });
    this.mlp = new CLIPMLP(config);
    this.layer_norm2 = new LayerNorm(config.hidden_size, { eps: config.layer_norm_eps });
  }

  /** x: [B, T, C] → [B, T, C] */
  forward(x: Tensor): Tensor {
    x = this.self_attn.forward(this.layer_norm1.forward(x), { residual: x });
    return this.mlp.forward(this.layer_norm2.forward(x), { residual: x });
  }
}

/** Layers of attention and a perceptron each. */
export class CLIPEncoder extends Module {
  layers: CLIPEncoderLayer[];

  constructor(config: CLIPSizes, causal = true) {
    super();
    this.layers = Array.from({ length: config.num_hidden_layers }, () => new CLIPEncoderLayer(config, causal));
  }
}

class CLIPTextTransformer extends Module {
  embeddings: CLIPTextEmbeddings;
  encoder: CLIPEncoder;
  final_layer_norm: LayerNorm;

  constructor(config: CLIPTextConfig) {
    super();
    this.embeddings = new CLIPTextEmbeddings(config);
    this.encoder = new CLIPEncoder(config);
    this.final_layer_norm = new LayerNorm(config.hidden_size, { eps: config.layer_norm_eps });
  }
}

/** What the text encoder made of its tokens. */
export interface CLIPTextOutput {
  /** [B, T, C], after the final layer norm: what Stable Diffusion reads. */
  lastHiddenState: Tensor;
  /** [B, T, C] each: the embeddings, then what each layer made of them. SDXL reads the last but one. */
  hiddenStates: Tensor[];
}

/**
 * Text → a vector per token. A transformer in which each token sees only those before it.
 * @see Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision. https://arxiv.org/abs/2103.00020
 */
export class CLIPTextModel extends Module {
  text_model: CLIPTextTransformer;
  text_projection: Linear | undefined;
  readonly config: CLIPTextConfig;

  /** `projection`: also embed whole texts, as transformers' CLIPTextModelWithProjection does. */
  constructor(config: Partial<CLIPTextConfig> = {}, { projection = false } = {}) {
    super();
    const c = (this.config = { ...clipLConfig, ...config });
    if (c.hidden_act !== 'quick_gelu' && c.hidden_act !== 'gelu') {
      throw new Error(`CLIPTextModel: hidden_act ${c.hidden_act} is not supported\n  known: quick_gelu gelu`);
    }
    wantWhole('CLIPTextModel', 'num_attention_heads', c.num_attention_heads, 1);
    if (c.hidden_size % c.num_attention_heads) {
      throw shapeError('CLIPTextModel', `${c.hidden_size} channels do not split into ${c.num_attention_heads} heads`);
    }
    this.text_model = new CLIPTextTransformer(c);
    if (projection) {
      this.text_projection = new Linear(c.hidden_size, c.projection_dim, {
        bias: false,
        weightInit: gaussian(c.hidden_size ** -0.5),
      });
    }
  }

  /** ids: [B, T] */
  forward(ids: Tensor | readonly ArrayLike<number>[]): CLIPTextOutput {
    const { embeddings, encoder, final_layer_norm: norm } = this.text_model;
    const hiddenStates = [embeddings.forward('shape' in ids ? ids : idsTensor(ids))];
    for (const layer of encoder.layers) hiddenStates.push(layer.forward(hiddenStates.at(-1)!));
    return { lastHiddenState: norm.forward(hiddenStates.at(-1)!), hiddenStates };
  }

  /** The token that has seen all of its text: the first with the highest id. lastHiddenState: [B, T, C] → [B, C] */
  pool(lastHiddenState: Tensor, ids: readonly ArrayLike<number>[]): Tensor {
    const [B, T, C] = lastHiddenState.shape;
    const rows = ids.map((row, b) => {
      const numbers = Array.from(row);
      return b * T + numbers.indexOf(Math.max(...numbers));
    });
    return embedding(reshape(lastHiddenState, [B * T, C]), tensor(rows, [B], { dtype: 'i32' }));
  }

  /** One vector for each text, from `pool`: [B, C] → [B, P] */
  project(pooled: Tensor): Tensor {
    if (!this.text_projection)
      throw new Error('CLIPTextModel: this model has no text_projection\n  make it with { projection: true }');
    return this.text_projection.forward(pooled);
  }
}

/** Rows of equal length → [B, T] i32 */
export function idsTensor(rows: readonly ArrayLike<number>[]): Tensor {
  const T = rows[0]?.length ?? 0;
  const odd = rows.find((row) => row.length !== T);
  if (odd) throw shapeError('CLIPTextModel', `texts differ in length (${odd.length} ≠ ${T})`, {}, 'pad them');
  return tensor(
    rows.flatMap((row) => Array.from(row)),
    [rows.length, T],
    { dtype: 'i32' },
  );
}
