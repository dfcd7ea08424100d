/** What a single file does not say but its shapes show: the config.json of each part, and the rest of a diffusers folder. */
import type { WeightSource } from '../../tensor/io/weights.ts';
import type { Family, PartName, Parts } from './model.ts';

type Config = Record<string, unknown>;

/** SDXL's networks have heads of 64 channels, as OpenCLIP and CLIP; Stable Diffusion 1.x has 8 heads everywhere. */
const HEAD = 64;

/** The config.json of a part of a single file, with the names of diffusers and transformers. */
export function inferConfig(part: PartName, source: WeightSource, family: Family): Config {
  if (part === 'unet') return unetConfig(source, family);
  return part === 'vae' ? vaeConfig(source, family) : textConfig(part, source);
}

function unetConfig(source: WeightSource, family: Family): Config {
  const shape = shapes(source);
  const isXL = family !== 'sd1';
  const down = encoderConfig(source, isXL);
  return {
    _class_name: 'UNet2DConditionModel',
    sample_size: isXL ? 128 : 64,
    ...down,
    out_channels: shape('conv_out.weight')[0],
    up_block_types: down.down_block_types.map((type) => type.replace('Down', 'Up')).reverse(),
  };
}

/**
 * The config.json of a ControlNet, by its shapes. Whether only the mean of what it makes counts (`global_pool_conditions`)
 * they do not show.
 */
export function controlNetConfig(source: WeightSource): Config {
  const shape = shapes(source);
  const at = 'controlnet_cond_embedding';
  const [first, channels] = shape(`${at}.conv_in.weight`);
  const blocks = range(count(source, /^controlnet_cond_embedding\.blocks\.(\d+)\./) / 2);
  return {
    _class_name: 'ControlNetModel',
    ...encoderConfig(source, source.entries.has('add_embedding.linear_1.weight')),
    conditioning_channels: channels,
    conditioning_embedding_out_channels: [first, ...blocks.map((i) => shape(`${at}.blocks.${2 * i + 1}.weight`)[0])],
  };
}

/** The way down of a U-Net, which a ControlNet has too. */
function encoderConfig(source: WeightSource, isXL: boolean) {
  const shape = shapes(source);
  const levels = range(count(source, /^down_blocks\.(\d+)\./));
  const channels = levels.map((i) => shape(`down_blocks.${i}.resnets.0.conv1.weight`)[0]);
  const depth = (path: string) =>
    count(source, new RegExp(`^${path}\\.attentions\\.0\\.transformer_blocks\\.(\\d+)\\.`));
  const depths = levels.map((i) => depth(`down_blocks.${i}`));
  const middle = depth('mid_block');
  const isLinear = shape('mid_block.attentions.0.proj_in.weight').length === 2;
  return {
    in_channels: shape('conv_in.weight')[1],
    down_block_types: depths.map((n) => (n ? 'CrossAttnDownBlock2D' : 'DownBlock2D')),
    block_out_channels: channels,
    layers_per_block: count(source, /^down_blocks\.0\.resnets\.(\d+)\./),
    cross_attention_dim: shape('mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight')[1],
    // The last also counts for the middle, whose own level may have none.
    transformer_layers_per_block: depths.map((n, i) => (i === levels.length - 1 ? middle : n || 1)),
    attention_head_dim: isLinear ? channels.map((n) => Math.max(1, n / HEAD)) : 8,
    use_linear_projection: isLinear,
    ...(isXL && {
      addition_embed_type: 'text_time',
      addition_time_embed_dim: 256,
      projection_class_embeddings_input_dim: shape('add_embedding.linear_1.weight')[1],
    }),
  };
}

