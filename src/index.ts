/** The library: tensors and their functions, networks, and rectified flow. Runs in Node and in browsers. */
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
  Leak,
  Limits,
  Memory,
  Op,
  Shape,
} from './kernels/index.ts';
export * from './tensor/index.ts';
export { normal, permutation, randint, TorchGenerator, uniform } from './tensor/random.ts';
export * from './nn/index.ts';
export { ClipTokenizer } from './nn/tokenizer.ts';
export * from './flow/rectified-flow.ts';
export * from './flow/solvers.ts';
export * from './flow/guidance.ts';
export { Pipeline } from './flow/pipeline.ts';
export { train } from './flow/trainer.ts';
export type { TrainHooks, TrainOptions, TrainResult, TrainTask } from './flow/trainer.ts';
