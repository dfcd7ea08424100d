import { shapeError } from '../../kernels/index.ts';
import { add, concat, mul, reshape, silu, Tensor } from '../../tensor/index.ts';
import { Conv2d } from '../layers/conv2d.ts';
import { GroupNorm } from '../layers/norm.ts';
import { TimestepEmbedding, timesteps } from '../layers/time.ts';
import { Module } from '../module.ts';
import { checkpointed, DownBlock2D, MidBlock2D, plainly, UpBlock2D } from './unet-blocks.ts';
import { completeConfig, perLevel } from './unet-config.ts';
import type { UNetConfig } from './unet-config.ts';

/** What SDXL's networks are told besides the text. */
export interface AddedConditions {
  textEmbeds: Tensor; // [B, D]
  timeIds: number[][]; // [B, n]: sizes, crops, a score
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
    const levels = channels.length;
    const last = levels - 1;
    const temb = 4 * channels[0];
    const heads = perLevel(c.num_attention_heads ?? c.attention_head_dim, levels);
    const depth = perLevel(c.transformer_layers_per_block, levels);
    const common = { temb, groups: c.norm_num_groups, eps: c.norm_eps };
    const attention = (level: number) => ({
      heads: heads[level],
      context: c.cross_attention_dim,
      layers: depth[level],
      useLinear: c.use_linear_projection,
    });

    this.conv_in = new Conv2d(c.in_channels, channels[0], 3, { padding: 1 });
    this.time_embedding = new TimestepEmbedding(channels[0], temb);
    if (c.addition_embed_type)
      this.add_embedding = new TimestepEmbedding(c.projection_class_embeddings_input_dim!, temb);
    this.down_blocks = c.down_block_types.map(
      (type, i) =>
        new DownBlock2D(channels[Math.max(0, i - 1)], channels[i], {
          ...common,
          layers: c.layers_per_block,
          downsample: i < last,
          attention: type === 'CrossAttnDownBlock2D' ? attention(i) : undefined,
        }),
    );
    this.mid_block = new MidBlock2D(channels[last], { ...common, layers: 2, attention: attention(last) });
    this.up_blocks = c.up_block_types.map((type, i) => {
      const level = last - i;
      const below = channels[Math.min(last, level + 1)],
        above = channels[Math.max(0, level - 1)];
      return new UpBlock2D(
        below,
        [...Array<number>(c.layers_per_block).fill(channels[level]), above],
        channels[level],
        {
          ...common,
          layers: c.layers_per_block + 1,
          upsample: i < last,
          attention: type === 'CrossAttnUpBlock2D' ? attention(level) : undefined,
        },
      );
    });
    this.conv_norm_out = new GroupNorm(c.norm_num_groups, channels[0], { eps: c.norm_eps, silu: true });
    this.conv_out = new Conv2d(channels[0], c.out_channels, 3, { padding: 1 });
  }

  /**
   * sample: [B, H, W, C], times: one or [B], 0 … 1000, or their waves [B, C] by `timeWaves`, text: [B, T, D]
   * → [B, H, W, C']
   */
  forward(sample: Tensor, times: number | readonly number[] | Tensor, text: Tensor, added?: AddedConditions): Tensor {
    const { in_channels: channels, cross_attention_dim: context } = this.config;
    const B = sample.shape[0];
    if (sample.shape.length !== 4 || sample.shape[3] !== channels) {
      throw shapeError('UNet2DConditionModel', `wants images with ${channels} channels`, {
        'sample [B, H, W, C]': sample,
      });
    }
    if (text.shape.length !== 3 || text.shape[0] !== B || text.shape[2] !== context) {
      throw shapeError('UNet2DConditionModel', `wants one text per image with ${context} channels`, {
        'sample [B, H, W, C]': sample,
        'text [B, T, D]': text,
      });
    }
    const waves =
      times instanceof Tensor
        ? times
        : this.timeWaves(typeof times === 'number' ? Array<number>(B).fill(times) : times);
    if (waves.shape[0] !== B)
      throw shapeError('UNet2DConditionModel', 'wants one time per image', { sample, 'times [B, C]': waves });

    const temb = silu(this.embedTimes(waves, added));
    let x = this.conv_in.forward(this.config.center_input_sample ? add(mul(sample, 2), -1) : sample);
    const skips = [x];
    const call = this.gradientCheckpointing ? checkpointed : plainly;
    for (const block of this.down_blocks) x = block.forward(x, temb, text, skips, call);
    x = this.mid_block.forward(x, temb, text, call);
    for (const block of this.up_blocks) x = block.forward(x, temb, text, skips, call);
    return this.conv_out.forward(this.conv_norm_out.forward(x));
  }

  /** What the network makes of times, worked out in float64 on the host: a compiled function takes these as its input.   [B] → [B, C] */
  timeWaves(times: readonly number[]): Tensor {
    return timesteps(times, this.config.block_out_channels[0], this.waveOptions);
  }

  private get waveOptions() {
    return { flipSinToCos: this.config.flip_sin_to_cos, freqShift: this.config.freq_shift };
  }

  /** waves: [B, C] → [B, 4C] */
  private embedTimes(waves: Tensor, added?: AddedConditions): Tensor {
    const embedded = this.time_embedding.forward(waves);
    if (!this.add_embedding) return embedded;
    if (!added) throw new Error('UNet2DConditionModel: this network also wants textEmbeds and timeIds');
    const ids = timesteps(added.timeIds.flat(), this.config.addition_time_embed_dim!, this.waveOptions);
    return add(
      embedded,
      this.add_embedding.forward(concat([added.textEmbeds, reshape(ids, [waves.shape[0], -1])], { axis: -1 })),
    );
  }
}
