/**
 * Keys of an autoencoder: `first_stage_model.*` of a single file, `vae/` in diffusers. The decoder of the single file counts
 * its levels from the image, diffusers from the latents; its attention is of 1×1 convolutions.
 *
 * @see ldm/modules/diffusionmodules/model.py. https://github.com/CompVis/stable-diffusion
 */
import { rename, rowsOf, type KeyMap, type Pairs } from './rows.ts';

const parts: Pairs = [
  ['mid.block_1', 'mid_block.resnets.0'],
  ['mid.block_2', 'mid_block.resnets.1'],
  ['mid.attn_1.norm', 'mid_block.attentions.0.group_norm'],
  ['mid.attn_1.q', 'mid_block.attentions.0.to_q'],
  ['mid.attn_1.k', 'mid_block.attentions.0.to_k'],
  ['mid.attn_1.v', 'mid_block.attentions.0.to_v'],
  ['mid.attn_1.proj_out', 'mid_block.attentions.0.to_out.0'],
  ['norm_out', 'conv_norm_out'],
  ['conv_in', 'conv_in'],
  ['conv_out', 'conv_out'],
];

const resnet: Pairs = [
  ['norm1', 'norm1'],
  ['conv1', 'conv1'],
  ['norm2', 'norm2'],
  ['conv2', 'conv2'],
  ['nin_shortcut', 'conv_shortcut'],
];

/** Before version 0.18 diffusers named them so, as in the published files of Stable Diffusion 1.5. */
const old: Pairs = [
  ['query', 'to_q'],
  ['key', 'to_k'],
  ['value', 'to_v'],
  ['proj_attn', 'to_out.0'],
];

/** The key of diffusers' present naming. */
export const currentVaeKey = (key: string): string =>
  key.replace(
    /^(.*\.attentions\.0\.)(.+)$/,
    (_, path: string, name: string) => path + (rename(name, old, 'diffusers') ?? name),
  );

const isMatrix = (key: string): boolean => /\.attentions\.0\.to_.*\.weight$/.test(key);

export const vaeKeys: KeyMap = {
  fromSingle: (keys) => {
    const levels = levelsOf(keys, /^decoder\.up\.(\d+)\./);
    return rowsOf(keys, 'single', (key) => toDiffusers(key, levels), op);
  },
  fromDiffusers: (keys) => {
    const levels = levelsOf(keys, /^decoder\.up_blocks\.(\d+)\./);
    return rowsOf(keys, 'diffusers', (key) => toSingle(key, levels), op);
  },
};

const op = (diffusers: string) => (isMatrix(diffusers) ? ('reshape' as const) : undefined);

function toDiffusers(key: string, levels: number): string | undefined {
  if (/^(post_)?quant_conv\./.test(key)) return key;
  const found = /^(encoder|decoder)\.(.+)$/.exec(key);
  if (!found) return undefined;
  const [, coder, rest] = found;
  const block = /^(down|up)\.(\d+)\.(?:block\.(\d+)\.(.+)|(?:down|up)sample\.(.+))$/.exec(rest);
  if (!block) return under(coder, rename(rest, parts, 'diffusers'));
  const [, side, level, number, inside, sampler] = block;
  const path = `${coder}.${side}_blocks.${side === 'down' ? level : levels - 1 - Number(level)}`;
  if (sampler) return `${path}.${side}samplers.0.${sampler}`;
  return under(`${path}.resnets.${number}`, rename(inside, resnet, 'diffusers'));
}

function toSingle(key: string, levels: number): string | undefined {
  if (/^(post_)?quant_conv\./.test(key)) return key;
  const found = /^(encoder|decoder)\.(.+)$/.exec(key);
  if (!found) return undefined;
  const [, coder, rest] = found;
  const block = /^(down|up)_blocks\.(\d+)\.(?:resnets\.(\d+)\.(.+)|(?:down|up)samplers\.0\.(.+))$/.exec(rest);
  if (!block) return under(coder, rename(rest, parts, 'single'));
  const [, side, level, number, inside, sampler] = block;
  const path = `${coder}.${side}.${side === 'down' ? level : levels - 1 - Number(level)}`;
  if (sampler) return `${path}.${side}sample.${sampler}`;
  return under(`${path}.block.${number}`, rename(inside, resnet, 'single'));
}

const under = (path: string, name: string | undefined): string | undefined => name && `${path}.${name}`;

const levelsOf = (keys: readonly string[], pattern: RegExp): number =>
  1 + keys.reduce((most, key) => Math.max(most, Number(pattern.exec(key)?.[1] ?? -1)), -1);
