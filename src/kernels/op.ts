import type { GpuArray } from './array.ts';
import type { Gpu } from './gpu.ts';

/** An array of the slow, obvious JavaScript references; float64 so that it can also be differentiated numerically. */
export interface HostArray {
  shape: readonly number[];
  data: Float64Array;
}

/** The arrays that an op takes; undefined stands for an optional one that is absent. */
export type Inputs = readonly (GpuArray | undefined)[];
/** The same inputs for the reference. */
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
  /** As it appears in errors, and in `capabilities.force`. */
  name: string;
  /** Append the commands that make `output`. @throws ShapeError when the operands do not fit */
  forward(gpu: Gpu, inputs: I, attrs: A): { output: GpuArray; saved?: readonly (GpuArray | undefined)[] };
  /** Append the commands that make the gradients, from the output's gradient `dy` and what forward saved. */
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

/** An array for a reference: the given numbers, or zeros. */
export const hostArray = (shape: readonly number[], data?: ArrayLike<number>): HostArray => ({
  shape,
  data: data ? Float64Array.from(data) : new Float64Array(shape.reduce((n, d) => n * d, 1)),
});
