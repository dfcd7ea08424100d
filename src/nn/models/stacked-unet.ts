import { add, avgPool2d, concat, mul, narrow, silu, Tensor, upsampleNearest, zeros } from '../../tensor/index.ts';
import type { Conv2d } from '../layers/conv2d.ts';
import type { GroupNorm } from '../layers/norm.ts';
import { timesteps } from '../layers/time.ts';
import type { TimestepEmbedding } from '../layers/time.ts';
import { Module } from '../module.ts';
import { checkpointed, plainly } from './unet-blocks.ts';
import type { Call, DownBlock2D, MidBlock2D, UpBlock2D } from './unet-blocks.ts';
import type { UNetConfig } from './unet-config.ts';
import { UNet2DConditionModel } from './unet.ts';

/**
 * What can be left out of two U-Nets in a row: the down blocks of the first, its up blocks, the layers between the two
 * (the first one's `conv_norm_out` and `conv_out`, the second one's `conv_in`), and the same blocks of the second.
 */
export type StackedUNetPart = (typeof parts)[number];
const parts = ['firstDown', 'firstUp', 'between', 'secondDown', 'secondUp'] as const;

/** A config.json of ours: that of both U-Nets, and what is left out. */
export interface StackedUNetConfig extends UNetConfig {
  /** `between` unless given. */
  drop: readonly StackedUNetPart[];
}

/** One of the two: a U-Net, or what is left of it. Its keys are a U-Net's. */
class Half extends Module {
  conv_in: Conv2d | undefined;
  time_embedding: TimestepEmbedding;
  down_blocks: DownBlock2D[];
  up_blocks: UpBlock2D[];
  mid_block: MidBlock2D;
  conv_norm_out: GroupNorm | undefined;
  conv_out: Conv2d | undefined;
  readonly config: UNetConfig;

  constructor(unet: UNet2DConditionModel, without: { input: boolean; down: boolean; up: boolean; output: boolean }) {
    super();
    const unless = <M extends Module>(dropped: boolean, part: M): M | undefined => {
      if (dropped) part.dispose();
      return dropped ? undefined : part;
    };
    this.conv_in = unless(without.input, unet.conv_in);
    this.time_embedding = unet.time_embedding;
    this.down_blocks = unet.down_blocks.flatMap((block) => unless(without.down, block) ?? []);
    this.up_blocks = unet.up_blocks.flatMap((block) => unless(without.up, block) ?? []);
    this.mid_block = unet.mid_block;
    this.conv_norm_out = unless(without.output, unet.conv_norm_out);
    this.conv_out = unless(without.output, unet.conv_out);
    this.config = unet.config;
  }

  /** x: [B, H, W, C] → [B, H, W, C']; without `conv_in` and `conv_out`, C and C' are the channels of the first level */
  forward(x: Tensor, waves: Tensor, text: Tensor, call: Call): Tensor {
    const temb = silu(this.time_embedding.forward(waves));
    if (this.conv_in) x = this.conv_in.forward(x);
    const skips = [x];
    if (this.down_blocks.length === 0) x = this.shrink(x, skips);
    for (const block of this.down_blocks) x = block.forward(x, temb, text, skips, call);
    x = this.mid_block.forward(x, temb, text, call);
    if (this.up_blocks.length === 0) x = this.grow(x, skips);
    for (const block of this.up_blocks) x = block.forward(x, temb, text, skips, call);
    return this.conv_out && this.conv_norm_out ? this.conv_out.forward(this.conv_norm_out.forward(x)) : x;
  }

  /** In place of down blocks: means of four pixels, and channels of zeros; the up path finds its skips. */
  private shrink(x: Tensor, skips: Tensor[]): Tensor {
    const { block_out_channels: channels, layers_per_block: layers } = this.config;
    for (const [level, C] of channels.entries()) {
      x = withChannels(x, C);
      for (let i = 0; i < layers; i++) skips.push(x);
      if (level === channels.length - 1) break;
      const [, H, W] = x.shape;
      // An odd side is rounded up, as the convolutions do.
      const even = H % 2 || W % 2 ? upsampleNearest(x, { size: [H + (H % 2), W + (W % 2)] }) : x;
      skips.push((x = avgPool2d(even, { kernel: 2 })));
    }
    return x;
  }

