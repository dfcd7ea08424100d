/**
 * Alphas of a file with PEFT's keys, which have no tensors of their own: diffusers keeps PEFT's configuration in the header, as JSON
 * under `lora_adapter_metadata`, each field with the network's name (`unet.lora_alpha`).
 */
import { LoraError } from './lora-error.ts';
import type { Lora } from './lora.ts';

const field = 'lora_adapter_metadata';

/** What the product of the factors of a layer is multiplied by; α = r where nothing is said. */
export type Scaling = (layer: string, rank: number) => number;

/** @throws LoraError when the header is no JSON, or asks for DoRA */
export function scalingOf(metadata: Readonly<Record<string, string>>, name: string): Scaling {
  if (!metadata[field]) return () => 1;
  let config: Record<string, any>;
  try {
    config = JSON.parse(metadata[field]);
  } catch (error) {
    throw new LoraError(`${name}: ${field} in the header is not JSON (${(error as Error).message})`);
  }
  const dora = Object.keys(config).find((key) => key.endsWith('.use_dora') && config[key]);
  if (dora) throw new LoraError(`${name}: ${dora} is set, and DoRA is not supported`);
  return (layer, rank) => {
    const [network] = layer.split('.');
    const alpha = patternOf(config[`${network}.alpha_pattern`], layer) ?? config[`${network}.lora_alpha`] ?? rank;
    return alpha / (config[`${network}.use_rslora`] ? Math.sqrt(rank) : rank);
  };
}

/** PEFT's patterns are ends of keys. */
const patternOf = (patterns: Record<string, number> | undefined, layer: string): number | undefined =>
  Object.entries(patterns ?? {}).find(([end]) => layer.endsWith(`.${end}`))?.[1];

/** For the header of a file that `lora.stateDict()` goes into. */
export function loraMetadata(lora: Lora): Record<string, string> {
  const config: Record<string, unknown> = {};
  for (const network of new Set([...lora.layers.keys()].map((key) => key.split('.')[0]))) {
    const layers = [...lora.layers].filter(([key]) => key.startsWith(`${network}.`));
    const [, first] = layers[0];
    const pattern = (of: (layer: typeof first) => number) =>
      Object.fromEntries(
        layers
          .filter(([, layer]) => of(layer) !== of(first))
          .map(([key, layer]) => [key.slice(network.length + 1), of(layer)]),
      );
    const alpha = ({ scaling, rank }: typeof first) => scaling * rank;
    config[`${network}.r`] = first.rank;
    config[`${network}.lora_alpha`] = alpha(first);
    config[`${network}.rank_pattern`] = pattern(({ rank }) => rank);
    config[`${network}.alpha_pattern`] = pattern(alpha);
    config[`${network}.target_modules`] = layers.map(([key]) => key.slice(network.length + 1));
  }
  return { format: 'pt', [field]: JSON.stringify(config) };
}
