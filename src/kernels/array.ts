import { OutOfMemoryError, shapeError } from './errors.ts';
import type { Gpu } from './gpu.ts';

/** Kinds of numbers in an array. */
export type DType = 'f32' | 'i32' | 'u32';
/** What an array reads back as, by its dtype. */
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

export const sizeOf = (shape: Shape): number => shape.reduce((n, d) => n * d, 1);

/** A dense row-major array in GPU memory. Each GpuArray owns one reference to its storage until `dispose()`. */
export class GpuArray {
  readonly size: number;
  #disposed = false;

  constructor(
    readonly gpu: Gpu,
    readonly storage: Storage,
    readonly shape: Shape,
    readonly dtype: DType,
  ) {
    this.size = sizeOf(shape);
    storage.refs++;
    gpu.watch(this, storage);
  }

  /** Whether `dispose()` was called. */
  get disposed(): boolean {
    return this.#disposed;
  }

  /** Another array over the same memory; both must be disposed. `-1` in `shape` is worked out. */
  view(shape: Shape = this.shape, dtype: DType = this.dtype): GpuArray {
    if (shape.includes(-1)) {
      const known = -sizeOf(shape);
      shape = shape.map((d) => (d === -1 ? this.size / known : d));
    }
    if (sizeOf(shape) !== this.size)
      throw shapeError('view', `sizes differ (${this.size} ≠ ${sizeOf(shape)})`, { from: this, to: shape });
    this.check('view');
    return new GpuArray(this.gpu, this.storage, shape, dtype);
  }

  /** @throws when this array was freed or its memory is gone, naming the op that wanted it */
  check(op: string): void {
    if (this.gpu.lost) throw this.gpu.lost.at(op);
    if (this.storage.failed) throw new OutOfMemoryError(`${op}: an operand has no memory, its allocation failed`);
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
  }

  /** For `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}
