/**
 * Keys of LoRA files, as PEFT, diffusers and kohya's scripts (Automatic1111, civitai) write them.
 *
 *     PEFT       unet.mid_block.attentions.0.proj_in.lora_A.weight           and lora_B
 *     diffusers  unet.mid_block.attentions.0.proj_in.lora.down.weight        and up; also lora_linear_layer.down,
 *                unet.….attn1.processor.to_q_lora.down.weight                from before PEFT
 *     kohya      lora_unet_mid_block_attentions_0_proj_in.lora_down.weight   and lora_up, and .alpha
 */

import { unetKeys } from './single-file/unet.ts';

/** Which number of a layer's factors a key holds. */
export type LoraPart = 'down' | 'up' | 'alpha';

export interface LoraKey {
  /** The layer: with points, the network's name first; or `flat`, as kohya has it. */
  layer: string;
  flat: boolean;
  part: LoraPart;
}

/** Other kinds of small changes, and of LoRA, by what their keys end with. */
const others: readonly [RegExp, string][] = [
  [/\.hada_(w[12]_[ab]|t[12])$/, 'LoHa'],
  [/\.lokr_(w[12](_[ab])?|t2)$/, 'LoKr'],
  [/\.lora_mid\.weight$/, 'LoCon with a Tucker core'],
  [/\.(dora_scale|lora_magnitude_vector(\.\w+)*)$/, 'DoRA'],
  [/\.lora_[AB](\.\w+)?\.bias$/, 'LoRA with biases'],
  [/\.oft_(blocks|diag|R)(\.\w+)*$/, 'OFT'],
  [/\.(ia3_l(\.\w+)*|on_input)$/, 'IA³'],
  [/\.([ab][12]|bm[12])\.weight$/, 'GLoRA'],
  [/\.(diff|diff_b|w_norm|b_norm)$/, 'whole weights of LyCORIS'],
];

/** What a key belongs to that is no LoRA, or a kind of it that is not here. */
export const otherKind = (key: string): string | undefined => others.find(([pattern]) => pattern.test(key))?.[1];

const parts: readonly [RegExp, LoraPart][] = [
  [/\.(lora_A(\.\w+)?|lora_down|lora\.down|lora_linear_layer\.down)\.weight$/, 'down'],
  [/\.(lora_B(\.\w+)?|lora_up|lora\.up|lora_linear_layer\.up)\.weight$/, 'up'],
  [/(\.lora|\.lora_linear_layer)?\.alpha$/, 'alpha'],
];

/** @returns undefined for a key that is none of a LoRA */
export function parseLoraKey(key: string): LoraKey | undefined {
  const plain = modern(key.replace(/^base_model\.model\./, ''));
  for (const [pattern, part] of parts) {
    if (!pattern.test(plain)) continue;
    const layer = plain.replace(pattern, '');
    return { layer, part, flat: /^lora_(unet|te\d?)_[^.]+$/.test(layer) };
  }
  return undefined;
}

/** attn1.processor.to_out_lora.up.weight → attn1.to_out.0.lora.up.weight; to_q_lora of a text encoder → q_proj */
function modern(key: string): string {
  return key
    .replace(/\.processor\.to_out_lora\./, '.to_out.0.lora.')
    .replace(/\.processor\.to_([qkv])_lora\./, '.to_$1.lora.')
    .replace(/\.self_attn\.to_([qkv]|out)_lora\./, '.self_attn.$1_proj.lora.');
}

/** kohya's names of the networks. */
const flatPrefixes: readonly [RegExp, string][] = [
  [/^lora_unet_/, 'unet'],
  [/^lora_te1?_/, 'text_encoder'],
  [/^lora_te2_/, 'text_encoder_2'],
];

/** Which network a key is for. */
export function networkOf({ layer, flat }: LoraKey): string {
  if (flat) return flatPrefixes.find(([pattern]) => pattern.test(layer))?.[1] ?? layer;
  return /^(unet|text_encoder(_2)?)\./.exec(layer)?.[1] ?? 'unet'; // early files are of the U-Net alone, and do not say so
}

/**
 * Finds layers by what files call them. kohya's names have underscores for points, which cannot be undone by rule
 * (`to_q`, `down_blocks`), so every layer that there is gets its flat name; in the U-Net two, as those of SDXL are called by
 * the original code (`input_blocks_4_1_…`).   `targets`: keys with the network's name
 */
export function layerFinder(targets: Iterable<string>): (key: LoraKey) => string | undefined {
  const keys = new Set(targets);
  const unet = [...keys].flatMap((key) => (key.startsWith('unet.') ? [`${key.slice('unet.'.length)}.weight`] : []));
  const original = unetKeys.fromDiffusers(unet).map(({ single, diffusers }) => [single, diffusers].map(withNetwork));
  const byFlatName = new Map(
    [...original, ...[...keys].map((key) => [key, key])].map(([name, key]) => [flat(name), key]),
  );
  return (key) => {
    const network = networkOf(key);
    if (key.flat) return byFlatName.get(key.layer.replace(/^lora_[^_]+/, network));
    const layer = key.layer.startsWith(`${network}.`) ? key.layer : `${network}.${key.layer}`;
    return keys.has(layer) ? layer : undefined;
  };
}

const flat = (layer: string): string => layer.replaceAll('.', '_');
const withNetwork = (key: string): string => `unet.${key.replace(/\.weight$/, '')}`;
