import { GpuArray } from './array.ts';

/** The shape of `x` without its memory, for a backward pass that needs no more than that. Never bind it to a kernel. */
export const outline = (x: GpuArray): GpuArray => new GpuArray(x.gpu, x.gpu.none.storage, x.shape, x.dtype);
