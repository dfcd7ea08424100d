export { CLIPTextModel, clipLConfig, idsTensor } from './clip-text.ts';
export type { CLIPTextConfig, CLIPTextOutput } from './clip-text.ts';
export { sd15UNetConfig } from './unet-config.ts';
export type { UNetConfig } from './unet-config.ts';
export { UNet2DConditionModel } from './unet.ts';
export type { AddedConditions } from './unet.ts';
export { AutoencoderKL, sdVAEConfig } from './vae.ts';
export type { Posterior, VAEConfig } from './vae.ts';