function vaeConfig(source: WeightSource, family: Family): Config {
  const shape = shapes(source);
  const levels = range(count(source, /^encoder\.down_blocks\.(\d+)\./));
  return {
    _class_name: 'AutoencoderKL',
    in_channels: shape('encoder.conv_in.weight')[1],
    out_channels: shape('decoder.conv_out.weight')[0],
    down_block_types: levels.map(() => 'DownEncoderBlock2D'),
    up_block_types: levels.map(() => 'UpDecoderBlock2D'),
    block_out_channels: levels.map((i) => shape(`encoder.down_blocks.${i}.resnets.0.conv1.weight`)[0]),
    layers_per_block: count(source, /^encoder\.down_blocks\.0\.resnets\.(\d+)\./),
    latent_channels: shape('post_quant_conv.weight')[0],
    sample_size: family === 'sd1' ? 512 : 1024,
    scaling_factor: family === 'sd1' ? 0.18215 : 0.13025,
  };
}

function textConfig(part: PartName, source: WeightSource): Config {
  const shape = shapes(source);
  const [vocabulary, width] = shape('text_model.embeddings.token_embedding.weight');
  const isProjected = source.entries.has('text_projection.weight');
  return {
    architectures: [isProjected ? 'CLIPTextModelWithProjection' : 'CLIPTextModel'],
    model_type: 'clip_text_model',
    vocab_size: vocabulary,
    hidden_size: width,
    intermediate_size: shape('text_model.encoder.layers.0.mlp.fc1.weight')[0],
    num_hidden_layers: count(source, /^text_model\.encoder\.layers\.(\d+)\./),
    num_attention_heads: Math.max(1, width / HEAD),
    max_position_embeddings: shape('text_model.embeddings.position_embedding.weight')[0],
    hidden_act: part === 'text_encoder' ? 'quick_gelu' : 'gelu',
    layer_norm_eps: 1e-5,
    projection_dim: isProjected ? shape('text_projection.weight')[0] : width,
  };
}

const noise = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'scaled_linear', num_train_timesteps: 1000 };

/** The scheduler_config.json that the models were published with. */
export const schedulerConfig = (family: Family): Config =>
  family === 'sd1'
    ? { _class_name: 'PNDMScheduler', ...noise, skip_prk_steps: true, set_alpha_to_one: false, steps_offset: 1 }
    : { _class_name: 'EulerDiscreteScheduler', ...noise, timestep_spacing: 'leading', steps_offset: 1 };

const pipelines: Record<Family, string> = {
  sd1: 'StableDiffusionPipeline',
  sdxl: 'StableDiffusionXLPipeline',
  'sdxl-refiner': 'StableDiffusionXLImg2ImgPipeline',
};

/** The model_index.json of a folder with these parts. */
export function modelIndex(family: Family, parts: Parts): Config {
  const tokenizers = Object.keys(parts).filter((part) => part.startsWith('text_encoder'));
  const rows: Record<PartName, [string, string]> = {
    unet: ['diffusers', 'UNet2DConditionModel'],
    vae: ['diffusers', 'AutoencoderKL'],
    text_encoder: ['transformers', 'CLIPTextModel'],
    text_encoder_2: ['transformers', 'CLIPTextModelWithProjection'],
  };
  return {
    _class_name: pipelines[family],
    ...Object.fromEntries((Object.keys(parts) as PartName[]).map((part) => [part, rows[part]])),
    ...Object.fromEntries(
      tokenizers.map((part) => [part.replace('text_encoder', 'tokenizer'), ['transformers', 'CLIPTokenizer']]),
    ),
    scheduler: ['diffusers', schedulerConfig(family)._class_name],
  };
}

/** The shape of a key; [] of one that is absent, which the model will then name as missing. */
const shapes =
  ({ entries }: WeightSource) =>
  (key: string): readonly number[] =>
    entries.get(key)?.shape ?? [];

/** One more than the largest number at a place of the keys. */
const count = ({ entries }: WeightSource, pattern: RegExp): number =>
  1 + Math.max(-1, ...[...entries.keys()].map((key) => Number(pattern.exec(key)?.[1] ?? -1)));

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
