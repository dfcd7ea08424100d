/** Networks that measure, from the user's own files; what they are is told from the files' hashes, never from their names. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { CLIPTextModel } from '../../nn/index.ts';
import type { CLIPTextConfig } from '../../nn/index.ts';
import { CLIPVisionModel } from '../../nn/models/clip-vision.ts';
import { InceptionV3 } from '../../nn/models/inception.ts';
import { findWeights, openWeights } from '../../tensor/io/weights-node.ts';
import { renamed } from '../../tensor/io/weights.ts';
import { ClipScore } from '../metrics/clip-score.ts';
import { clipFeatures, inceptionFeatures, smallFeatures } from '../metrics/feature-network.ts';
import type { FeatureNetwork } from '../metrics/feature-network.ts';
import { loadModule, ModelFolderError, openTokenizer, readJson } from './model-folder.ts';
import { visionConfig } from './safety-checker.ts';

export const featureNetworkNames = ['small', 'clip', 'inception'] as const;
export type FeatureNetworkName = (typeof featureNetworkNames)[number];

/** sha256 of files of weights on the Hugging Face hub. */
const published: Record<string, string> = {
  a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb: 'openai/clip-vit-large-patch14',
  f1a17cdbe0f36fec524f5cafb1c261ea3bbbc13e346e0f74fc9eb0460dedd0d3: 'openai/clip-vit-large-patch14',
  ec89c7b09c749a60aae3c9cd910516f24b58214a7df060b48962d14c469cfbf0: 'openai/clip-vit-base-patch16',
};

/** pt_inception-2015-12-05-6726825d.pth of pytorch-fid carries the beginning of its sha256 in its name. */
const fidWeights = '6726825d';

/**
 * @param weights 'clip': a folder with config.json and weights of CLIP, of its image tower, or of a safety checker.
 *   'inception': a file of pytorch-fid or torchvision.
 * @throws ModelFolderError when they are missing or those of another network
 */
export async function openFeatureNetwork(name: FeatureNetworkName, weights?: string): Promise<FeatureNetwork> {
  if (name === 'small') return smallFeatures;
  if (weights === undefined)
    throw new ModelFolderError(`the feature network ${name} wants weights, which do not come with this project`);
  if (name === 'clip') {
    const { vision, origin } = await openClip(weights);
    return clipFeatures(vision, origin);
  }
  const source = await openWeights(weights);
  try {
    const keys = [...source.entries.keys()].filter((key) => !/^(fc|AuxLogits)\.|num_batches_tracked$/.test(key));
    const model = await loadModule(renamed(source, new Map(keys.map((key) => [key, key]))), () => new InceptionV3());
    return inceptionFeatures(model, (await hashOf(weights)).startsWith(fidWeights));
  } finally {
    await source.close();
  }
}

/** Both towers of CLIP and its tokenizer, from one folder. @throws ModelFolderError when one of them is missing */
export async function openClipScore(folder: string): Promise<ClipScore> {
  const tokenizer = await openTokenizer(folder).catch((error: Error) => {
    throw new ModelFolderError(
      `${folder}: no tokenizer of CLIP in it\n  ${error.message}\n  wanted config.json, vocab.json, merges.txt and the weights of both towers`,
    );
  });
  const { vision, origin } = await openClip(folder);
  try {
    if (!vision.visual_projection)
      throw new ModelFolderError(`${folder}: an image tower without visual_projection cannot be compared with texts`);
    return new ClipScore({ text: await openTextTower(folder), vision, tokenizer }, origin);
  } catch (error) {
    vision.dispose();
    throw error;
  }
}

/** `origin`: where the weights come from, when their hash is known. */
async function openClip(folder: string): Promise<{ vision: CLIPVisionModel; origin: string | undefined }> {
  const config = await readJson(join(folder, 'config.json'));
  const path = await findWeights(folder);
  const source = await openWeights(path);
  try {
    const towerKey = /^(?:vision_model\.)?(vision_model\..*)$|^(visual_projection\.weight)$/;
    const keys = [...source.entries.keys()].flatMap((key): [string, string][] => {
      const [, tower, projection] = towerKey.exec(key) ?? [];
      return key.endsWith('.position_ids') || !(tower ?? projection) ? [] : [[tower ?? projection, key]];
    });
    if (keys.length === 0)
      throw new ModelFolderError(
        `${source.name}: not an image tower of CLIP\n  wanted keys that begin with vision_model`,
      );
    const projection = keys.some(([key]) => key === 'visual_projection.weight');
    const { vision_config = config, projection_dim = 512 } = config;
    const make = () => new CLIPVisionModel(visionConfig({ vision_config, projection_dim }), { projection });
    const vision = await loadModule(renamed(source, new Map(keys)), make);
    return { vision, origin: published[await hashOf(path)] };
  } finally {
    await source.close();
  }
}

async function openTextTower(folder: string): Promise<CLIPTextModel> {
  const { text_config: given = {}, projection_dim = 512 } = await readJson(join(folder, 'config.json'));
  const config: Partial<CLIPTextConfig> = { ...textB32, ...given, projection_dim };
  const source = await openWeights(await findWeights(folder));
  try {
    const keys = [...source.entries.keys()].filter((key) => /^text_(model|projection)\./.test(key));
    const own = keys.filter((key) => !key.endsWith('.position_ids')).map((key): [string, string] => [key, key]);
    return await loadModule(renamed(source, new Map(own)), () => new CLIPTextModel(config, { projection: true }));
  } finally {
    await source.close();
  }
}

/** What transformers leaves out where it is so. */
const textB32 = { hidden_size: 512, intermediate_size: 2048, num_hidden_layers: 12, num_attention_heads: 8 };

/** sha256 of a file; where the weights are shards, that of their index, which is none of those we know. */
async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const part of createReadStream(path)) hash.update(part as Buffer);
  return hash.digest('hex');
}
