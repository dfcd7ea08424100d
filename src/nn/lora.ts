/**
 * LoRA: a change of a layer's weights that has few numbers, because it is a product of two thin matrices.
 *
 *     W' = W + s · (α / r) · B A        A (down): [r, I]   B (up): [O, r]
 *
 * For a convolution A is one too, to r channels, and B is 1×1: W' is then [O, kh, kw, I] by the same product.
 * @see Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models, §4.1. https://arxiv.org/abs/2106.09685
 */
import { wantWhole } from '../kernels/index.ts';
import { linear, mul, reshape, scope, transpose } from '../tensor/index.ts';
import type { Tensor } from '../tensor/index.ts';
import { Conv2d } from './layers/conv2d.ts';
import { Linear } from './layers/linear.ts';
import { perPixel } from './layers/transformer.ts';
import { Module } from './module.ts';
import type { Parameter } from './module.ts';

/** A layer that a LoRA may change. */
export type LoraTarget = Linear | Conv2d;

/** The networks of a pipeline by PEFT's names for them, which keys of LoRA files begin with. */
export type LoraModels = Partial<Record<(typeof componentNames)[number], Module>>;
export const componentNames = ['unet', 'text_encoder', 'text_encoder_2'] as const;

/** The two factors for one layer. */
export class LoraLayer extends Module {
  lora_A: LoraTarget; // [r, I] or [r, kh, kw, I]
  lora_B: LoraTarget; // [O, r] or [O, 1, 1, r]
  /** What the product of the factors is multiplied by: α / r. */
  readonly scaling: number;
  readonly #target: LoraTarget;

  constructor(target: LoraTarget, rank: number, scaling = 1) {
    super();
    wantWhole('LoRA', 'rank', rank, 1);
    const { shape } = target.weight;
    const [O, I] = [shape[0], shape.at(-1)!];
    if (target instanceof Linear) {
      this.lora_A = new Linear(I, rank, { bias: false });
      this.lora_B = new Linear(rank, O, { bias: false });
    } else {
      const { stride, padding } = target;
      this.lora_A = new Conv2d(I, rank, shape[1], { stride, padding, bias: false });
      this.lora_B = new Conv2d(rank, O, 1, { bias: false });
    }
    this.scaling = scaling;
    this.#target = target;
  }

  /** The layer that the factors are for. */
  get target(): LoraTarget {
    return this.#target;
  }
  /** Channels between the factors. */
  get rank(): number {
    return this.lora_A.weight.shape[0];
  }

  /** x, as the layer gets it → residual + scale · (α / r) · B(A(x)), as the layer makes it */
  forward(x: Tensor, { scale = 1, residual }: { scale?: number; residual?: Tensor } = {}): Tensor {
    return scope(() => {
      const down = isPointwise(this.lora_A) ? perPixel(this.lora_A, x) : this.lora_A.forward(x);
      return perPixel(this.lora_B, mul(down, scale * this.scaling), residual);
    });
  }

  /** weight + scale · (α / r) · B A, in f32 and in one pass.   weight: as of the layer → the same shape */
  addTo(weight: Tensor, scale: number): Tensor {
    const { lora_A, lora_B, rank } = this;
    const O = lora_B.weight.shape[0];
    const down = reshape(lora_A.weight, [rank, weight.size / O]);
    const up = mul(reshape(lora_B.weight, [O, rank]).to('f32'), scale * this.scaling);
    const residual = reshape(weight, [O, weight.size / O]);
    return reshape(linear(up, transpose(down), undefined, { residual }), weight.shape);
  }
}

/** Does it look at one pixel at a time? Then it also takes tokens. */
const isPointwise = (layer: LoraTarget): boolean =>
  layer instanceof Linear || (layer.weight.shape[1] === 1 && layer.stride === 1 && layer.padding === 0);

/** Factors for some layers of some networks. Its parameters have PEFT's keys: `unet.….to_q.lora_A.weight`. */
export class Lora extends Module {
  /** By the key of the layer, the network's name first. A Map: the layers are of other models too. */
  readonly layers: ReadonlyMap<string, LoraLayer>;

  constructor(
    layers: ReadonlyMap<string, LoraLayer>,
    /** For errors: its file. */
    readonly name = 'LoRA',
  ) {
    super();
    this.layers = layers;
  }

  override namedParameters(prefix = ''): Map<string, Parameter> {
    return new Map([...this.layers].flatMap(([key, layer]) => [...layer.namedParameters(`${prefix}${key}.`)]));
  }

  override namedModules(prefix = ''): Map<string, Module> {
    const all = [...this.layers].flatMap(([key, layer]): [string, Module][] => {
      const path = prefix + key;
      return [[path, layer], ...layer.namedModules(`${path}.`)];
    });
    return new Map(all);
  }
}

/** The layers of some networks that a LoRA may change, by key with the network's name. */
export function loraTargets(models: LoraModels): Map<string, LoraTarget> {
  const found = new Map<string, LoraTarget>();
  for (const name of componentNames) {
    for (const [key, module] of models[name]?.namedModules(`${name}.`) ?? []) {
      if (module instanceof Linear || module instanceof Conv2d) found.set(key, module);
    }
  }
  return found;
}

/** The projections of all attention, as diffusers' training scripts choose. */
const attentionLayers = /\.(to_[qkv]|to_out\.0|self_attn\.(q|k|v|out)_proj)$/;

/**
 * A LoRA to train, for the layers whose key matches `layers`. It begins as nothing: A is uniform in ±1 / √I, B zero.
 * @throws Error when no layer matches
 */
export function newLora(
  models: LoraModels,
  { rank = 4, alpha = rank, layers = attentionLayers, seed = 0 }: NewLoraOptions = {},
): Lora {
  const chosen = [...loraTargets(models)].filter(([key]) => layers.test(key));
  if (!chosen.length) throw new Error(`newLora: no layer matches ${layers}`);
  const lora = new Lora(new Map(chosen.map(([key, target]) => [key, new LoraLayer(target, rank, alpha / rank)])));
  return lora.initialize(seed, { zero: /\.lora_B\.weight$/ });
}

/** A LoRA to train: how thin, and on which layers. */
export interface NewLoraOptions {
  rank?: number;
  /** As large as the rank when not given, so that B A counts once. */
  alpha?: number;
  /** Keys with the network's name: `unet.down_blocks.0.attentions.0.….attn1.to_q`. */
  layers?: RegExp;
  seed?: number;
}
