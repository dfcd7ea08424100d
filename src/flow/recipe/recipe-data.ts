/** The images that a recipe trains on. */
import { loadImageFolder } from '../data/image-folder.ts';
import { loadOpenMoji } from '../data/openmoji.ts';
import type { CaptionedImages } from '../data/captioned-images.ts';
import type { Recipe } from './recipe.ts';

export async function loadData(
  { seed, data }: Pick<Recipe, 'seed' | 'data'>,
  { cacheFolder, onWarning }: { cacheFolder?: string; onWarning?: (message: string) => void },
): Promise<CaptionedImages> {
  const all = data.trainDataDir
    ? await loadImageFolder(data.trainDataDir, {
        resolution: data.resolution,
        imageColumn: data.imageColumn,
        captionColumn: data.captionColumn,
        seed,
        centerCrop: data.centerCrop ?? true,
        interpolation: data.interpolation,
        onWarning,
      })
    : await loadOpenMoji({ size: data.resolution, set: data.set, cacheFolder, onWarning });
  const limit = data.maxTrainSamples ?? all.ids.length;
  return {
    ...all,
    images: all.images.slice(0, limit * all.size * all.size * 3),
    captions: all.captions.slice(0, limit),
    ids: all.ids.slice(0, limit),
  };
}
