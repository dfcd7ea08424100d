/** Models as far as their configurations tell: what an estimate needs. */
import type { CLIPTextConfig } from '../../nn/models/clip-text.ts';
import type { CLIPVisionConfig } from '../../nn/models/clip-vision.ts';
import type { NetworkConfig } from '../../nn/models/network.ts';
import type { VAEConfig } from '../../nn/models/vae.ts';
import { schedulerConfig } from '../../nn/single-file/configs.ts';
import type { SamplingDefaults } from '../pipelines/options.ts';

/** A model without its weights. */
export interface ModelOutline {
  name: string;
  /** 'refiner' goes over images in the way of SDXL's, others make them of noise. */
  kind: 'unet' | 'refiner';
  textEncoder: Partial<CLIPTextConfig>;
  vae: Partial<VAEConfig>;
  network: NetworkConfig;
  /** The image tower of its safety checker, when that looks at the images. */
  safetyChecker?: Partial<CLIPVisionConfig>;
  /** Its scheduler_config.json; a rectified flow unless given. */
  scheduler?: { _class_name?: string };
  defaults: SamplingDefaults;
}

const diffusion = schedulerConfig('sd1');

/** OpenCLIP ViT-bigG/14's text tower. */
const bigG: Partial<CLIPTextConfig> = {
  hidden_size: 1280,
  intermediate_size: 5120,
  num_hidden_layers: 32,
  num_attention_heads: 20,
  hidden_act: 'gelu',
  projection_dim: 1280,
};

const refiner: NetworkConfig = {
  sample_size: 128,
  down_block_types: ['DownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D'],
  up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'UpBlock2D'],
  block_out_channels: [384, 768, 1536, 1536],
  transformer_layers_per_block: 4,
  cross_attention_dim: 1280,
  attention_head_dim: [6, 12, 24, 24],
  use_linear_projection: true,
  addition_embed_type: 'text_time',
  addition_time_embed_dim: 256,
  projection_class_embeddings_input_dim: 2560,
};

const sd = { kind: 'unet', textEncoder: {}, vae: {}, network: {} } as const;

/** Models that are known without any file. */
export const builtIn: Record<string, ModelOutline> = {
  sd15: {
    ...sd,
    name: 'Stable Diffusion 1.5',
    scheduler: { ...diffusion, _class_name: 'DPMSolverMultistepScheduler' },
    defaults: { steps: 25, guidanceScale: 5 },
  },
  'instaflow-0.9b': { ...sd, name: 'InstaFlow-0.9B', defaults: { steps: 1, guidanceScale: 1 } },
  'instaflow-1.7b': {
    ...sd,
    name: 'InstaFlow-1.7B',
    network: { _class_name: 'StackedUNet' },
    defaults: { steps: 1, guidanceScale: 1 },
  },
  'sdxl-refiner': {
    name: 'SDXL refiner 1.0',
    kind: 'refiner',
    textEncoder: bigG,
    vae: { sample_size: 1024, scaling_factor: 0.13025 },
    network: refiner,
    scheduler: schedulerConfig('sdxl-refiner'),
    defaults: { steps: 50, guidanceScale: 5 },
  },
};
