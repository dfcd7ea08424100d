/** Pixels as CLIP's image tower wants them, on the host. */

/** What is done to an image, as a preprocessor_config.json says. */
export interface ClipPixelsOptions {
  /** Pixels on a side: 224 when not given. */
  side?: number;
  /** What the training images had, per channel: CLIP's when not given. */
  mean?: readonly number[];
  deviation?: readonly number[];
}

const MEAN = [0.48145466, 0.4578275, 0.40821073];
const DEVIATION = [0.26862954, 0.26130258, 0.27577711];

/**
 * The shorter side becomes `side` by bicubic interpolation, the middle is cut out, every channel normalised.
 *
 *     image: [height, width, 3] in 0 … 1 → [side, side, 3]
 *
 * As transformers' CLIPImageProcessor, except that nothing is rounded to 8 bits on the way.
 */
export function clipPixels(
  image: ArrayLike<number>,
  [height, width]: readonly [number, number],
  { side = 224, mean = MEAN, deviation = DEVIATION }: ClipPixelsOptions = {},
): Float32Array {
  if (image.length !== height * width * 3)
    throw new RangeError(`clipPixels: ${image.length} numbers are not ${height} × ${width} pixels of 3 channels`);
  const shorter = Math.min(height, width);
  const columns = samples(width, Math.floor((side * width) / shorter), side);
  const rows = samples(height, Math.floor((side * height) / shorter), side);
  const between = new Float32Array(height * side * 3);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < side; x++)
      for (let c = 0; c < 3; c++)
        between[(y * side + x) * 3 + c] = columns[x].reduce(
          (sum, [at, w]) => sum + w * image[(y * width + at) * 3 + c],
          0,
        );
  const out = new Float32Array(side * side * 3);
  for (let y = 0; y < side; y++)
    for (let x = 0; x < side; x++)
      for (let c = 0; c < 3; c++) {
        const value = rows[y].reduce((sum, [at, w]) => sum + w * between[(at * side + x) * 3 + c], 0);
        out[(y * side + x) * 3 + c] = (Math.min(1, Math.max(0, value)) - mean[c]) / deviation[c];
      }
  return out;
}

/** Which of `from` pixels make each of the middle `kept` of `to` pixels, and their shares; wider where that is smaller. */
function samples(from: number, to: number, kept: number): [at: number, share: number][][] {
  const scale = from / to;
  const wide = Math.max(1, scale);
  const first = Math.floor((to - kept) / 2);
  return Array.from({ length: kept }, (_, i) => {
    const centre = (first + i + 0.5) * scale;
    const [low, high] = [Math.max(0, Math.round(centre - 2 * wide)), Math.min(from, Math.round(centre + 2 * wide))];
    const shares: [number, number][] = [];
    for (let at = low; at < high; at++) shares.push([at, cubic((at + 0.5 - centre) / wide)]);
    const total = shares.reduce((sum, [, w]) => sum + w, 0);
    return shares.map(([at, w]) => [at, w / total]);
  });
}

/** @see Keys 1981, Cubic convolution interpolation for digital image processing, eq. 15 (a = −1/2) */
function cubic(x: number): number {
  const d = Math.abs(x);
  if (d < 1) return (1.5 * d - 2.5) * d * d + 1;
  return d < 2 ? ((-0.5 * d + 2.5) * d - 4) * d + 2 : 0;
}
