export { Gpu, spread } from './gpu.ts';
export { GpuArray, sizeOf } from './array.ts';
export type { DType, Shape, TypedArray } from './array.ts';
export type { Capabilities, DeviceOptions, Limits } from './device.ts';
export type { Leak } from './leaks.ts';
export type { Memory } from './pool.ts';
export { DeviceLostError, GpuError, OutOfMemoryError, ShapeError, shapeError } from './errors.ts';
export { hostArray } from './op.ts';
export type { HostArray, HostInputs, Inputs, Op } from './op.ts';
