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
  KernelTime,
  Leak,
  Limits,
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
export * from './nn/index.ts';
export type { LinearOptions } from './nn/layers/linear.ts';
export type { ResnetOptions } from './nn/layers/resnet.ts';
export type { TransformerOptions } from './nn/layers/transformer.ts';
export { ClipTokenizer } from './nn/tokenizer.ts';
export type { Encoded, TokenizerFiles } from './nn/tokenizer.ts';
export * from './flow/rectified-flow.ts';
export * from './flow/solvers.ts';
export * from './flow/guidance.ts';
export type { LatentShape } from './flow/latents.ts';
export { Pipeline, PromptError } from './flow/pipeline.ts';
export type {
  NetworkName,
  PipelineParts,
  SampleOptions,
  SampleResult,
  SamplingDefaults,
  Timings,
} from './flow/pipeline.ts';
export { train, TrainingError } from './flow/trainer.ts';
export type { Checkpoint, CheckpointStore, LogLine, Progress } from './flow/trainer.ts';
export type { TrainHooks, TrainOptions, TrainResult, TrainTask } from './flow/trainer.ts';
