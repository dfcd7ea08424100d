import { shapeError } from '../../kernels/index.ts';
import { add, mul, silu } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { Conv2d } from '../layers/conv2d.ts';
import { GroupNorm } from '../layers/norm.ts';
import type { TimestepEmbedding } from '../layers/time.ts';
import { Module } from '../module.ts';
import { checkpointed, plainly, UpBlock2D } from './unet-blocks.ts';
import type { DownBlock2D, MidBlock2D } from './unet-blocks.ts';
import { completeConfig } from './unet-config.ts';
import type { UNetConfig } from './unet-config.ts';
import * as encoder from './unet-encoder.ts';
import type { AddedConditions } from './unet-encoder.ts';

/** What a ControlNet adds on the way through a U-Net. */
export interface ControlResiduals {
  /** For each thing that the way down leaves for the way up, in that order: [B, H, W, C], and so on to the lowest level. */
  downBlockAdditionalResiduals?: readonly Tensor[];
  /** For what the middle makes. */
  midBlockAdditionalResidual?: Tensor;
}

/**
 * The network of Stable Diffusion: an image with noise, a time and a text → what the sampler wants to know (the noise, or
 * the velocity of a flow). A U: down to low resolutions and up again, each level reading what the other side left there;
 * transformers in it read the text.
 * @see Rombach et al. 2022, High-Resolution Image Synthesis with Latent Diffusion Models. https://arxiv.org/abs/2112.10752
 */
export class UNet2DConditionModel extends Module {
  conv_in: Conv2d;
  time_embedding: TimestepEmbedding;
  add_embedding: TimestepEmbedding | undefined;
  down_blocks: DownBlock2D[];
  up_blocks: UpBlock2D[];
  mid_block: MidBlock2D;
  conv_norm_out: GroupNorm;
  conv_out: Conv2d;
  readonly config: UNetConfig;
  /** Keep the ends of each layer only, and compute the rest again in backward: less memory, one more forward pass. */
  gradientCheckpointing = false;

  /** `config`: diffusers' config.json; what it leaves out is as in Stable Diffusion 1.5. */
  constructor(config: Partial<UNetConfig> = {}) {
    super();
    const c = (this.config = completeConfig(config));
    const channels = c.block_out_channels;
    const last = channels.length - 1;

    this.conv_in = new Conv2d(c.in_channels, channels[0], 3, { padding: 1 });
    this.time_embedding = encoder.timeEmbedding(c);
    this.add_embedding = encoder.addEmbedding(c);
    this.down_blocks = encoder.downBlocks(c);
    this.mid_block = encoder.midBlock(c);
    this.up_blocks = c.up_block_types.map((type, i) => {
      const level = last - i;
      const below = channels[Math.min(last, level + 1)],
        above = channels[Math.max(0, level - 1)];
      return new UpBlock2D(
        below,
        [...Array<number>(c.layers_per_block).fill(channels[level]), above],
        channels[level],
        {
          ...encoder.blockOptions(c, level, type),
          layers: c.layers_per_block + 1,
          upsample: i < last,
        },
      );
    });
    this.conv_norm_out = new GroupNorm(c.norm_num_groups, channels[0], { eps: c.norm_eps, silu: true });
    this.conv_out = new Conv2d(channels[0], c.out_channels, 3, { padding: 1 });
  }

  /**
   * sample: [B, H, W, C], times: one or [B], 0 … 1000, or their waves [B, C] by `timeWaves`, text: [B, T, D]
   * → [B, H, W, C']. `control` is what a ControlNet makes of the same.
   */
  forward(
    sample: Tensor,
    times: number | readonly number[] | Tensor,
    text: Tensor,
    added?: AddedConditions,
    { downBlockAdditionalResiduals, midBlockAdditionalResidual }: ControlResiduals = {},
  ): Tensor {
    const waves = encoder.checkInputs(name, this.config, sample, times, text);
    const temb = silu(encoder.embedTimes(name, this, waves, added));
    let x = this.conv_in.forward(this.config.center_input_sample ? add(mul(sample, 2), -1) : sample);
    let skips = [x];
    const call = this.gradientCheckpointing ? checkpointed : plainly;
    for (const block of this.down_blocks) x = block.forward(x, temb, text, skips, call);
    if (downBlockAdditionalResiduals) skips = addAll(skips, downBlockAdditionalResiduals);
    x = this.mid_block.forward(x, temb, text, call);
    if (midBlockAdditionalResidual) [x] = addAll([x], [midBlockAdditionalResidual]);
    for (const block of this.up_blocks) x = block.forward(x, temb, text, skips, call);
    return this.conv_out.forward(this.conv_norm_out.forward(x));
  }

  /** What the network makes of times, worked out in float64 on the host: a compiled function takes these as its input.   [B] → [B, C] */
  timeWaves(times: readonly number[]): Tensor {
    return encoder.timeWaves(this.config, times);
  }
}

const name = 'UNet2DConditionModel';

/** @throws ShapeError unless there is one residual for each, of its shape */
function addAll(to: readonly Tensor[], residuals: readonly Tensor[]): Tensor[] {
  const odd = to.findIndex((x, i) => residuals[i]?.shape.join() !== x.shape.join());
  if (residuals.length !== to.length || odd >= 0) {
    const i = Math.max(0, odd);
    throw shapeError(
      name,
      residuals.length !== to.length
        ? `${residuals.length} residuals for ${to.length} places`
        : `residual ${i} has another shape than what it is added to`,
      { [`place ${i}`]: to[i], [`residual ${i}`]: residuals[i] },
      'run the ControlNet on the same batch, at the same size',
    );
  }
  return to.map((x, i) => add(x, residuals[i]));
}
