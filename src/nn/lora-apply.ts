/** LoRAs on a model, several at once: merged into its weights, or added to what its layers make. */
import { castInto } from '../kernels/cast.ts';
import type { GpuArray } from '../kernels/index.ts';
import { noGrad, scope } from '../tensor/index.ts';
import type { Tensor } from '../tensor/index.ts';
import type { Lora, LoraLayer, LoraTarget } from './lora.ts';

/** A LoRA and how much of it. */
export interface ScaledLora {
  lora: Lora;
  /** 1 when not given; may be negative. */
  scale?: number;
}

/** LoRAs that are on a model. */
export interface AppliedLoras {
  /** Take them off: the model is what it was before. */
  remove(): void;
  /** For `using`. */
  [Symbol.dispose](): void;
}

const merged = new WeakSet<LoraTarget>();

/**
 * W ← W + Σ scale · (α / r) · B A. Costs nothing when the model runs. The weights of touched layers are kept on the GPU
 * meanwhile, and `remove()` puts back their bits; what was trained or loaded into them since is lost then.
 * @throws Error when a layer has merged LoRAs already
 */
export function mergeLoras(loras: readonly ScaledLora[]): AppliedLoras {
  const layers = byTarget('mergeLoras', loras, (target) => merged.has(target));
  const kept = new Map<LoraTarget, GpuArray>();
  for (const [target, parts] of layers) {
    const { array } = target.weight;
    const before = array.gpu.empty(array.shape, array.dtype);
    array.gpu.copy(array, before);
    kept.set(target, before);
    merged.add(target);
    scope(() => noGrad(() => castInto(sumOf(target.weight, parts).array, array)));
  }
  return removable(() => {
    for (const [target, before] of kept) {
      if (!target.weight.array.disposed) castInto(before, target.weight.array);
      before.dispose();
      merged.delete(target);
    }
  });
}

type Part = readonly [layer: LoraLayer, scale: number];

/** Sums are f32, so that halves are rounded once. */
function sumOf(weight: Tensor, parts: readonly Part[]): Tensor {
  return parts.reduce((sum, [layer, scale]) => layer.addTo(sum, scale), weight.detach());
}

/**
 * y = W x + b + Σ scale · (α / r) · B(A(x)), without touching a weight: for training the factors (ask for their gradients,
 * not the model's), for changing scales often, and for weights that are not to be rounded again.
 * @throws Error when a layer has such LoRAs already
 */
export function attachLoras(loras: readonly ScaledLora[]): AppliedLoras {
  const layers = byTarget('attachLoras', loras, (target) => target.adapter !== undefined);
  for (const [target, parts] of layers) {
    target.adapter = (x, residual) =>
      parts.reduce<Tensor | undefined>((sum, [layer, scale]) => layer.forward(x, { scale, residual: sum }), residual)!;
  }
  return removable(() => {
    for (const target of layers.keys()) target.adapter = undefined;
  });
}

/** What each layer gets. @throws Error when `taken` says that it has something already, or a scale is no number */
function byTarget(
  op: string,
  loras: readonly ScaledLora[],
  taken: (target: LoraTarget) => boolean,
): Map<LoraTarget, Part[]> {
  const found = new Map<LoraTarget, Part[]>();
  for (const { lora, scale = 1 } of loras) {
    if (!Number.isFinite(scale)) throw new RangeError(`${op}: the scale of ${lora.name} is ${scale}`);
    for (const [key, layer] of lora.layers) {
      if (taken(layer.target))
        throw new Error(`${op}: ${key} has a LoRA already\n  remove() that one first, or give both at once`);
      const parts = found.get(layer.target) ?? [];
      parts.push([layer, scale]);
      found.set(layer.target, parts);
    }
  }
  return found;
}

function removable(undo: () => void): AppliedLoras {
  let done = false;
  const remove = () => {
    if (!done) undo();
    done = true;
  };
  return { remove, [Symbol.dispose]: remove };
}
