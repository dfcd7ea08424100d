/** Whole models of generated weights in diffusers' layout, small enough for tests. */
import { copyFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { saveModule, writeJson } from '../src/flow/recipe/model-folder.ts';
import { AutoencoderKL, CLIPTextModel, UNet2DConditionModel } from '../src/nn/index.ts';
import { randoms } from './randoms.ts';

export const unet = {
  sample_size: 8,
  block_out_channels: [32, 64],
  layers_per_block: 2,
  down_block_types: ['CrossAttnDownBlock2D', 'DownBlock2D'],
  up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D'],
  cross_attention_dim: 128,
  attention_head_dim: 8,
};
export const vae = { block_out_channels: [32, 64], layers_per_block: 2, sample_size: 16 };
export const clip = {
  vocab_size: 871,
  hidden_size: 128, // a single file shows the width alone: heads have 64 channels in CLIP
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  projection_dim: 24,
};
export const refinerUNet = {
  ...unet,
  use_linear_projection: true,
  addition_embed_type: 'text_time' as const,
  addition_time_embed_dim: 8,
  projection_class_embeddings_input_dim: 64,
};

export async function addTokenizer(model: string, name = 'tokenizer'): Promise<void> {
  await mkdir(join(model, name), { recursive: true });
  for (const file of ['vocab.json', 'merges.txt'])
    await copyFile(`test/data/golden/tok/synthetic/${file}`, join(model, name, file));
}

const exact = { dtype: 'F32' } as const;

/** A diffusers folder: images of 16 × 16 by a diffusion, or whatever `className` says. */
export async function makeModel(model: string, className: string): Promise<string> {
  using network = new UNet2DConditionModel(unet).initialize(3);
  network.conv_out.weight.array.write(randoms(network.conv_out.weight.size, 4, [-0.1, 0.1]));
  using autoencoder = new AutoencoderKL(vae).initialize(2);
  using encoder = new CLIPTextModel(clip).initialize(1);
  await saveModule(model, 'unet', network, 'UNet2DConditionModel', exact);
  await saveModule(model, 'vae', autoencoder, 'AutoencoderKL', exact);
  await saveModule(model, 'text_encoder', encoder, 'CLIPTextModel', exact);
  await addTokenizer(model);
  await mkdir(join(model, 'scheduler'));
  await writeJson(join(model, 'scheduler', 'scheduler_config.json'), {
    _class_name: 'PNDMScheduler',
    num_train_timesteps: 1000,
    beta_start: 0.00085,
    beta_end: 0.012,
    beta_schedule: 'scaled_linear',
    skip_prk_steps: true,
    set_alpha_to_one: false,
    steps_offset: 1,
  });
  await writeJson(join(model, 'model_index.json'), {
    _class_name: className,
    scheduler: ['diffusers', 'PNDMScheduler'],
    text_encoder: ['transformers', 'CLIPTextModel'],
    tokenizer: ['transformers', 'CLIPTokenizer'],
    unet: ['diffusers', 'UNet2DConditionModel'],
    vae: ['diffusers', 'AutoencoderKL'],
  });
  return model;
}

/** A folder in the layout of Stable Diffusion XL's refiner. */
export async function makeRefiner(model: string): Promise<string> {
  using network = new UNet2DConditionModel(refinerUNet).initialize(3);
  using autoencoder = new AutoencoderKL(vae).initialize(2);
  using encoder = new CLIPTextModel({ ...clip, hidden_act: 'gelu' }, { projection: true }).initialize(1);
  await saveModule(model, 'unet', network, 'UNet2DConditionModel', exact);
  await saveModule(model, 'vae', autoencoder, 'AutoencoderKL', exact);
  await saveModule(model, 'text_encoder_2', encoder, 'CLIPTextModelWithProjection', exact);
  await addTokenizer(model, 'tokenizer_2');
  await writeJson(join(model, 'model_index.json'), {
    _class_name: 'StableDiffusionXLImg2ImgPipeline',
    text_encoder: [null, null],
    text_encoder_2: ['transformers', 'CLIPTextModelWithProjection'],
    tokenizer_2: ['transformers', 'CLIPTokenizer'],
    unet: ['diffusers', 'UNet2DConditionModel'],
    vae: ['diffusers', 'AutoencoderKL'],
  });
  return model;
}
