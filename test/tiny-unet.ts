import { UNet2DConditionModel } from '../src/nn/index.ts';

/** A U-Net of two levels with attention in one: all kinds of blocks, for images [B, 8, 8, 4] and texts [B, T, 12]. */
export const tinyUNet = (): UNet2DConditionModel =>
  new UNet2DConditionModel({
    sample_size: 8,
    in_channels: 4,
    out_channels: 4,
    block_out_channels: [16, 24],
    layers_per_block: 1,
    down_block_types: ['CrossAttnDownBlock2D', 'DownBlock2D'],
    up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D'],
    cross_attention_dim: 12,
    attention_head_dim: 2,
    norm_num_groups: 4,
  });
