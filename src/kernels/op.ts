import type { GpuArray } from './array.ts';
import type { Gpu } from './gpu.ts';

/** An array of the slow, obvious JavaScript references; float64 so that it can also be differentiated numerically. */
export interface HostArray {
  shape: readonly number[];
  data: Float64Array;
}

export type Inputs = readonly (GpuArray | undefined)[];
export type HostInputs<I extends Inputs> = {
  [K in keyof I]: undefined extends I[K] ? HostArray | undefined : HostArray;
};

/**
 * One differentiable operation.
 *
 * `forward` never consumes its inputs. `saved` is what `backward` wants back: inputs, the output, or arrays made for it.
 * `backward` returns one new array per input (undefined where `needs` is false or there is no gradient). Arrays that
 * forward or backward make for themselves and do not return, they dispose.
 */
export interface Op<I extends Inputs = Inputs, A = object> {
  name: string;
  forward(gpu: Gpu, inputs: I, attrs: A): { output: GpuArray; saved?: readonly (GpuArray | undefined)[] };
  backward?(
    gpu: Gpu,
    dy: GpuArray,
    saved: readonly GpuArray[],
    attrs: A,
    needs: readonly boolean[],
  ): (GpuArray | undefined)[];
  /** The same in plain JavaScript: what the kernel and its gradient are tested against. */
  reference(inputs: HostInputs<I>, attrs: A): HostArray;
}

export const hostArray = (shape: readonly number[], data?: ArrayLike<number>): HostArray => ({
  shape,
  data: data ? Float64Array.from(data) : new Float64Array(shape.reduce((n, d) => n * d, 1)),
});
