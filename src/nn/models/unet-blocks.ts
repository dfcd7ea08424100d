import { checkpoint, concat, scope } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { Downsample2D, Upsample2D } from '../layers/sampling.ts';
import { ResnetBlock2D } from '../layers/resnet.ts';
import { Transformer2DModel } from '../layers/transformer.ts';
import { Module } from '../module.ts';

export interface BlockOptions {
  layers: number;
  temb: number;
  groups: number;
  eps: number;
  /** What its transformers need; undefined for blocks without. */
  attention?: { heads: number; context: number; layers: number; useLinear: boolean };
}

/** How a layer is called: at once, with what it makes on the way freed, or as a checkpoint that backward computes again. */
export type Call = <I extends readonly Tensor[]>(layer: (...inputs: I) => Tensor, ...inputs: I) => Tensor;
export const plainly: Call = (layer, ...inputs) => scope(() => layer(...inputs));
export const checkpointed: Call = (layer, ...inputs) => checkpoint(layer, ...inputs);

/** Resnets, each followed by a transformer if the block has them, then half the size. */
export class DownBlock2D extends Module {
  attentions: Transformer2DModel[] | undefined;
  resnets: ResnetBlock2D[];
  downsamplers: [Downsample2D] | undefined;

  constructor(inputs: number, outputs: number, options: BlockOptions & { downsample: boolean }) {
    super();
    const { layers, downsample, attention, groups } = options;
    this.attentions = attention && many(layers, () => new Transformer2DModel(outputs, { ...attention, groups }));
    this.resnets = many(layers, (i) => new ResnetBlock2D(i ? outputs : inputs, outputs, options));
    if (downsample) this.downsamplers = [new Downsample2D(outputs)];
  }

  /** x: [B, H, W, I], temb: [B, E], context: [B, T, D] → [B, H/2, W/2, O]; every layer's output also goes to `skips` */
  forward(x: Tensor, temb: Tensor, context: Tensor, skips: Tensor[], call = plainly): Tensor {
    for (const [i, resnet] of this.resnets.entries()) {
      const layer = (x: Tensor, temb: Tensor, context: Tensor) => {
        const h = resnet.forward(x, temb);
        return this.attentions ? this.attentions[i].forward(h, context) : h;
      };
      skips.push((x = call(layer, x, temb, context)));
    }
    if (this.downsamplers) skips.push((x = this.downsamplers[0].forward(x)));
    return x;
  }
}

/** Resnet, transformer, resnet at the lowest resolution. */
export class MidBlock2D extends Module {
  attentions: [Transformer2DModel];
  resnets: [ResnetBlock2D, ResnetBlock2D];

  constructor(channels: number, options: BlockOptions & { attention: NonNullable<BlockOptions['attention']> }) {
    super();
    this.attentions = [new Transformer2DModel(channels, { ...options.attention, groups: options.groups })];
    this.resnets = [new ResnetBlock2D(channels, channels, options), new ResnetBlock2D(channels, channels, options)];
  }

  /** x: [B, H, W, C], temb: [B, E], context: [B, T, D] → [B, H, W, C] */
  forward(x: Tensor, temb: Tensor, context: Tensor, call = plainly): Tensor {
    x = call((x, temb) => this.resnets[0].forward(x, temb), x, temb);
    const layer = (x: Tensor, temb: Tensor, context: Tensor) =>
      this.resnets[1].forward(this.attentions[0].forward(x, context), temb);
    return call(layer, x, temb, context);
  }
}

/** Like a down block, but each resnet also reads what the down path left at this resolution; then twice the size. */
export class UpBlock2D extends Module {
  attentions: Transformer2DModel[] | undefined;
  resnets: ResnetBlock2D[];
  upsamplers: [Upsample2D] | undefined;

  /** `before`: channels that come up, `skips`: channels that each resnet takes from the down path. */
  constructor(before: number, skips: number[], outputs: number, options: BlockOptions & { upsample: boolean }) {
    super();
    const { layers, upsample, attention, groups } = options;
    this.attentions = attention && many(layers, () => new Transformer2DModel(outputs, { ...attention, groups }));
    this.resnets = many(layers, (i) => new ResnetBlock2D((i ? outputs : before) + skips[i], outputs, options));
    if (upsample) this.upsamplers = [new Upsample2D(outputs)];
  }

  /** x: [B, H, W, I], skips: taken from the end → [B, 2H, 2W, O], or the size of the next skip */
  forward(x: Tensor, temb: Tensor, context: Tensor, skips: Tensor[], call = plainly): Tensor {
    for (const [i, resnet] of this.resnets.entries()) {
      const layer = (x: Tensor, skip: Tensor, temb: Tensor, context: Tensor) => {
        const h = resnet.forward(concat([x, skip], { axis: -1 }), temb);
        return this.attentions ? this.attentions[i].forward(h, context) : h;
      };
      x = call(layer, x, skips.pop()!, temb, context);
    }
    const next = skips.at(-1);
    return this.upsamplers ? this.upsamplers[0].forward(x, next && [next.shape[1], next.shape[2]]) : x;
  }
}

const many = <T>(n: number, make: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => make(i));
