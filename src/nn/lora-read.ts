/** LoRA files: which tensors are which factor of which layer, and whether they fit. */
import type { HostTensor } from '../tensor/io/safetensors.ts';
import { listed, LoraError } from './lora-error.ts';
import { layerFinder, networkOf, otherKind, parseLoraKey } from './lora-keys.ts';
import type { LoraPart } from './lora-keys.ts';
import { scalingOf } from './lora-metadata.ts';
import { componentNames, Lora, LoraLayer, loraTargets } from './lora.ts';
import type { LoraModels, LoraTarget } from './lora.ts';
import type { StateDict } from './module.ts';

/** How strictly a LoRA is read. */
export interface ReadLoraOptions {
  /** The file, for errors. */
  name?: string;
  /** The header of the file: newer files with PEFT's keys keep α there. */
  metadata?: Readonly<Record<string, string>>;
  /** Refuse tensors that are of no layer of `models` (default); otherwise they are left out, and listed in `unused`. */
  strict?: boolean;
}

/** A tensor of the file by what it is. */
type Found = Partial<Record<LoraPart, { key: string; tensor: HostTensor }>>;

/**
 * A LoRA from the tensors of a file, for these networks. Nothing of them changes: see `mergeLoras` and `attachLoras`.
 * @throws LoraError for another kind of file (LoHa, LoKr, DoRA, …), by name; and with all keys that are unknown, incomplete, or of
 * other shapes than the networks'
 */
export function readLora(
  tensors: StateDict,
  models: LoraModels,
  { name = 'LoRA', metadata = {}, strict = true }: ReadLoraOptions = {},
): { lora: Lora; unused: string[] } {
  refuseOthers(Object.keys(tensors), name);
  const targets = loraTargets(models);
  const scalingFor = scalingOf(metadata, name);
  const { layers, unknown, absent } = sort(tensors, models, targets);
  const wrong: string[] = [];
  const factors: Factors[] = [];
  for (const [layer, { down, up, alpha }] of layers) {
    const target = targets.get(layer)!;
    if (!down || !up) {
      wrong.push(`${layer}  has only ${(down ?? up ?? alpha)!.key}`);
      continue;
    }
    const [rank] = down.tensor.shape;
    const scaling = alpha ? alpha.tensor.data[0] / rank : scalingFor(layer, rank);
    if (!fits(down.tensor, up.tensor, target)) wrong.push(`${layer}  ${shapes(down.tensor, up.tensor, target)}`);
    else if (!Number.isFinite(scaling)) wrong.push(`${layer}  alpha / rank is ${scaling}`);
    factors.push({ layer, target, rank, scaling, down: down.tensor, up: up.tensor });
  }
  const unused = [...unknown, ...absent.values()].flat();
  if (wrong.length || !factors.length || (strict && unused.length)) {
    throw new LoraError(
      [
        `${name}: ${wrong.length || unknown.length || !absent.size ? 'made for another model' : 'wants more networks'}`,
        ...listed('wrong', wrong),
        ...listed('unknown', unknown),
        ...[...absent].map(
          ([network, keys]) => `  no ${network} was given: ${keys.length} tensors, such as ${keys[0]}`,
        ),
        `  ${layers.size} layers of the file are among the ${targets.size} of ${Object.keys(models).join(', ') || 'no network'}`,
      ].join('\n'),
    );
  }
  const lora = new Lora(new Map(factors.map((of) => [of.layer, filled(of)])), name);
  return { lora, unused };
}

/** What a file has for one layer. */
interface Factors {
  layer: string;
  target: LoraTarget;
  rank: number;
  scaling: number;
  down: HostTensor;
  up: HostTensor;
}

function filled({ target, rank, scaling, down, up }: Factors): LoraLayer {
  const layer = new LoraLayer(target, rank, scaling);
  layer.loadStateDict({ 'lora_A.weight': down, 'lora_B.weight': up });
  return layer;
}

function refuseOthers(keys: readonly string[], name: string): void {
  const kinds = new Map<string, string[]>();
  for (const key of keys) {
    const kind = otherKind(key);
    if (kind) kinds.set(kind, [...(kinds.get(kind) ?? []), key]);
  }
  if (!kinds.size) return;
  const lines = [...kinds].map(([kind, of]) => `  ${kind}: ${of.length} tensors, such as ${of[0]}`);
  const what = [...kinds.keys()].join(', ');
  throw new LoraError(
    [`${name}: ${what} is not supported`, ...lines, '  only LoRA is, of linear layers and convolutions'].join('\n'),
  );
}

/** The tensors by the layer that they are for; the keys of those for none; and of those for networks that are not there. */
function sort(tensors: StateDict, models: LoraModels, targets: ReadonlyMap<string, LoraTarget>) {
  const find = layerFinder(targets.keys());
  const layers = new Map<string, Found>();
  const unknown: string[] = [];
  const absent = new Map<string, string[]>();
  for (const [key, tensor] of Object.entries(tensors)) {
    const parsed = parseLoraKey(key);
    const network = parsed && networkOf(parsed);
    const layer = parsed && find(parsed);
    const described = `${key}  [${tensor.shape.join(', ')}]`;
    if (layer) layers.set(layer, { ...layers.get(layer), [parsed.part]: { key, tensor } });
    else if (isComponent(network) && !models[network]) absent.set(network, [...(absent.get(network) ?? []), described]);
    else unknown.push(described);
  }
  return { layers, unknown, absent };
}

const isComponent = (name?: string): name is keyof LoraModels => componentNames.some((component) => component === name);

const shapes = (down: HostTensor, up: HostTensor, { weight }: LoraTarget): string =>
  `file: down [${down.shape.join(', ')}] up [${up.shape.join(', ')}]  model: [${weight.checkpointShape.join(', ')}]`;

/** down: [r, I, kh, kw], up: [O, r, 1, 1] for a weight [O, I, kh, kw]; ones at the end may be absent on both sides */
function fits(down: HostTensor, up: HostTensor, { weight }: LoraTarget): boolean {
  const [O, I, ...kernel] = weight.checkpointShape;
  const [rank] = down.shape;
  const squeezed = (shape: readonly number[]) => shape.join().replace(/(,1)+$/, '');
  return (
    rank > 0 &&
    squeezed(down.shape) === squeezed([rank, I, ...kernel]) &&
    squeezed(up.shape) === squeezed([O, rank]) &&
    down.shape.length > 1 &&
    up.shape.length > 1
  );
}