  /** In place of up blocks: pixels repeated, the last skip of each level added. */
  private grow(x: Tensor, skips: Tensor[]): Tensor {
    const { layers_per_block: layers } = this.config;
    while (skips.length) {
      const own = skips.splice(-layers - 1)[0];
      const [, H, W, C] = own.shape;
      x = add(withChannels(upsampleNearest(x, { size: [H, W] }), C), own);
    }
    return x;
  }
}

/** Cut off channels, or zeros as further ones.   x: [B, H, W, C] → [B, H, W, C'] */
function withChannels(x: Tensor, channels: number): Tensor {
  const C = x.shape[3];
  if (C === channels) return x;
  if (C > channels) return narrow(x, { axis: 3, start: 0, length: channels });
  return concat([x, zeros([...x.shape.slice(0, 3), channels - C], x.dtype)], { axis: 3 });
}

/**
 * InstaFlow-1.7B: two U-Nets in a row with weights of their own, between which the layers that would go through four
 * channels are left out. Time and text go to both; skips do not cross.
 *
 *     sample ─ conv_in ─ down ─ mid ─ up ──320 channels──▸ down ─ mid ─ up ─ conv_norm_out ─ conv_out ─▸ velocity
 *
 * Keys are those of a U-Net behind `unets.0.` and `unets.1.`. Of the five deletions that the paper tried only `between` did
 * no harm; the others are here to repeat the ablation. It does not say what stands in for deleted blocks: here what has no
 * weights, means of four pixels downwards, repeated pixels and the skips upwards.
 *
 * @see Liu et al. 2023, InstaFlow. https://arxiv.org/abs/2309.06380
 */
export class StackedUNet extends Module {
  unets: [Half, Half];
  readonly config: StackedUNetConfig;
  /** As in UNet2DConditionModel. */
  gradientCheckpointing = false;

  /** `config`: of both U-Nets, and what to leave out. @throws for configurations with text_time */
  constructor({ drop = ['between'], ...config }: Partial<StackedUNetConfig> = {}) {
    super();
    const unknown = drop.find((part) => !parts.includes(part));
    if (unknown !== undefined)
      throw new Error(`StackedUNet: there is no part ${unknown} to drop\n  known: ${parts.join(' ')}`);
    const [first, second] = [new UNet2DConditionModel(config), new UNet2DConditionModel(config)];
    if (first.add_embedding) throw new Error('StackedUNet: addition_embed_type text_time is not supported');
    const without = (part: StackedUNetPart) => drop.includes(part);
    const between = without('between');
    if (!between && first.config.in_channels !== first.config.out_channels)
      throw new Error('StackedUNet: the second U-Net cannot read what the first one makes\n  drop between');
    this.unets = [
      new Half(first, { input: false, down: without('firstDown'), up: without('firstUp'), output: between }),
      new Half(second, { input: between, down: without('secondDown'), up: without('secondUp'), output: false }),
    ];
    this.config = { ...first.config, drop };
  }

  /** As a U-Net's: sample [B, H, W, C], times one or [B] or their waves [B, C], text [B, T, D] → [B, H, W, C'] */
  forward(sample: Tensor, times: number | readonly number[] | Tensor, text: Tensor): Tensor {
    const B = sample.shape[0];
    const waves =
      times instanceof Tensor
        ? times
        : this.timeWaves(typeof times === 'number' ? Array<number>(B).fill(times) : times);
    const call = this.gradientCheckpointing ? checkpointed : plainly;
    let x = this.config.center_input_sample ? add(mul(sample, 2), -1) : sample;
    for (const half of this.unets) x = half.forward(x, waves, text, call);
    return x;
  }

  /** As in UNet2DConditionModel.   [B] → [B, C] */
  timeWaves(times: readonly number[]): Tensor {
    const { block_out_channels: channels, flip_sin_to_cos: flipSinToCos, freq_shift: freqShift } = this.config;
    return timesteps(times, channels[0], { flipSinToCos, freqShift });
  }

  /** Begin with the same U-Net twice, as its distillation does. */
  copyUNet(unet: UNet2DConditionModel): this {
    for (const half of this.unets) half.copyFrom(unet);
    return this;
  }
}
