/**
 * Keys of a U-Net: `model.diffusion_model.*` of a single file, `unet/` in diffusers.
 *
 * The single file counts layers through: with n = layers_per_block + 1,
 *
 *     input_blocks.{1 + n·i + j}.0, .1    down_blocks.i.resnets.j, attentions.j        input_blocks.{n·(i + 1)}.0    its downsampler
 *     output_blocks.{n·i + j}.0, .1       up_blocks.i.resnets.j, attentions.j          output_blocks.{n·i + n − 1}, last part: its upsampler
 *
 * @see `UNetModel` in ldm/modules/diffusionmodules/openaimodel.py. https://github.com/CompVis/stable-diffusion
 */
import { rename, rowsOf, type KeyMap, type Pairs } from './rows.ts';

const outer: Pairs = [
  ['time_embed.0', 'time_embedding.linear_1'],
  ['time_embed.2', 'time_embedding.linear_2'],
  ['label_emb.0.0', 'add_embedding.linear_1'],
  ['label_emb.0.2', 'add_embedding.linear_2'],
  ['input_blocks.0.0', 'conv_in'],
  ['out.0', 'conv_norm_out'],
  ['out.2', 'conv_out'],
  ['middle_block.1', 'mid_block.attentions.0'],
];

const resnet: Pairs = [
  ['in_layers.0', 'norm1'],
  ['in_layers.2', 'conv1'],
  ['emb_layers.1', 'time_emb_proj'],
  ['out_layers.0', 'norm2'],
  ['out_layers.3', 'conv2'],
  ['skip_connection', 'conv_shortcut'],
];

export const unetKeys: KeyMap = {
  fromSingle(keys) {
    const downsamplers = numbers(keys, /^input_blocks\.(\d+)\.0\.op\./);
    const inputs = numbers(keys, /^input_blocks\.(\d+)\./);
    const n = downsamplers.length ? Math.min(...downsamplers) : inputs.length ? Math.max(...inputs) + 1 : 1;
    return rowsOf(keys, 'single', (key) => rename(key, outer, 'diffusers') ?? block(key, n));
  },
  fromDiffusers(keys) {
    const n = 2 + Math.max(-1, ...numbers(keys, /^down_blocks\.0\.resnets\.(\d+)\./));
    const attended = new Set(numbers(keys, /^up_blocks\.(\d+)\.attentions\./));
    return rowsOf(keys, 'diffusers', (key) => rename(key, outer, 'single') ?? layer(key, n, attended));
  },
};

function block(key: string, n: number): string | undefined {
  const middle = /^middle_block\.([02])\.(.+)$/.exec(key);
  if (middle) return under(`mid_block.resnets.${Number(middle[1]) / 2}`, rename(middle[2], resnet, 'diffusers'));
  const found = /^(input|output)_blocks\.(\d+)\.([012])\.(.+)$/.exec(key);
  if (!found) return undefined;
  const [, side, number, part, rest] = found;
  const at = side === 'input' ? Number(number) - 1 : Number(number);
  const path = `${side === 'input' ? 'down' : 'up'}_blocks.${Math.floor(at / n)}`;
  if (side === 'input' && rest.startsWith('op.')) return `${path}.downsamplers.0.conv.${rest.slice('op.'.length)}`;
  if (side === 'output' && rest.startsWith('conv.')) return `${path}.upsamplers.0.${rest}`;
  if (part === '0') return under(`${path}.resnets.${at % n}`, rename(rest, resnet, 'diffusers'));
  return part === '1' ? `${path}.attentions.${at % n}.${rest}` : undefined;
}

function layer(key: string, n: number, attended: ReadonlySet<number>): string | undefined {
  const middle = /^mid_block\.resnets\.([01])\.(.+)$/.exec(key);
  if (middle) return under(`middle_block.${2 * Number(middle[1])}`, rename(middle[2], resnet, 'single'));
  const found = /^(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)$/.exec(key);
  if (!found) return undefined;
  const [, side, level, what, number, rest] = found;
  const i = Number(level);
  if (what === 'downsamplers') return rest.replace(/^conv\./, `input_blocks.${n * (i + 1)}.0.op.`);
  if (what === 'upsamplers') return `output_blocks.${n * i + n - 1}.${attended.has(i) ? 2 : 1}.${rest}`;
  const at = n * i + Number(number);
  const path = side === 'down' ? `input_blocks.${at + 1}` : `output_blocks.${at}`;
  return what === 'resnets' ? under(`${path}.0`, rename(rest, resnet, 'single')) : `${path}.1.${rest}`;
}

const under = (path: string, name: string | undefined): string | undefined => name && `${path}.${name}`;

const numbers = (keys: readonly string[], pattern: RegExp): number[] =>
  keys.flatMap((key) => {
    const found = pattern.exec(key);
    return found ? [Number(found[1])] : [];
  });
