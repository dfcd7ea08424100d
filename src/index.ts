/** The library: tensors and their functions, networks, and rectified flow. Runs in Node and in browsers. */
export { Gpu, GpuArray, GpuError, ShapeError } from './kernels/index.ts';
export type { Capabilities, DeviceOptions, DType, Op, Shape } from './kernels/index.ts';
export * from './tensor/index.ts';
export * from './nn/index.ts';
