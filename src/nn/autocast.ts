/** Networks run in half precision while their weights stay f32: PyTorch's autocast, for whole networks. */
import { Tensor } from '../tensor/index.ts';
import { Module, Parameter } from './module.ts';

/** The ways into a network; what goes in becomes f16, what comes out f32. */
const entries = ['forward', 'encode', 'decode'] as const;

/**
 * `run()` with the weights of `modules` (matrices and filters; biases and norms are small and stay f32) replaced by copies in f16, and
 * with f32 inputs of each module as a whole rounded to f16, so that what passes between its layers is f16 too. Gradients go
 * through the copies to the f32 weights, so `backward()` must be inside. A recorded step makes the copies anew at each replay.
 *
 *     autocast([unet], () => { const loss = flowLoss(unet.forward(xt, waves, text), target); mul(loss, scale).backward(); return loss; });
 *
 * @see Micikevicius et al. 2017, Mixed Precision Training, §3.1. https://arxiv.org/abs/1710.03740
 */
export function autocast<T>(modules: Iterable<Module>, run: () => T): T {
  const undo: (() => void)[] = [];
  try {
    for (const module of modules) {
      for (const part of [module, ...module.namedModules().values()]) undo.push(...halveWeights(part));
      for (const entry of entries) if (entry in module) undo.push(convertAround(module, entry));
    }
    return run();
  } finally {
    for (const restore of undo) restore();
  }
}

function halveWeights(module: Module): (() => void)[] {
  const undo: (() => void)[] = [];
  for (const [field, value] of Object.entries(module)) {
    if (!(value instanceof Parameter) || value.dtype !== 'f32' || value.shape.length < 2) continue;
    const half = value.to('f16');
    (module as any)[field] = half;
    undo.push(() => ((module as any)[field] = value));
  }
  return undo;
}

function convertAround(module: any, entry: (typeof entries)[number]): () => void {
  const original = module[entry];
  module[entry] = (...args: unknown[]) =>
    asDType(
      'f32',
      original.apply(
        module,
        args.map((arg) => (arg instanceof Tensor ? asDType('f16', arg) : arg)),
      ),
    );
  return () => delete module[entry];
}

/** Floating-point tensors in arrays and plain objects too. */
function asDType(dtype: 'f16' | 'f32', value: unknown): unknown {
  if (value instanceof Tensor) return value.dtype === (dtype === 'f16' ? 'f32' : 'f16') ? value.to(dtype) : value;
  if (Array.isArray(value)) return value.map((item) => asDType(dtype, item));
  if (value && Object.getPrototypeOf(value) === Object.prototype)
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, asDType(dtype, item)]));
  return value;
}
