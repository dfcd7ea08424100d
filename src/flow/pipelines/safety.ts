/** What a model's safety checker flags is not shown. */
import { clipPixels } from '../../nn/models/clip-pixels.ts';
import type { ClipPixelsOptions } from '../../nn/models/clip-pixels.ts';
import type { SafetyChecker } from '../../nn/models/safety-checker.ts';
import { noGrad, scope, tensor } from '../../tensor/index.ts';
import type { SampleResult } from './options.ts';

/** Parts of a pipeline that looks at what it has drawn. Without a checker every image is shown. */
export interface SafetyParts {
  safetyChecker?: SafetyChecker;
  /** How it wants pixels, where that is not CLIP's way. */
  featureExtractor?: ClipPixelsOptions;
}

/**
 * Make black what the checker flags, in place, image by image.   images: [N, height, width, 3] in −1 … 1
 * @returns which were flagged; undefined without a checker
 */
export async function hideFlagged(
  { safetyChecker: checker, featureExtractor }: SafetyParts,
  images: Float32Array,
  [height, width]: readonly [number, number],
): Promise<boolean[] | undefined> {
  if (!checker) return undefined;
  const { image_size: side } = checker.config;
  const { dtype } = checker.visual_projection.weight;
  const size = height * width * 3;
  const flagged: boolean[] = [];
  for (let at = 0; at < images.length; at += size) {
    const image = images.subarray(at, at + size);
    // The checker sees what a file would hold: 8 bits for each channel.
    const shown = image.map((v) => Math.round(255 * Math.min(1, Math.max(0, v / 2 + 0.5))) / 255);
    const pixels = clipPixels(shown, [height, width], { side, ...featureExtractor });
    const [flag] = await scope(() => noGrad(() => checker.flagged(tensor(pixels, [1, side, side, 3], { dtype }))));
    if (flag) image.fill(-1);
    flagged.push(flag);
  }
  return flagged;
}

/** A line for each image that was hidden. */
export const hiddenWarnings = (
  prompts: readonly string[],
  { seeds, nsfwContentDetected = [] }: Pick<SampleResult, 'seeds' | 'nsfwContentDetected'>,
): string[] =>
  nsfwContentDetected.flatMap((flag, i) =>
    flag
      ? [
          `"${prompts[i]}", seed ${seeds[i]}: black, because the safety checker flagged it; --safety_checker off shows it`,
        ]
      : [],
  );
