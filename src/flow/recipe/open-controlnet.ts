/** A ControlNet from where people have it: a folder of diffusers, or one file with its names or those of the original. */
import { stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { ControlNetModel } from '../../nn/models/controlnet.ts';
import type { ControlNetConfig } from '../../nn/models/controlnet-config.ts';
import { controlNetConfig } from '../../nn/single-file/configs.ts';
import { controlNetOf } from '../../nn/single-file/controlnet.ts';
import { openWeights } from '../../tensor/io/weights-node.ts';
import type { WeightSource } from '../../tensor/io/weights.ts';
import { loadModule, ModelFolderError, openModule, readJson } from './model-folder.ts';
import type { OpenModuleOptions } from './model-folder.ts';

/**
 * A ControlNet from its folder, or its file: `.pth` or `.safetensors` with the keys of the original code or of diffusers.
 * @throws ModelFolderError when it is none
 */
export async function openControlNet(path: string, options: OpenModuleOptions = {}): Promise<ControlNetModel> {
  if (await isFolder(path)) return openModule(path, '', (config) => new ControlNetModel(config), options);
  const { source, config, close } = await openFile(path);
  try {
    return await loadModule(source, () => new ControlNetModel(config), options);
  } finally {
    await close();
  }
}

/** Its config.json, or what the shapes of a file show. */
export async function readControlConfig(path: string): Promise<Partial<ControlNetConfig>> {
  if (await isFolder(path)) return readJson(join(path, 'config.json'));
  const { config, close } = await openFile(path);
  await close();
  return config;
}

async function openFile(
  path: string,
): Promise<{ source: WeightSource; config: Partial<ControlNetConfig>; close: () => Promise<void> }> {
  const file = await openWeights(path);
  try {
    const source = controlNetOf(file);
    // Of the published ones, only those of shuffled pictures are pooled: nothing else tells.
    const global_pool_conditions = /shuffle/i.test(basename(path));
    return { source, config: { ...controlNetConfig(source), global_pool_conditions }, close: () => file.close() };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function isFolder(path: string): Promise<boolean> {
  const info = await stat(path).catch(() => undefined);
  if (!info) throw new ModelFolderError(`${path}: no such file or folder\n  wanted a ControlNet`);
  return info.isDirectory();
}
