import { shapeError } from '../../kernels/index.ts';
import { add, expand, flip, mean, mul, scope, silu } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { Conv2d } from '../layers/conv2d.ts';
import type { TimestepEmbedding } from '../layers/time.ts';
import { Module } from '../module.ts';
import { completeControlConfig } from './controlnet-config.ts';
import type { ControlNetConfig } from './controlnet-config.ts';
import { checkpointed, plainly } from './unet-blocks.ts';
import type { DownBlock2D, MidBlock2D } from './unet-blocks.ts';
import * as encoder from './unet-encoder.ts';
import type { AddedConditions } from './unet-encoder.ts';
import type { ControlResiduals, UNet2DConditionModel } from './unet.ts';

/** From the control image to the size and channels of what `conv_in` makes of latents. */
class ControlNetConditioningEmbedding extends Module {
  conv_in: Conv2d;
  blocks: Conv2d[];
  conv_out: Conv2d;

  constructor(inputs: number, channels: readonly number[], outputs: number) {
    super();
    this.conv_in = new Conv2d(inputs, channels[0], 3, { padding: 1 });
    this.blocks = channels
      .slice(1)
      .flatMap((next, i) => [
        new Conv2d(channels[i], channels[i], 3, { padding: 1 }),
        new Conv2d(channels[i], next, 3, { padding: 1, stride: 2 }),
      ]);
    this.conv_out = new Conv2d(channels.at(-1)!, outputs, 3, { padding: 1 });
  }

  /** image: [B, 8H, 8W, 3] → [B, H, W, C] */
  forward(image: Tensor): Tensor {
    return scope(() => {
      let x = silu(this.conv_in.forward(image));
      for (const block of this.blocks) x = silu(block.forward(x));
      return this.conv_out.forward(x);
    });
  }
}

/** How much of it, and where. */
export interface ControlOptions {
  /** What the residuals are multiplied by: 1 when not given. */
  conditioningScale?: number;
  /** Less at the high resolutions: from 0.1 there to 1 in the middle, in equal ratios. For control without a text. */
  guessMode?: boolean;
  added?: AddedConditions;
}

/**
 * A copy of the way down of a U-Net which also sees an image that says where things are (edges, depth, a pose). What it makes
 * on its way goes through 1×1 convolutions that begin as zeros, and is added to what the U-Net makes there.
 *
 *     residuals = control.forward(sample, times, text, image)
 *     y = unet.forward(sample, times, text, undefined, residuals)
 *
 * @see Zhang et al. 2023, Adding Conditional Control to Text-to-Image Diffusion Models, §3. https://arxiv.org/abs/2302.05543
 */
export class ControlNetModel extends Module {
  conv_in: Conv2d;
  time_embedding: TimestepEmbedding;
  add_embedding: TimestepEmbedding | undefined;
  controlnet_cond_embedding: ControlNetConditioningEmbedding;
  down_blocks: DownBlock2D[];
  controlnet_down_blocks: Conv2d[];
  controlnet_mid_block: Conv2d;
  mid_block: MidBlock2D;
  readonly config: ControlNetConfig;
  /** Keep the ends of each layer only, and compute the rest again in backward. */
  gradientCheckpointing = false;

  /** `config`: diffusers' config.json; what it leaves out is as in the ControlNets of Stable Diffusion 1.5. */
  constructor(config: Partial<ControlNetConfig> = {}) {
    super();
    const c = (this.config = completeControlConfig(config));
    const channels = c.block_out_channels;
    this.conv_in = new Conv2d(c.in_channels, channels[0], 3, { padding: 1 });
    this.time_embedding = encoder.timeEmbedding(c);
    this.add_embedding = encoder.addEmbedding(c);
    this.controlnet_cond_embedding = new ControlNetConditioningEmbedding(
      c.conditioning_channels,
      c.conditioning_embedding_out_channels,
      channels[0],
    );
    this.down_blocks = encoder.downBlocks(c);
    const last = channels.length - 1;
    const made = channels.flatMap((n, level) => Array<number>(c.layers_per_block + (level < last ? 1 : 0)).fill(n));
    this.controlnet_down_blocks = [channels[0], ...made].map((n) => new Conv2d(n, n, 1));
    this.controlnet_mid_block = new Conv2d(channels[last], channels[last], 1);
    this.mid_block = encoder.midBlock(c);
  }

