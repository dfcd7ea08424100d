import { cast, castTo } from '../kernels/cast.ts';
import { Gpu, ShapeError, shapeError, sizeOf } from '../kernels/index.ts';
import { inParts } from '../kernels/split.ts';
import type { DeviceOptions, DType, GpuArray, Inputs, Op, Shape, TypedArray } from '../kernels/index.ts';
import { adopt, disown } from './scope.ts';
import { leafOf, record, runBackward } from './tape.ts';
import type { Node } from './tape.ts';

let current: Gpu | undefined;

/** Open a device and make it the one that tensors are made on. */
export async function init(options: DeviceOptions = {}): Promise<Gpu> {
  return useGpu(await Gpu.create(options));
}

/** Make `gpu` the device that tensors are made on. */
export function useGpu(gpu: Gpu): Gpu {
  return (current = gpu);
}

/** The device that tensors are made on. @throws before `init()` */
export function currentGpu(): Gpu {
  if (!current) throw new Error('no device yet\n  await init() first');
  return current;
}

/**
 * A dense array on the GPU that remembers how it was made, so that gradients can flow back.
 *
 * Ops never consume their inputs. Free tensors with `scope(() => …)`, `using`, or `dispose()`.
 */
export class Tensor {
  /** The gradient that `backward()` left here: leaves with `requiresGrad` only. */
  grad: Tensor | undefined;
  /** Where this came from, if gradients flow through it. */
  node: Node | undefined;

  #array: GpuArray;

  constructor(array: GpuArray, node?: Node) {
    this.#array = array;
    this.node = node;
    adopt(this);
  }

  /** Its numbers on the GPU. */
  get array(): GpuArray {
    return this.#array;
  }
  /** Sizes of the axes, outermost first. */
  get shape(): Shape {
    return this.array.shape;
  }
  /** Kind of its numbers. */
  get dtype(): DType {
    return this.array.dtype;
  }
  /** How many numbers it has. */
  get size(): number {
    return this.array.size;
  }
  /** Whether gradients flow through it: a leaf that asks for one, or computed from such a leaf. */
  get requiresGrad(): boolean {
    return this.node !== undefined;
  }

  /** Ask for gradients of this leaf (a parameter, or an input to differentiate by). */
  set requiresGrad(on: boolean) {
    if (this.node && !this.node.leaf)
      throw new Error('only a leaf can change requiresGrad\n  use detach() to cut a computed tensor off');
    if (on && (this.dtype === 'i32' || this.dtype === 'u32'))
      throw shapeError('requiresGrad', `${this.dtype} has no gradients`, { tensor: this });
    this.node = on ? (this.node ?? leafOf(this)) : undefined;
  }

  /** The same numbers as another dtype, rounded to it; gradients flow back between f32 and f16. */
  to(dtype: DType): Tensor {
    return apply(cast, [this], { dtype });
  }

