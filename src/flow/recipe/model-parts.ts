/** A whole model by its parts, whichever way it lies on disk: a diffusers folder, or one file. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { inferConfig } from '../../nn/single-file/configs.ts';
import { currentKeys, familyOf, splitSingleFile } from '../../nn/single-file/model.ts';
import type { Family, PartName, Parts } from '../../nn/single-file/model.ts';
import { findWeights, openWeights } from '../../tensor/io/weights-node.ts';
import { ModelFolderError, readJson } from './model-folder.ts';

export interface ModelParts {
  family: Family;
  /** Weights with the keys of diffusers; give them to `loadWeights`. */
  sources: Parts;
  /** The config.json of a part, or what its shapes show. */
  config(part: PartName): Promise<Record<string, any>>;
  close(): Promise<void>;
}

/**
 * Open a model; nothing but what describes its tensors is read. `variant` 'fp16' prefers such files in a folder.
 * @throws when there is none, or it is of no family that we have
 */
export async function openModelParts(path: string, { variant }: { variant?: string } = {}): Promise<ModelParts> {
  const info = await stat(path).catch(() => undefined);
  if (!info) throw new ModelFolderError(`${path}: no such file or folder`);
  if (info.isDirectory()) return openFolder(path, variant);
  const source = await openWeights(path);
  try {
    const { family, parts } = splitSingleFile(source);
    return {
      family,
      sources: parts,
      config: async (part) => inferConfig(part, parts[part]!, family),
      close: () => source.close(),
    };
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function openFolder(folder: string, variant?: string): Promise<ModelParts> {
  const sources: Parts = {};
  const close = async () => {
    for (const source of Object.values(sources)) await source.close();
  };
  try {
    for (const part of ['unet', 'vae', 'text_encoder', 'text_encoder_2'] as const) {
      if (!(await stat(join(folder, part)).catch(() => undefined))) continue;
      sources[part] = currentKeys(part, await openWeights(await findWeights(join(folder, part), { variant })));
    }
    const missing = ['unet', 'vae'].filter((part) => !(part in sources));
    if (missing.length) throw new ModelFolderError(`${folder}: is not a whole model\n  missing: ${missing.join(', ')}`);
  } catch (error) {
    await close();
    throw error;
  }
  return { family: familyOf(sources), sources, config: (part) => readJson(join(folder, part, 'config.json')), close };
}
