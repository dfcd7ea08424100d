/** The images that a recipe trains on. Of those beside a checkpoint only the captions are asked: they are kept small. */
import { loadImageFolder } from '../data/image-folder.ts';
import { loadOpenMoji } from '../data/openmoji.ts';
import type { CaptionedImages } from '../data/captioned-images.ts';
import type { Recipe } from './recipe.ts';

/** Pixels on a side of images that nobody looks at. */
const CAPTIONED = 16;

export async function loadData(
  { name, seed, data }: Pick<Recipe, 'seed' | 'data'> & { name?: string },
  {
    cacheFolder,
    workers,
    onWarning,
  }: { cacheFolder?: string; workers?: number; onWarning?: (message: string) => void },
): Promise<CaptionedImages> {
  const size = name === 'checkpoint' ? CAPTIONED : data.resolution;
  const all = data.trainDataDir
    ? await loadImageFolder(data.trainDataDir, {
        resolution: size,
        imageColumn: data.imageColumn,
        captionColumn: data.captionColumn,
        seed,
        centerCrop: data.centerCrop ?? true,
        interpolation: data.interpolation,
        maxTrainSamples: data.maxTrainSamples,
        skipBad: data.skipBad,
        workers,
        onWarning,
      })
    : await loadOpenMoji({ size, set: data.set, cacheFolder, onWarning });
  const limit = data.maxTrainSamples ?? all.ids.length;
  return {
    ...all,
    images: all.images.slice(0, limit * all.size * all.size * 3),
    captions: all.captions.slice(0, limit),
    ids: all.ids.slice(0, limit),
  };
}
