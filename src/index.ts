/** The library: tensors and their functions, networks, and rectified flow. Runs in Node and in browsers. */
export * from './engine.ts';
export * from './nn/index.ts';
export type { LinearOptions } from './nn/layers/linear.ts';
export type { ResnetOptions } from './nn/layers/resnet.ts';
export type { TransformerOptions } from './nn/layers/transformer.ts';
export { ControlNetModel } from './nn/models/controlnet.ts';
export type { ControlOptions } from './nn/models/controlnet.ts';
export type { ControlNetConfig } from './nn/models/controlnet-config.ts';
export { clipPixels } from './nn/models/clip-pixels.ts';
export type { ClipPixelsOptions } from './nn/models/clip-pixels.ts';
export { SafetyChecker } from './nn/models/safety-checker.ts';
export type { CLIPVisionConfig } from './nn/models/clip-vision.ts';
export { StackedUNet } from './nn/models/stacked-unet.ts';
export type { StackedUNetConfig, StackedUNetPart } from './nn/models/stacked-unet.ts';
export { attachLoras, mergeLoras } from './nn/lora-apply.ts';
export type { AppliedLoras, ScaledLora } from './nn/lora-apply.ts';
export { LoraError } from './nn/lora-error.ts';
export { loraMetadata } from './nn/lora-metadata.ts';
export { readLora } from './nn/lora-read.ts';
export type { ReadLoraOptions } from './nn/lora-read.ts';
export { Lora, newLora } from './nn/lora.ts';
export type { LoraModels, NewLoraOptions } from './nn/lora.ts';
export { ClipTokenizer } from './nn/tokenizer.ts';
export type { Encoded, TokenizerFiles } from './nn/tokenizer.ts';
export * from './flow/rectified-flow.ts';
export * from './flow/solvers.ts';
export * from './flow/guidance.ts';
export type { LatentScale, LatentShape } from './flow/latents.ts';
export { Pipeline } from './flow/pipeline.ts';
export type { PipelineParts } from './flow/pipeline.ts';
export { PromptError } from './flow/pipelines/options.ts';
export type {
  ControlImage,
  DenoiseOptions,
  NetworkName,
  SampleOptions,
  SampleResult,
  SamplingDefaults,
  SampleStep,
  Timings,
} from './flow/pipelines/options.ts';
export type { SafetyParts } from './flow/pipelines/safety.ts';
export { createScheduler, Scheduler, schedulerNames } from './flow/schedulers/index.ts';
export type { Denoiser, RunOptions, SchedulerName, StepOptions } from './flow/schedulers/index.ts';
export { train } from './flow/trainer.ts';
export { TrainingError } from './flow/training-error.ts';
export type { Checkpoint, CheckpointStore, LogLine, Progress } from './flow/trainer.ts';
export type { TrainHooks, TrainOptions, TrainResult, TrainTask } from './flow/trainer.ts';
