import { castInto } from '../kernels/cast.ts';
import { GpuArray, shapeError, sizeOf } from '../kernels/index.ts';
import type { DType } from '../kernels/index.ts';
import { currentGpu, keep, Tensor } from '../tensor/index.ts';
import type { HostTensor } from '../tensor/io/safetensors.ts';
import type { Initializer } from './initializers.ts';
import { checkpointShape, fromCheckpoint, toCheckpoint } from './layout.ts';
import type { Layout } from './layout.ts';
import { compareKeys, StateDictError } from './state-dict.ts';

/** A tensor that is trained and saved. Zero until `initialize()` or `loadStateDict()` of its module fills it. */
export class Parameter extends Tensor {
  constructor(
    shape: readonly number[],
    readonly init: Initializer,
    /** How checkpoints order the axes. */
    readonly layout: Layout,
  ) {
    super(isOutline ? outline(shape) : currentGpu().zeros(shape, newDType));
    keep(this);
  }

  /** As checkpoints have it. */
  get checkpointShape(): readonly number[] {
    return checkpointShape(this.shape, this.layout);
  }

  /** Take the numbers of a checkpoint, as `dtype`. A parameter without memory, see `outlineOf`, gets some. */
  fill(tensor: HostTensor, dtype: DType = 'f32'): void {
    const data = fromCheckpoint(tensor, this.shape, this.layout);
    if (!data) throw shapeError('fill', 'shapes differ', { file: tensor.shape, model: this.checkpointShape });
    this.replace(currentGpu().array(this.shape, data, dtype));
  }
}

let isOutline = false;

/** Make modules whose parameters have shapes but no memory, to look at the keys and sizes of large models. */
export function outlineOf<T>(make: () => T): T {
  isOutline = true;
  try {
    return make();
  } finally {
    isOutline = false;
  }
}

let newDType: DType = 'f32';

/** Make modules whose parameters are `dtype` from the start: 'f16' takes half the memory, to be filled by `loadWeights`. */
export function parametersAs<T>(dtype: DType, make: () => T): T {
  const before = newDType;
  newDType = dtype;
  try {
    return make();
  } finally {
    newDType = before;
  }
}

const outline = (shape: readonly number[]): GpuArray =>
  new GpuArray(currentGpu(), currentGpu().none.storage, shape, 'f32');

/** A parameter of zeros that will begin as `init` says. `layout` 'conv' has the axes [O, I, kh, kw] in checkpoints. */
export const parameter = (shape: readonly number[], init: Initializer, layout: Layout = 'same'): Parameter =>
  new Parameter(shape, init, layout);

/**
 * The last layers of a U-Net's residual branches and of the U-Net: from zero, every block begins as the identity and
 * training is steadier.   `unet.initialize(seed, { zero: residualEnds })`
 * @see Dhariwal & Nichol 2021, Diffusion Models Beat GANs, `zero_module` in the code. https://arxiv.org/abs/2105.05233
 */
export const residualEnds = /(^|\.)(conv2|proj_out|conv_out)\.(weight|bias)$/;

/** Tensors by key, as files of weights hold them. */
export type StateDict = Record<string, HostTensor>;

type Tensors = StateDict | ReadonlyMap<string, HostTensor>;

/**
 * Something with parameters: a layer, a block, a network.
 *
 * The path of fields to a parameter is its key in the checkpoint: `this.down_blocks[0].resnets[1].conv1.weight` is
 * `down_blocks.0.resnets.1.conv1.weight`. Fields that are undefined (an absent bias) have no key.
 */
export abstract class Module {
  /** Every parameter by key, in the order the fields were declared. */
  namedParameters(prefix = ''): Map<string, Parameter> {
    const found = new Map<string, Parameter>();
    for (const [key, value] of this.#children()) {
      if (value instanceof Parameter) found.set(prefix + key, value);
      else for (const [name, p] of value.namedParameters(`${prefix}${key}.`)) found.set(name, p);
    }
    return found;
  }