  /** Become another dtype in place, where `to` makes another tensor: for what others hold on to, as modules their weights. */
  convert(dtype: DType): void {
    if (this.node && !this.node.leaf)
      throw new Error('only a leaf can change its dtype\n  use to() on a computed tensor');
    if (dtype !== this.dtype) this.replace(castTo(this.#array, dtype));
  }

  /** Hold this array from now on; the one before and the gradient are freed. For weights as they are loaded. */
  replace(array: GpuArray): void {
    if (array.shape.join() !== this.shape.join()) throw shapeError('replace', 'shapes differ', { tensor: this, array });
    this.#array.dispose();
    this.#array = array;
    this.grad?.dispose();
    this.grad = undefined;
  }

  /** All numbers, row-major, once the GPU has made them; f16 comes as Float32Array. */
  async read(): Promise<TypedArray> {
    return this.array.read();
  }

  /** The only number of a one-element tensor. @throws ShapeError when there are more */
  async item(): Promise<number> {
    if (this.size !== 1) throw shapeError('item', `wants one element, has ${this.size}`, { tensor: this });
    return (await this.array.read())[0];
  }

  /** The same numbers without their history. */
  detach(): Tensor {
    return new Tensor(this.array.view());
  }

  /**
   * Gradients of this scalar into `.grad` of every leaf it depends on. Frees what forward saved.
   * @throws ShapeError when it has more than one element, Error when nothing asks for a gradient or it was run before
   */
  backward(): void {
    if (this.size !== 1)
      throw shapeError(
        'backward',
        `wants a scalar loss, has ${this.size} elements`,
        { loss: this },
        'take sum() or mean() first',
      );
    if (!this.node)
      throw new Error(
        'backward: nothing here requires a gradient\n  set requiresGrad on a parameter before the forward pass',
      );
    const seed = this.array.gpu.array(this.shape, [1], this.dtype);
    runBackward(this.node, seed, (leaf, gradient) => {
      leaf.grad = new Tensor(gradient);
      disown(leaf.grad); // a gradient outlives the scope of its training step
    });
  }

  /** Free the numbers, the gradient, and the node unless another tensor depends on it. */
  dispose(): void {
    this.node?.unref();
    this.node = undefined;
    this.grad?.dispose();
    this.grad = undefined;
    this.array.dispose();
    disown(this);
  }

  /** For `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** A tensor of numbers. `shape` defaults to one axis. `tensor([[…]])` is spelled `tensor([…], [2, 3])`. */
export function tensor(
  data: ArrayLike<number> | number,
  shape?: Shape,
  { dtype = 'f32' as DType, requiresGrad = false } = {},
): Tensor {
  const numbers = typeof data === 'number' ? [data] : data;
  checkNumbers(numbers, dtype);
  shape ??= typeof data === 'number' ? [] : [numbers.length];
  if (sizeOf(shape) !== numbers.length) {
    throw shapeError('tensor', `${numbers.length} numbers do not fill ${sizeOf(shape)} places`, { shape });
  }
  const t = new Tensor(currentGpu().array(shape, numbers, dtype));
  if (requiresGrad) t.requiresGrad = true;
  return t;
}

const ranges: Partial<Record<DType, readonly [least: number, most: number]>> = {
  i32: [-(2 ** 31), 2 ** 31 - 1],
  u32: [0, 2 ** 32 - 1],
};

/** @throws when a number cannot be held as it is: integers are not rounded, and do not wrap around */
function checkNumbers(numbers: ArrayLike<number>, dtype: DType): void {
  const [least, most] = ranges[dtype] ?? [-Infinity, Infinity];
  if (least === -Infinity) return;
  for (let i = 0; i < numbers.length; i++) {
    const v = numbers[i];
    if (!(Number.isInteger(v) && v >= least && v <= most))
      throw shapeError(
        'tensor',
        `number ${i} is ${v}, which no ${dtype} is`,
        {},
        'round it first, or make an f32 tensor',
      );
  }
}

/** A tensor of zeros. */
export const zeros = (shape: Shape, dtype: DType = 'f32'): Tensor => new Tensor(currentGpu().zeros(shape, dtype));

type Operands<I extends Inputs> = { [K in keyof I]: undefined extends I[K] ? Tensor | undefined : Tensor };

/** Run an op on tensors and remember it when a gradient must flow through. Every function of the library is a line of this. */
export function apply<I extends Inputs, A>(op: Op<I, A>, operands: Operands<I>, attrs: A): Tensor {
  const inputs = operands as readonly (Tensor | undefined)[];
  for (const t of inputs) {
    if (t !== undefined && !(t instanceof Tensor))
      throw new ShapeError(`${op.name}: an operand is ${typeof t}, not a Tensor\n  make one with tensor(…)`);
    t?.array.check(op.name);
  }
  const [first] = inputs;
  if (!first) throw new ShapeError(`${op.name}: there is nothing to work on, the first operand is missing`);
  const gpu = first.array.gpu;
  if (inputs.some((t) => t && t.array.gpu !== gpu)) {
    const operands = inputs.flatMap((t, i) => (t ? [[`operand ${i + 1}`, t] as const] : []));
    throw shapeError(
      op.name,
      'operands are on different devices',
      Object.fromEntries(operands),
      'read one and make it anew',
    );
  }
  const arrays = inputs.map((t) => t?.array);
  return gpu.named(op.name, () => {
    const chosen = inParts(gpu, op, arrays, attrs as object);
    const { output, saved = [] } = chosen.forward(gpu, arrays, attrs);
    gpu.witness?.(op, arrays, attrs as object, output);
    return new Tensor(output, record(chosen, attrs as object, inputs, output, saved));
  });
}
