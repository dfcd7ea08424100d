import { shapeError } from '../../kernels/index.ts';
import { add, chunk, clamp, exp, mul, scope } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { Attention } from '../layers/attention.ts';
import { Conv2d } from '../layers/conv2d.ts';
import { GroupNorm } from '../layers/norm.ts';
import { ResnetBlock2D } from '../layers/resnet.ts';
import { Downsample2D, Upsample2D } from '../layers/sampling.ts';
import { Module } from '../module.ts';
import { checkpointed, plainly } from './unet-blocks.ts';

/** The fields of a diffusers AutoencoderKL config.json that matter. */
export interface VAEConfig {
  in_channels: number;
  out_channels: number;
  block_out_channels: number[];
  layers_per_block: number;
  latent_channels: number;
  norm_num_groups: number;
  sample_size: number;
  /** Latents × this have about unit variance: what the U-Net works on. */
  scaling_factor: number;
}

/** Stable Diffusion's. */
export const sdVAEConfig: VAEConfig = {
  in_channels: 3,
  out_channels: 3,
  block_out_channels: [128, 256, 512, 512],
  layers_per_block: 2,
  latent_channels: 4,
  norm_num_groups: 32,
  sample_size: 512,
  scaling_factor: 0.18215,
};

const EPS = 1e-6;

class DownEncoderBlock2D extends Module {
  resnets: ResnetBlock2D[];
  downsamplers: [Downsample2D] | undefined;

  constructor(
    inputs: number,
    outputs: number,
    { layers, groups, downsample }: { layers: number; groups: number; downsample: boolean },
  ) {
    super();
    this.resnets = resnets(layers, inputs, outputs, groups);
    if (downsample) this.downsamplers = [new Downsample2D(outputs, [0, 1, 0, 1])];
  }

  /** x: [B, H, W, I] → [B, H/2, W/2, O] */
  forward(x: Tensor): Tensor {
    for (const resnet of this.resnets) x = scope(() => resnet.forward(x));
    return this.downsamplers ? this.downsamplers[0].forward(x) : x;
  }
}

class UpDecoderBlock2D extends Module {
  resnets: ResnetBlock2D[];
  upsamplers: [Upsample2D] | undefined;

  constructor(
    inputs: number,
    outputs: number,
    { layers, groups, upsample }: { layers: number; groups: number; upsample: boolean },
  ) {
    super();
    this.resnets = resnets(layers, inputs, outputs, groups);
    if (upsample) this.upsamplers = [new Upsample2D(outputs)];
  }

  /** x: [B, H, W, I] → [B, 2H, 2W, O] */
  forward(x: Tensor, call = plainly): Tensor {
    for (const resnet of this.resnets) x = call((x) => resnet.forward(x), x);
    return this.upsamplers ? this.upsamplers[0].forward(x) : x;
  }
}

class VAEMidBlock2D extends Module {
  attentions: [Attention];
  resnets: ResnetBlock2D[];

  constructor(channels: number, groups: number) {
    super();
    this.attentions = [new Attention(channels, { heads: 1, bias: true, groups })];
    this.resnets = resnets(2, channels, channels, groups);
  }

  /** x: [B, H, W, C] → [B, H, W, C] */
  forward(x: Tensor): Tensor {
    x = this.attentions[0].forwardImage(this.resnets[0].forward(x));
    return this.resnets[1].forward(x);
  }
}

class Encoder extends Module {
  conv_in: Conv2d;
  down_blocks: DownEncoderBlock2D[];
  mid_block: VAEMidBlock2D;
  conv_norm_out: GroupNorm;
  conv_out: Conv2d;

  constructor({
    in_channels,
    block_out_channels: channels,
    layers_per_block: layers,
    latent_channels,
    norm_num_groups: groups,
  }: VAEConfig) {
    super();
    const last = channels.length - 1;
    this.conv_in = new Conv2d(in_channels, channels[0], 3, { padding: 1 });
    this.down_blocks = channels.map(
      (n, i) => new DownEncoderBlock2D(channels[Math.max(0, i - 1)], n, { layers, groups, downsample: i < last }),
    );
    this.mid_block = new VAEMidBlock2D(channels[last], groups);
    this.conv_norm_out = new GroupNorm(groups, channels[last], { eps: EPS, silu: true });
    this.conv_out = new Conv2d(channels[last], 2 * latent_channels, 3, { padding: 1 });
  }

  /** image: [B, H, W, 3] → [B, h, w, 2 Z] */
  forward(image: Tensor): Tensor {
    let x = this.conv_in.forward(image);
    for (const block of this.down_blocks) x = block.forward(x);
    return this.conv_out.forward(this.conv_norm_out.forward(this.mid_block.forward(x)));
  }
}