  /** Every module below this one by key, parents first. */
  namedModules(prefix = ''): Map<string, Module> {
    const found = new Map<string, Module>();
    for (const [key, value] of this.#children()) {
      if (value instanceof Parameter) continue;
      found.set(prefix + key, value);
      for (const [name, module] of value.namedModules(`${prefix}${key}.`)) found.set(name, module);
    }
    return found;
  }

  /** Numbers in all parameters together. */
  get parameterCount(): number {
    let n = 0;
    for (const p of this.namedParameters().values()) n += p.size;
    return n;
  }

  /**
   * Fill every parameter as PyTorch would, from a stream of random numbers named by its key. Those whose key matches
   * `zero` begin at zero, see `residualEnds`.
   */
  initialize(seed: number, { zero }: { zero?: RegExp } = {}): this {
    for (const [key, p] of this.namedParameters()) {
      p.array.write(zero?.test(key) ? new Float32Array(p.size) : p.init(seed, key, p.size));
    }
    return this;
  }

  /** Ask for gradients of every parameter, or stop asking. New modules do not ask. */
  requiresGrad(on: boolean): this {
    for (const p of this.namedParameters().values()) p.requiresGrad = on;
    return this;
  }

  /**
   * Keep every parameter as `dtype`: 'f16' halves the memory of a model that is only run. Activations follow their
   * inputs, so give the model f16 tensors too.
   */
  to(dtype: DType): this {
    for (const p of this.namedParameters().values()) p.convert(dtype);
    return this;
  }

  /** Free the gradients. */
  zeroGrad(): void {
    for (const p of this.namedParameters().values()) {
      p.grad?.dispose();
      p.grad = undefined;
    }
  }

  /** All parameters in the checkpoint's layout, read back one after the other. */
  async stateDict(): Promise<StateDict> {
    const state: StateDict = {};
    for (const [key, p] of this.namedParameters()) {
      state[key] = toCheckpoint((await p.read()) as Float32Array, p.shape, p.layout);
    }
    return state;
  }

  /**
   * Fill parameters from tensors in the checkpoint's layout. Shapes may differ in trailing ones: a linear layer accepts
   * the weights of a 1×1 convolution.
   * @throws StateDictError with all missing, unexpected and wrong-shaped keys; nothing is loaded then
   */
  loadStateDict(tensors: Tensors, { strict = true } = {}): { missing: string[]; unexpected: string[] } {
    const given: ReadonlyMap<string, HostTensor> = tensors instanceof Map ? tensors : new Map(Object.entries(tensors));
    const parameters = this.namedParameters();
    const result = compareKeys(this.constructor.name, parameters, given, strict);
    for (const [key, p] of parameters) {
      const tensor = given.get(key);
      if (tensor) p.array.write(fromCheckpoint(tensor, p.shape, p.layout)!);
    }
    return result;
  }

  /** Copy all parameters of a module of the same architecture, on the GPU. */
  copyFrom(other: Module): this {
    const theirs = other.namedParameters();
    for (const [key, p] of this.namedParameters()) {
      const from = theirs.get(key);
      if (!from || sizeOf(from.shape) !== p.size) {
        throw new StateDictError(
          `${this.constructor.name}: cannot copy ${key}\n  from [${from?.shape.join(', ') ?? 'nothing'}]\n  to   [${p.shape.join(', ')}]`,
        );
      }
      castInto(from.array, p.array);
    }
    return this;
  }

  /** Free all parameters and their gradients. */
  dispose(): void {
    for (const p of this.namedParameters().values()) p.dispose();
  }

  /** For `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  *#children(): Generator<[string, Parameter | Module]> {
    for (const [key, value] of Object.entries(this)) {
      if (value instanceof Parameter || value instanceof Module) yield [key, value];
      else if (Array.isArray(value)) {
        for (const [i, item] of value.entries()) {
          if (item instanceof Parameter || item instanceof Module) yield [`${key}.${i}`, item];
        }
      }
    }
  }
}
