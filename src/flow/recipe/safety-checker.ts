/** The safety checker of a model's folder: safety_checker/ with its weights, feature_extractor/ with how it wants pixels. */
import { join } from 'node:path';
import { SafetyChecker } from '../../nn/models/safety-checker.ts';
import type { CLIPVisionConfig } from '../../nn/models/clip-vision.ts';
import type { ClipPixelsOptions } from '../../nn/models/clip-pixels.ts';
import { exists } from '../../tensor/io/files-node.ts';
import { findWeights } from '../../tensor/io/weights-node.ts';
import type { SafetyParts } from '../pipelines/safety.ts';
import { ModelFolderError, openModule, readJson } from './model-folder.ts';
import type { OpenModuleOptions } from './model-folder.ts';
import { indexOf } from './model-index.ts';

/** What a model has of one: 'listed' is one that model_index.json names and whose weights are not there. */
export async function safetyCheckerIn(path: string): Promise<'weights' | 'listed' | 'none'> {
  const there = await findWeights(join(path, 'safety_checker')).catch(() => undefined);
  if (there !== undefined) return 'weights';
  const listed = (await indexOf(path))?.safety_checker;
  return Array.isArray(listed) && typeof listed[1] === 'string' ? 'listed' : 'none';
}

/** @throws ModelFolderError when there is none, or it is damaged */
export async function openSafetyChecker(path: string, options: OpenModuleOptions = {}): Promise<SafetyParts> {
  if ((await safetyCheckerIn(path)) !== 'weights')
    throw new ModelFolderError(
      `${path}: there is no safety checker\n  looked for weights in  ${join(path, 'safety_checker')}`,
    );
  const featureExtractor = await readFeatureExtractor(path);
  const make = (config: object) => new SafetyChecker(visionConfig(config));
  const safetyChecker = await openModule(path, 'safety_checker', make, options);
  const { side } = featureExtractor;
  const { image_size: wanted } = safetyChecker.config;
  if (side === undefined || side === wanted) return { safetyChecker, featureExtractor };
  safetyChecker.dispose();
  throw new ModelFolderError(
    `${path}: its feature_extractor makes images of ${side} × ${side}, its safety_checker wants ${wanted} × ${wanted}`,
  );
}

/** The configuration of the image tower, from that of the whole; transformers leaves out what is as in its ViT-B/32. */
export const visionConfig = ({
  vision_config: vision = {},
  projection_dim = 768,
}: {
  vision_config?: Partial<CLIPVisionConfig>;
  projection_dim?: number;
}): Partial<CLIPVisionConfig> => ({ ...vitB32, ...vision, projection_dim });

const vitB32 = {
  hidden_size: 768,
  intermediate_size: 3072,
  num_hidden_layers: 12,
  num_attention_heads: 12,
  patch_size: 32,
};

async function readFeatureExtractor(path: string): Promise<ClipPixelsOptions> {
  const file = join(path, 'feature_extractor', 'preprocessor_config.json');
  if (!(await exists(file))) return {};
  const { crop_size: crop, image_mean: mean, image_std: deviation } = await readJson(file);
  const sides = typeof crop === 'object' && crop !== null ? Object.values(crop as object) : [crop];
  const side: unknown = sides[0];
  const channels = (list: unknown) => list === undefined || (Array.isArray(list) && list.length === 3);
  if (!channels(mean) || !channels(deviation) || sides.some((one) => one !== side))
    throw new ModelFolderError(`${file}: image_mean and image_std must have 3 numbers, crop_size one for both sides`);
  return { ...(typeof side === 'number' && { side }), ...(mean && { mean }), ...(deviation && { deviation }) };
}