class Decoder extends Module {
  conv_in: Conv2d;
  up_blocks: UpDecoderBlock2D[];
  mid_block: VAEMidBlock2D;
  conv_norm_out: GroupNorm;
  conv_out: Conv2d;

  constructor({
    out_channels,
    block_out_channels,
    layers_per_block,
    latent_channels,
    norm_num_groups: groups,
  }: VAEConfig) {
    super();
    const channels = [...block_out_channels].reverse();
    const last = channels.length - 1;
    const layers = layers_per_block + 1;
    this.conv_in = new Conv2d(latent_channels, channels[0], 3, { padding: 1 });
    this.up_blocks = channels.map(
      (n, i) => new UpDecoderBlock2D(channels[Math.max(0, i - 1)], n, { layers, groups, upsample: i < last }),
    );
    this.mid_block = new VAEMidBlock2D(channels[0], groups);
    this.conv_norm_out = new GroupNorm(groups, channels[last], { eps: EPS, silu: true });
    this.conv_out = new Conv2d(channels[last], out_channels, 3, { padding: 1 });
  }

  /** z: [B, h, w, Z] → [B, H, W, 3] */
  forward(z: Tensor, call = plainly): Tensor {
    return this.conv_out.forward(this.conv_norm_out.forward(this.features(z, call).at(-1)!));
  }

  /** What the middle block makes, and each block after it. */
  features(z: Tensor, call = plainly): Tensor[] {
    const made = [this.mid_block.forward(this.conv_in.forward(z))];
    for (const block of this.up_blocks) made.push(block.forward(made.at(-1)!, call));
    return made;
  }
}

/** A Gaussian for each element of the latents. */
export interface Posterior {
  mean: Tensor; // [B, h, w, Z]
  logvar: Tensor; // [B, h, w, Z]
}

/**
 * Images ↔ latents with an eighth of the pixels each way (by four levels), so that the U-Net has less to do.
 * @see Kingma & Welling 2013, Auto-Encoding Variational Bayes. https://arxiv.org/abs/1312.6114
 */
export class AutoencoderKL extends Module {
  encoder: Encoder;
  decoder: Decoder;
  quant_conv: Conv2d;
  post_quant_conv: Conv2d;
  readonly config: VAEConfig;
  /** Backward through the decoder computes its blocks again instead of keeping what they made: less memory, more time. */
  gradientCheckpointing = false;

  constructor(config: Partial<VAEConfig> = {}) {
    super();
    const c = (this.config = { ...sdVAEConfig, ...config });
    this.encoder = new Encoder(c);
    this.decoder = new Decoder(c);
    this.quant_conv = new Conv2d(2 * c.latent_channels, 2 * c.latent_channels, 1);
    this.post_quant_conv = new Conv2d(c.latent_channels, c.latent_channels, 1);
  }

  /** Pixels per latent, each way. */
  get factor(): number {
    return 2 ** (this.config.block_out_channels.length - 1);
  }

  /** image: [B, H, W, 3] in −1 … 1 → mean and log-variance of its latents, [B, H/8, W/8, 4] each */
  encode(image: Tensor): Posterior {
    const [, H, W] = image.shape;
    if (image.shape.length !== 4) throw shapeError('AutoencoderKL', 'wants images [B, H, W, C]', { image });
    if (H % this.factor || W % this.factor) {
      throw shapeError('AutoencoderKL', `sides must be multiples of ${this.factor}`, { 'image [B, H, W, C]': image });
    }
    const [mean, logvar] = chunk(this.moments(image), 2);
    return { mean, logvar: clamp(logvar, { min: -30, max: 20 }) };
  }

  /** image: [B, H, W, 3] → mean and log-variance, not clamped, side by side: [B, H/8, W/8, 8] */
  moments(image: Tensor): Tensor {
    return this.quant_conv.forward(this.encoder.forward(image));
  }

  /** mean + std · noise */
  sample({ mean, logvar }: Posterior, noise: Tensor): Tensor {
    return add(mean, mul(exp(mul(logvar, 0.5)), noise));
  }

  /** z: [B, H/8, W/8, 4], not scaled → image [B, H, W, 3] */
  decode(z: Tensor): Tensor {
    return this.decoder.forward(this.post_quant_conv.forward(z), this.gradientCheckpointing ? checkpointed : plainly);
  }

  /** z: [B, h, w, 4], not scaled → what the decoder's blocks make of it, from the middle to the last, [B, H, W, C] each. */
  decoderFeatures(z: Tensor): Tensor[] {
    return this.decoder.features(this.post_quant_conv.forward(z), this.gradientCheckpointing ? checkpointed : plainly);
  }
}

const resnets = (layers: number, inputs: number, outputs: number, groups: number): ResnetBlock2D[] =>
  Array.from({ length: layers }, (_, i) => new ResnetBlock2D(i ? outputs : inputs, outputs, { groups, eps: EPS }));
