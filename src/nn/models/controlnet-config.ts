import { defined } from '../../tensor/defined.ts';
import { completeConfig } from './unet-config.ts';
import type { EncoderConfig } from './unet-encoder.ts';

/** A diffusers ControlNetModel config.json: the fields of the U-Net's way down, and how the control image enters. */
export interface ControlNetConfig extends EncoderConfig {
  /** Channels of the control image. */
  conditioning_channels: number;
  /** 'bgr': the network was trained on images with red and blue exchanged. */
  controlnet_conditioning_channel_order: 'rgb' | 'bgr';
  /** Channels at full size, then at half the size, and so on down to the size of the latents. */
  conditioning_embedding_out_channels: number[];
  /** Only the mean over the image of what it makes counts, as for pictures whose content is shuffled. */
  global_pool_conditions: boolean;
}

const own = {
  conditioning_channels: 3,
  controlnet_conditioning_channel_order: 'rgb' as const,
  conditioning_embedding_out_channels: [16, 32, 96, 256],
  global_pool_conditions: false,
};

/** Fill in what is left out as for Stable Diffusion 1.x, leave out what is of the way up, and refuse what we do not have. */
export function completeControlConfig(given: Partial<ControlNetConfig>): ControlNetConfig {
  const levels = given.block_out_channels?.length;
  const up = levels ? { up_block_types: Array<string>(levels).fill('UpBlock2D') } : {};
  const said = defined(given);
  let unet;
  try {
    unet = completeConfig({ ...said, ...up });
  } catch (error) {
    throw new Error((error as Error).message.replace('UNet2DConditionModel', 'ControlNetModel'));
  }
  const { up_block_types: _up, out_channels: _out, sample_size: _size, ...config } = { ...own, ...unet, ...said };
  const { controlnet_conditioning_channel_order: order, conditioning_embedding_out_channels: channels } = config;
  if (order !== 'rgb' && order !== 'bgr') {
    throw new Error(
      `ControlNetModel: controlnet_conditioning_channel_order ${order as string} is not supported\n  known: rgb bgr`,
    );
  }
  if (!channels.length) throw new Error('ControlNetModel: conditioning_embedding_out_channels is empty');
  return config;
}
