/**
 * Keys of a ControlNet: `control_model.*` of the original files, with the names of ldm, or those of diffusers.
 *
 *     input_hint_block.0, .2, …, .14     controlnet_cond_embedding.conv_in, blocks.0, …, conv_out
 *     zero_convs.i.0                     controlnet_down_blocks.i
 *     middle_block_out.0                 controlnet_mid_block
 *
 * The rest is the way down of a U-Net.
 * @see `ControlNet` in cldm/cldm.py. https://github.com/lllyasviel/ControlNet
 */
import { WeightsError } from '../../tensor/io/weights.ts';
import type { WeightSource } from '../../tensor/io/weights.ts';
import { partView } from './model.ts';
import { rowsOf } from './rows.ts';
import type { KeyMap } from './rows.ts';
import { unetKeys } from './unet.ts';

export const controlKeys: KeyMap = {
  fromSingle(keys) {
    const last = largest(keys, /^input_hint_block\.(\d+)\./);
    return [...rowsOf(keys, 'single', (key) => toDiffusers(key, last)), ...unetKeys.fromSingle(keys)];
  },
  fromDiffusers(keys) {
    const last = 2 * (largest(keys, /^controlnet_cond_embedding\.blocks\.(\d+)\./) + 2);
    return [...rowsOf(keys, 'diffusers', (key) => toSingle(key, last)), ...unetKeys.fromDiffusers(keys)];
  },
};

function toDiffusers(key: string, last: number): string | undefined {
  const hint = /^input_hint_block\.(\d+)\.(.+)$/.exec(key);
  if (hint) {
    const at = Number(hint[1]);
    const name = at === 0 ? 'conv_in' : at === last ? 'conv_out' : `blocks.${at / 2 - 1}`;
    return `controlnet_cond_embedding.${name}.${hint[2]}`;
  }
  const zero = /^zero_convs\.(\d+)\.0\.(.+)$/.exec(key);
  if (zero) return `controlnet_down_blocks.${zero[1]}.${zero[2]}`;
  return key.startsWith(middle) ? `controlnet_mid_block.${key.slice(middle.length)}` : undefined;
}

const middle = 'middle_block_out.0.';

function toSingle(key: string, last: number): string | undefined {
  const hint = /^controlnet_cond_embedding\.(conv_in|conv_out|blocks\.(\d+))\.(.+)$/.exec(key);
  if (hint) {
    const at = hint[1] === 'conv_in' ? 0 : hint[1] === 'conv_out' ? last : 2 * (Number(hint[2]) + 1);
    return `input_hint_block.${at}.${hint[3]}`;
  }
  const zero = /^controlnet_down_blocks\.(\d+)\.(.+)$/.exec(key);
  if (zero) return `zero_convs.${zero[1]}.0.${zero[2]}`;
  const rest = /^controlnet_mid_block\.(.+)$/.exec(key);
  return rest ? middle + rest[1] : undefined;
}

/**
 * A file that has a ControlNet, with the keys of diffusers. What else it has (the first ones came with a whole model) is left.
 * @throws WeightsError when it has none
 */
export function controlNetOf(source: WeightSource): WeightSource {
  const keys = [...source.entries.keys()];
  if (keys.some((key) => key.startsWith('controlnet_cond_embedding.'))) return source;
  const prefix = ['control_model.', ''].find((start) =>
    keys.some((key) => key.startsWith(`${start}input_hint_block.`)),
  );
  if (prefix === undefined)
    throw new WeightsError(
      `${source.name}: not a ControlNet\n  its keys: ${keys.slice(0, 3).join(', ')}, …\n` +
        '  wanted: control_model.input_hint_block… as in the original files, or controlnet_cond_embedding… as in diffusers',
    );
  const own = keys.flatMap((key) => (key.startsWith(prefix) ? [key.slice(prefix.length)] : []));
  return partView(source, prefix, controlKeys.fromSingle(own));
}

const largest = (keys: readonly string[], pattern: RegExp): number =>
  keys.reduce((most, key) => Math.max(most, Number(pattern.exec(key)?.[1] ?? -1)), -1);
