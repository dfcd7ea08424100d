/** Whole models in memory, of generated weights, small enough for tests. */
import { readFileSync } from 'node:fs';
import { Pipeline } from '../src/flow/pipeline.ts';
import { AutoencoderKL, CLIPTextModel, UNet2DConditionModel } from '../src/nn/index.ts';
import { ClipTokenizer } from '../src/nn/tokenizer.ts';
import { randoms } from './randoms.ts';

const vocabulary = (name: string) => readFileSync(`test/data/golden/tok/synthetic/${name}`, 'utf8');
export const tokenizer = new ClipTokenizer({ vocab: vocabulary('vocab.json'), merges: vocabulary('merges.txt') });
export const text = {
  vocab_size: 871,
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  projection_dim: 24,
};
export const vae = { block_out_channels: [8, 16], layers_per_block: 1, norm_num_groups: 4, sample_size: 16 };
export const unet = {
  sample_size: 8,
  block_out_channels: [8, 16],
  layers_per_block: 1,
  down_block_types: ['DownBlock2D', 'CrossAttnDownBlock2D'] as never,
  up_block_types: ['CrossAttnUpBlock2D', 'UpBlock2D'] as never,
  cross_attention_dim: 32,
  attention_head_dim: 2,
  norm_num_groups: 4,
};
export const sd = {
  _class_name: 'PNDMScheduler',
  beta_start: 0.00085,
  beta_end: 0.012,
  beta_schedule: 'scaled_linear',
  set_alpha_to_one: false,
  skip_prk_steps: true,
  steps_offset: 1,
  clip_sample: false,
};

/** The output layer starts at zero in training; here it is to say something. */
export function speaking(network: UNet2DConditionModel): UNet2DConditionModel {
  network.conv_out.weight.array.write(randoms(network.conv_out.weight.size, 4, [-0.1, 0.1]));
  return network;
}

/** `in_channels`: 9 for a network made for inpainting. */
export const tinyPipeline = (in_channels = 4, scheduler: { _class_name: string } = sd): Pipeline =>
  new Pipeline({
    tokenizer,
    textEncoder: new CLIPTextModel(text).initialize(1),
    vae: new AutoencoderKL(vae).initialize(2),
    networks: { unet: speaking(new UNet2DConditionModel({ ...unet, in_channels, out_channels: 4 }).initialize(3)) },
    defaults: { unet: { steps: 4, guidanceScale: 3 } },
    scheduler,
  });
