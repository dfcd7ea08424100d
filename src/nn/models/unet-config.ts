/** A diffusers UNet2DConditionModel config.json, as far as we know its fields. */
export interface UNetConfig {
  sample_size: number;
  in_channels: number;
  out_channels: number;
  center_input_sample: boolean;
  flip_sin_to_cos: boolean;
  freq_shift: number;
  down_block_types: string[];
  up_block_types: string[];
  block_out_channels: number[];
  layers_per_block: number;
  norm_num_groups: number;
  norm_eps: number;
  cross_attention_dim: number;
  /** The NUMBER of heads, whatever its name says; a list gives one per level. */
  attention_head_dim: number | number[];
  num_attention_heads: number | number[] | null;
  transformer_layers_per_block: number | number[];
  use_linear_projection: boolean;
  /** 'text_time': a pooled text embedding and a few numbers (sizes, a score) join the time embedding. */
  addition_embed_type: 'text_time' | null;
  addition_time_embed_dim: number | null;
  projection_class_embeddings_input_dim: number | null;
}

/** Stable Diffusion 1.x. */
export const sd15UNetConfig: UNetConfig = {
  sample_size: 64,
  in_channels: 4,
  out_channels: 4,
  center_input_sample: false,
  flip_sin_to_cos: true,
  freq_shift: 0,
  down_block_types: ['CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D'],
  up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D'],
  block_out_channels: [320, 640, 1280, 1280],
  layers_per_block: 2,
  norm_num_groups: 32,
  norm_eps: 1e-5,
  cross_attention_dim: 768,
  attention_head_dim: 8,
  num_attention_heads: null,
  transformer_layers_per_block: 1,
  use_linear_projection: false,
  addition_embed_type: null,
  addition_time_embed_dim: null,
  projection_class_embeddings_input_dim: null,
};

/** Values of other fields that mean "as usual"; anything else is a network that we do not have. */
const usual: Record<string, unknown[]> = {
  act_fn: ['silu', 'swish'],
  mid_block_type: ['UNetMidBlock2DCrossAttn'],
  downsample_padding: [1],
  mid_block_scale_factor: [1],
  only_cross_attention: [false],
  dual_cross_attention: [false],
  class_embed_type: [null],
  num_class_embeds: [null],
  encoder_hid_dim: [null],
  encoder_hid_dim_type: [null],
  resnet_time_scale_shift: ['default'],
  resnet_skip_time_act: [false],
  resnet_out_scale_factor: [1],
  time_embedding_type: ['positional'],
  time_embedding_dim: [null],
  time_embedding_act_fn: [null],
  timestep_post_act: [null],
  time_cond_proj_dim: [null],
  conv_in_kernel: [3],
  conv_out_kernel: [3],
  attention_type: ['default'],
  class_embeddings_concat: [false],
  mid_block_only_cross_attention: [null, false],
  cross_attention_norm: [null],
  addition_embed_type_num_heads: [64],
};

/** Fill in what is left out with Stable Diffusion's values and refuse what we do not have. */
export function completeConfig(given: Partial<UNetConfig>): UNetConfig {
  for (const [field, value] of Object.entries(given)) {
    if (usual[field] && value !== undefined && !usual[field].includes(value)) {
      throw new Error(
        `UNet2DConditionModel: ${field} = ${JSON.stringify(value)} is not supported\n  only ${JSON.stringify(usual[field][0])} is`,
      );
    }
  }
  const levels = given.block_out_channels?.length;
  const config: UNetConfig = { ...sd15UNetConfig, ...given };
  if (levels && !given.down_block_types) throw missing('down_block_types');
  if (levels && !given.up_block_types) throw missing('up_block_types');
  for (const field of ['down_block_types', 'up_block_types'] as const) {
    if (config[field].length !== config.block_out_channels.length) {
      throw new Error(
        `UNet2DConditionModel: ${field} names ${config[field].length} blocks, block_out_channels ${config.block_out_channels.length}`,
      );
    }
  }
  const down = ['CrossAttnDownBlock2D', 'DownBlock2D'],
    up = ['CrossAttnUpBlock2D', 'UpBlock2D'];
  const unknown =
    config.down_block_types.find((type) => !down.includes(type)) ??
    config.up_block_types.find((type) => !up.includes(type));
  if (unknown)
    throw new Error(
      `UNet2DConditionModel: block type ${unknown} is not supported\n  known: ${[...down, ...up].join(' ')}`,
    );
  for (const field of ['attention_head_dim', 'num_attention_heads', 'transformer_layers_per_block'] as const) {
    const value = config[field];
    if (Array.isArray(value) && value.length !== config.block_out_channels.length) {
      throw new Error(
        `UNet2DConditionModel: ${field} has ${value.length} values for ${config.block_out_channels.length} levels`,
      );
    }
  }
  if (config.addition_embed_type === 'text_time') {
    if (!config.addition_time_embed_dim) throw missing('addition_time_embed_dim');
    if (!config.projection_class_embeddings_input_dim) throw missing('projection_class_embeddings_input_dim');
  } else if (config.addition_embed_type) {
    throw new Error(
      `UNet2DConditionModel: addition_embed_type ${config.addition_embed_type} is not supported\n  only text_time is`,
    );
  }
  return config;
}

const missing = (field: string) => new Error(`UNet2DConditionModel: the configuration lacks ${field}`);

/** One value for all levels, or one for each. */
export const perLevel = (value: number | number[], levels: number): number[] =>
  Array.isArray(value) ? value : Array<number>(levels).fill(value);
