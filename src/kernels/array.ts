import { mib, OutOfMemoryError, shapeError } from './errors.ts';
import type { Gpu } from './gpu.ts';
import { floatsToHalves, halvesToFloats } from './half.ts';

/** Kinds of numbers in an array. */
export type DType = 'f32' | 'f16' | 'i32' | 'u32';
/** What an array reads back as, by its dtype; f16 comes as Float32Array. */
export type TypedArray = Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;
/** Sizes of the axes, outermost first; [] is a single number. */
export type Shape = readonly number[];

/** A pooled GPU buffer with a count of the arrays that lie in it. */
export interface Storage {
  readonly id: number;
  /** Replaced when it could not be allocated at first. */
  buffer: GPUBuffer;
  /** It could not be allocated at all. */
  failed?: boolean;
  /** Size class, in bytes. */
  readonly bytes: number;
  refs: number;
  /** The last batch of commands that touches it. */
  batch: number;
  /** Made while recording: a name without a buffer. */
  planned?: boolean;
}

/** Numbers that optimisers and reductions take at a time: parts of whole multiples add up in the order of an undivided array. */
const EVEN = 1024;

/** No memory holds more; without a bound a slip in a size would make millions of buffers. */
const MOST_PARTS = 1024;

/**
 * Shapes of the parts of an array that is larger than one binding (`limit` bytes): whole rows of the first axis, or where one
 * row is too large, of the next axis of each row: images lie in bands.
 * @throws ShapeError when there would be too many
 */
export function partition(op: string, shape: Shape, limit: number): Shape[] {
  const [rows, ...rest] = shape;
  const most = Math.floor(limit / (4 * sizeOf(rest)));
  const step = most < EVEN ? most : most - (most % EVEN);
  const count = (parts: number) => {
    if (parts <= MOST_PARTS) return;
    throw shapeError(
      op,
      `an array of ${mib(4 * sizeOf(shape))} is more than this adapter binds at once (${mib(limit)}), and more than ${MOST_PARTS} parts of that`,
      { array: shape },
    );
  };
  count(step ? rows / step : rows);
  if (step) return Array.from({ length: Math.ceil(rows / step) }, (_, i) => [Math.min(step, rows - i * step), ...rest]);
  const inner = partition(op, rest, limit).map((part) => [1, ...part]);
  count(rows * inner.length);
  return Array.from({ length: rows }, () => inner).flat();
}

export const sizeOf = (shape: Shape): number => shape.reduce((n, d) => n * d, 1);

/** Bytes of `size` numbers in GPU memory: whole words, so an odd number of halves has two bytes more. */
export const bytesOf = (size: number, dtype: DType): number => (dtype === 'f16' ? Math.ceil(size / 2) * 4 : size * 4);

/** Numbers as GPU memory has them; `data` itself where it is that already. */
export function encode(data: ArrayLike<number>, dtype: DType): TypedArray {
  if (dtype === 'f16') {
    const words = new Uint32Array(bytesOf(data.length, dtype) / 4);
    new Uint16Array(words.buffer).set(floatsToHalves(data));
    return words;
  }
  const type = typeOf(dtype);
  // Dawn for Node refuses views of shared memory, so those are copied like any other list of numbers.
  return data instanceof type && data.buffer instanceof ArrayBuffer ? (data as TypedArray) : type.from(data);
}

/** The reverse: `bytes` of GPU memory as `size` numbers. */
export function decode(bytes: ArrayBuffer, size: number, dtype: DType): TypedArray {
  return dtype === 'f16' ? halvesToFloats(new Uint16Array(bytes, 0, size)) : new (typeOf(dtype))(bytes);
}

const typeOf = (dtype: DType) => (dtype === 'i32' ? Int32Array : dtype === 'u32' ? Uint32Array : Float32Array);

/**
 * A dense row-major array in GPU memory. Each GpuArray owns one reference to its storage until `dispose()`.
 *
 * An array that is larger than one binding lies in `parts`, each some rows of its first axis, or of one row's next axis; its
 * own storage is then empty. Ops take such arrays by the rules of split.ts.
 */
export class GpuArray {
  readonly size: number;
  #disposed = false;

  constructor(
    readonly gpu: Gpu,
    readonly storage: Storage,
    readonly shape: Shape,
    readonly dtype: DType,
    readonly parts?: readonly GpuArray[],
  ) {
    this.size = sizeOf(shape);
    storage.refs++;
    gpu.watch(this, storage);
  }

  /** Whether `dispose()` was called. */
  get disposed(): boolean {
    return this.#disposed;
  }

  /** Another array over the same memory; both must be disposed. `-1` in `shape` is worked out. `dtype` reads other bits. */
  view(shape: Shape = this.shape, dtype: DType = this.dtype): GpuArray {
    if (shape.includes(-1)) {
      const known = -sizeOf(shape);
      shape = shape.map((d) => (d === -1 ? this.size / known : d));
    }
    if (sizeOf(shape) !== this.size)
      throw shapeError('view', `sizes differ (${this.size} ≠ ${sizeOf(shape)})`, { from: this, to: shape });
    if ((dtype === 'f16') !== (this.dtype === 'f16'))
      throw shapeError('view', `${this.dtype} and ${dtype} differ in size`, { from: this }, 'convert with castTo()');
    this.check('view');
    return new GpuArray(this.gpu, this.storage, shape, dtype, this.parts && this.#viewParts(shape, dtype));
  }

  /** Does another array hold the memory too? */
  get shared(): boolean {
    return this.parts ? this.parts.some((part) => part.shared) : this.storage.refs > 1;
  }

  /** @throws when this array was freed or its memory is gone, naming the op that wanted it */
  check(op: string): void {
    if (this.gpu.lost) throw this.gpu.lost.at(op);
    if (this.storage.failed) throw new OutOfMemoryError(`${op}: an operand has no memory, its allocation failed`);
    for (const part of this.parts ?? []) part.check(op);
    if (this.#disposed) {
      throw shapeError(
        op,
        'an operand was already freed',
        { operand: this },
        'keep it: return it from its scope(), or dispose() it later',
      );
    }
  }

  /** All numbers, row-major, once the GPU has made them. */
  read(): Promise<TypedArray> {
    return this.gpu.read(this);
  }

  /** Replace all numbers, row-major. Earlier commands still see the old ones. */
  write(data: ArrayLike<number>): void {
    this.gpu.write(this, data);
  }

  /** Give this array's share of its memory back. Commands that were given before still see it. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.gpu.forget(this);
    this.gpu.release(this.storage);
    for (const part of this.parts ?? []) part.dispose();
  }

  /** For `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  #viewParts(shape: Shape, dtype: DType): GpuArray[] {
    if (shape.join() === this.shape.join()) return this.parts!.map((part) => part.view(part.shape, dtype));
    const row = sizeOf(shape.slice(1));
    if (this.parts!.some((part) => part.size % row)) {
      throw shapeError(
        'view',
        'rows of the new shape would lie across the parts of an array that is larger than one binding',
        { from: this, to: shape },
        'keep the first axis',
      );
    }
    return this.parts!.map((part) => part.view([part.size / row, ...shape.slice(1)], dtype));
  }
}