  /**
   * One that begins as a copy of the U-Net's way down and changes nothing yet: to train.   `config`: how the image enters
   */
  static fromUNet(
    unet: UNet2DConditionModel,
    { seed = 0, ...config }: Partial<ControlNetConfig> & { seed?: number } = {},
  ): ControlNetModel {
    const control = new ControlNetModel({ ...unet.config, ...config });
    control.controlnet_cond_embedding.initialize(seed, { zero: /^conv_out\b/ }); // the zero convolutions are zero as made
    for (const part of ['conv_in', 'time_embedding', 'add_embedding', 'mid_block'] as const)
      if (unet[part]) control[part]!.copyFrom(unet[part]);
    control.down_blocks.forEach((block, i) => block.copyFrom(unet.down_blocks[i]));
    return control;
  }

  /**
   * sample: [B, H, W, C], times and text as for the U-Net, image: [B, 8H, 8W, 3] in [0, 1], one for each sample
   * → what to give the U-Net
   * @throws ShapeError when an image is not as many times larger as the network makes it smaller, or is not there for each sample
   */
  forward(
    sample: Tensor,
    times: number | readonly number[] | Tensor,
    text: Tensor,
    image: Tensor,
    { conditioningScale = 1, guessMode = false, added }: ControlOptions = {},
  ): Required<ControlResiduals> {
    const c = this.config;
    const waves = encoder.checkInputs(name, c, sample, times, text);
    this.checkImage(sample, image);
    if (!Number.isFinite(conditioningScale)) throw new RangeError(`${name}: conditioningScale is ${conditioningScale}`);
    return scope(() => {
      const temb = silu(encoder.embedTimes(name, this, waves, added));
      const seen = c.controlnet_conditioning_channel_order === 'bgr' ? flip(image, [-1]) : image;
      let x = this.conv_in.forward(sample, { residual: this.controlnet_cond_embedding.forward(seen) });
      const skips = [x];
      const call = this.gradientCheckpointing ? checkpointed : plainly;
      for (const block of this.down_blocks) x = block.forward(x, temb, text, skips, call);
      x = this.mid_block.forward(x, temb, text, call);
      const convolved = [
        ...skips.map((skip, i) => this.controlnet_down_blocks[i].forward(skip)),
        this.controlnet_mid_block.forward(x),
      ];
      const scales = residualScales(convolved.length, conditioningScale, guessMode && !c.global_pool_conditions);
      const residuals = convolved.map((residual, i) =>
        scaled(c.global_pool_conditions ? pooled(residual) : residual, scales[i]),
      );
      return {
        downBlockAdditionalResiduals: residuals.slice(0, -1),
        midBlockAdditionalResidual: residuals.at(-1)!,
      };
    });
  }

  private checkImage(sample: Tensor, image: Tensor): void {
    const { conditioning_channels: channels, conditioning_embedding_out_channels: sizes } = this.config;
    const factor = 2 ** (sizes.length - 1);
    const operands = { 'sample [B, H, W, C]': sample, [`image [B, ${factor}H, ${factor}W, ${channels}]`]: image };
    const [B, H, W] = sample.shape;
    if (image.shape.length === 4 && image.shape[0] !== B) {
      throw shapeError(
        name,
        `${image.shape[0]} control images for ${B} samples`,
        operands,
        'repeat them: with guidance, and for several pictures of a prompt, the batch is larger',
      );
    }
    if (image.shape.join() !== [B, H * factor, W * factor, channels].join())
      throw shapeError(name, `wants control images ${factor} times as large as the sample`, operands, 'resize them');
  }
}

const name = 'ControlNetModel';

/** One factor for each residual. In guess mode from 0.1 to 1 in equal ratios, as diffusers: 10^(i / (n − 1) − 1). */
export const residualScales = (n: number, scale: number, guessMode: boolean): number[] =>
  Array.from({ length: n }, (_, i) => (guessMode ? scale * 10 ** (i / (n - 1) - 1) : scale));

const scaled = (x: Tensor, s: number): Tensor => (s === 1 ? x : mul(x, s));

/** The mean over the image at each pixel.   [B, H, W, C] → the same */
const pooled = (x: Tensor): Tensor => expand(mean(x, { axes: [1, 2], keepdim: true }), x.shape);

/** What several ControlNets make of the same sample, added up. */
export function sumResiduals(all: readonly Required<ControlResiduals>[]): ControlResiduals {
  if (!all.length) return {};
  return all.reduce((sum, next) => ({
    downBlockAdditionalResiduals: sum.downBlockAdditionalResiduals.map((x, i) =>
      add(x, next.downBlockAdditionalResiduals[i]),
    ),
    midBlockAdditionalResidual: add(sum.midBlockAdditionalResidual, next.midBlockAdditionalResidual),
  }));
}
