/** The half of a U-Net that goes down, which a ControlNet has a copy of. */
import { shapeError } from '../../kernels/index.ts';
import { add, concat, reshape, Tensor } from '../../tensor/index.ts';
import { TimestepEmbedding, timesteps } from '../layers/time.ts';
import { DownBlock2D, MidBlock2D } from './unet-blocks.ts';
import type { BlockOptions } from './unet-blocks.ts';
import { perLevel } from './unet-config.ts';
import type { UNetConfig } from './unet-config.ts';

/** What SDXL's networks are told besides the text. */
export interface AddedConditions {
  textEmbeds: Tensor; // [B, D]
  timeIds: number[][]; // [B, n]: sizes, crops, a score
}

/** The fields of a U-Net's configuration that are of its way down. */
export type EncoderConfig = Omit<UNetConfig, 'up_block_types' | 'out_channels' | 'sample_size'>;

/** What all blocks of a level have in common. */
export function blockOptions(c: EncoderConfig, level: number, type: string): Omit<BlockOptions, 'layers'> {
  const levels = c.block_out_channels.length;
  const heads = perLevel(c.num_attention_heads ?? c.attention_head_dim, levels)[level];
  const layers = perLevel(c.transformer_layers_per_block, levels)[level];
  const attention = { heads, layers, context: c.cross_attention_dim, useLinear: c.use_linear_projection };
  return {
    temb: 4 * c.block_out_channels[0],
    groups: c.norm_num_groups,
    eps: c.norm_eps,
    attention: type.includes('CrossAttn') ? attention : undefined,
  };
}

export const downBlocks = (c: EncoderConfig): DownBlock2D[] =>
  c.down_block_types.map((type, level) => {
    const channels = c.block_out_channels;
    return new DownBlock2D(channels[Math.max(0, level - 1)], channels[level], {
      ...blockOptions(c, level, type),
      layers: c.layers_per_block,
      downsample: level < channels.length - 1,
    });
  });

export function midBlock(c: EncoderConfig): MidBlock2D {
  const last = c.block_out_channels.length - 1;
  const options = blockOptions(c, last, 'CrossAttn') as Required<ReturnType<typeof blockOptions>>;
  return new MidBlock2D(c.block_out_channels[last], { ...options, layers: 2 });
}

export const timeEmbedding = (c: EncoderConfig): TimestepEmbedding =>
  new TimestepEmbedding(c.block_out_channels[0], 4 * c.block_out_channels[0]);

export const addEmbedding = (c: EncoderConfig): TimestepEmbedding | undefined =>
  c.addition_embed_type
    ? new TimestepEmbedding(c.projection_class_embeddings_input_dim!, 4 * c.block_out_channels[0])
    : undefined;

/** The parts of a network that times go through. */
interface TimeParts {
  config: EncoderConfig;
  time_embedding: TimestepEmbedding;
  add_embedding: TimestepEmbedding | undefined;
}

/** What a network makes of times, worked out in float64 on the host.   [B] → [B, C] */
export const timeWaves = (c: EncoderConfig, times: readonly number[]): Tensor =>
  timesteps(times, c.block_out_channels[0], { flipSinToCos: c.flip_sin_to_cos, freqShift: c.freq_shift });

/** waves: [B, C] → [B, 4C] */
export function embedTimes(name: string, parts: TimeParts, waves: Tensor, added?: AddedConditions): Tensor {
  const { config: c, add_embedding } = parts;
  const embedded = parts.time_embedding.forward(waves);
  if (!add_embedding) return embedded;
  if (!added) throw new Error(`${name}: this network also wants textEmbeds and timeIds`);
  const options = { flipSinToCos: c.flip_sin_to_cos, freqShift: c.freq_shift };
  const ids = timesteps(added.timeIds.flat(), c.addition_time_embed_dim!, options);
  return add(
    embedded,
    add_embedding.forward(concat([added.textEmbeds, reshape(ids, [waves.shape[0], -1])], { axis: -1 })),
  );
}

/** One time for all images, one for each, or their waves: → waves. @throws ShapeError when the inputs do not go together */
export function checkInputs(
  name: string,
  config: EncoderConfig,
  sample: Tensor,
  times: number | readonly number[] | Tensor,
  text: Tensor,
): Tensor {
  const { in_channels, cross_attention_dim } = config;
  const B = sample.shape[0];
  if (sample.shape.length !== 4 || sample.shape[3] !== in_channels)
    throw shapeError(name, `wants images with ${in_channels} channels`, { 'sample [B, H, W, C]': sample });
  if (text.shape.length !== 3 || text.shape[0] !== B || text.shape[2] !== cross_attention_dim) {
    throw shapeError(name, `wants one text per image with ${cross_attention_dim} channels`, {
      'sample [B, H, W, C]': sample,
      'text [B, T, D]': text,
    });
  }
  const each = typeof times === 'number' ? Array<number>(B).fill(times) : times;
  const waves = each instanceof Tensor ? each : timeWaves(config, each);
  if (waves.shape[0] !== B) throw shapeError(name, 'wants one time per image', { sample, 'times [B, C]': waves });
  return waves;
}
