/** The tensor engine alone: arrays on the GPU, functions of tensors with their gradients, random numbers. Runs in Node and in browsers. */
export {
  DeviceLostError,
  Gpu,
  GpuArray,
  GpuError,
  hostArray,
  OutOfMemoryError,
  ShapeError,
  shapeError,
  spread,
} from './kernels/index.ts';
export type {
  Capabilities,
  DeviceOptions,
  DType,
  HostArray,
  HostInputs,
  Inputs,
  KernelTime,
  Leak,
  Limits,
  MatrixUnit,
  Memory,
  Op,
  PlanMemory,
  Shape,
  TypedArray,
} from './kernels/index.ts';
export type { ConvAttrs } from './kernels/conv2d-launch.ts';
export type { ConvTransposeAttrs } from './kernels/conv2d-transpose.ts';
export type { AttentionAttrs } from './kernels/attention-layout.ts';
export type { Reduction } from './kernels/loss.ts';
export type { PoolAttrs } from './kernels/pool2d.ts';
export type { Axes } from './kernels/reduce.ts';
export type { Range } from './kernels/shape.ts';
export type { BilinearAttrs, ResizeAttrs } from './kernels/upsample.ts';
export * from './tensor/index.ts';
export type { HostTensor } from './tensor/io/safetensors.ts';
export { normal, permutation, randint, TorchGenerator, uniform } from './tensor/random.ts';
export type { Stream } from './tensor/random.ts';
