/** The library with what needs Node: files of weights, model folders, image data, and whole training runs. */
export * from './index.ts';
export { readTensors, writeTensors } from './tensor/io/files-node.ts';
export type { Disk } from './tensor/io/files-node.ts';
export { loadImageFolder, DataError } from './flow/data/image-folder.ts';
export type { DataProblem, ImageFolderOptions } from './flow/data/image-folder.ts';
export { loadOpenMoji, openMojiAttribution } from './flow/data/openmoji.ts';
export type { OpenMojiOptions, OpenMojiSet } from './flow/data/openmoji.ts';
export type { CaptionedImages } from './flow/data/captioned-images.ts';
export { openControlNet } from './flow/recipe/open-controlnet.ts';
export { applyLoraFiles, openModel, openRefiner } from './flow/recipe/open-model.ts';
export type { OpenModelOptions } from './flow/recipe/open-model.ts';
export { RefinerPipeline } from './flow/pipelines/refiner.ts';
export type { RefineOptions, RefinerParts } from './flow/pipelines/refiner.ts';
export { ModelFolderError, openModelFolder, openModule, saveModule } from './flow/recipe/model-folder.ts';
export type { OpenModuleOptions, SaveOptions } from './flow/recipe/model-folder.ts';
export { findModel } from './flow/recipe/hub-model.ts';
export type { FindModelOptions } from './flow/recipe/hub-model.ts';
export { ModelFilesError } from './flow/recipe/model-files.ts';
export type { ModelFilesOptions } from './flow/recipe/model-files.ts';
export { generatePairs } from './flow/recipe/pairs/generate.ts';
export type { PairHooks, PairProgress, PairRequest, PairResult } from './flow/recipe/pairs/request.ts';
export { PairError } from './flow/recipe/pairs/manifest.ts';
export type { PairFacts, PairShard } from './flow/recipe/pairs/manifest.ts';
export { PairSet } from './flow/recipe/pairs/pair-set.ts';
export type { OpenPairsOptions } from './flow/recipe/pairs/pair-set.ts';
export { readPrompts } from './flow/recipe/pairs/prompts.ts';
export type { Teaching } from './flow/recipe/pairs/solve.ts';
export { teacherHash } from './flow/recipe/pairs/teacher.ts';
export { HubError } from './tensor/io/hub-node.ts';
export type { DownloadProgress, HubDisk, HubListener, HubOptions, HubSettings } from './tensor/io/hub-node.ts';
export { preset, presetNames } from './flow/recipe/recipe.ts';
export type {
  DistillOptions,
  PairOptions,
  PresetName,
  Recipe,
  ReflowOptions,
  StageName,
} from './flow/recipe/recipe.ts';
export { lossTypes } from './flow/losses.ts';
export type { LossOptions, LossType } from './flow/losses.ts';
export { timeDistributions } from './flow/times.ts';
export type { TimeDistribution, TimeOptions } from './flow/times.ts';
export { Interrupted, runRecipe, savedRecipe } from './flow/recipe/stages.ts';
export type { Artist, RunHooks, SampleSheet } from './flow/recipe/run.ts';
export type { RunReport, Session, StageReport } from './flow/recipe/run-report.ts';
export type { Measured, Way } from './flow/metrics/evaluation.ts';
export type { Metrics } from './flow/recipe/stage-evaluate.ts';
export type { StraightnessResult } from './flow/metrics/straightness.ts';
export type { LoggedStep } from './flow/recipe/training-log.ts';
