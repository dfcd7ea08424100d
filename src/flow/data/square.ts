/** Image files → squares of pixels: in this thread, or in those of image-workers.ts. */
import { readFile } from 'node:fs/promises';
import sharp from 'sharp';

/** --image_interpolation_mode, and what sharp calls it. */
const kernels = { lanczos: 'lanczos3', bicubic: 'cubic', bilinear: 'linear', nearest: 'nearest' } as const;
/** How an image is scaled. */
export type Interpolation = keyof typeof kernels;
/** 'lanczos', 'bicubic', 'bilinear', 'nearest' */
export const interpolationModes = Object.keys(kernels) as Interpolation[];

/** A square to make of an image file. */
export interface Square {
  path: string;
  /** Pixels on a side. */
  resolution: number;
  /** Where it is cut: 0 … 1, of the room there is. */
  place: readonly [x: number, y: number];
  interpolation?: Interpolation;
}

/** Image file → [resolution, resolution, 3] */
export async function readSquare({
  path,
  resolution,
  place: [x, y],
  interpolation = 'lanczos',
}: Square): Promise<Uint8Array> {
  const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    throw new Error(error.code === 'ENOENT' ? 'the file does not exist' : error.message);
  });
  if (bytes.length === 0) throw new Error('the file is empty');
  let scaled;
  try {
    scaled = await sharp(bytes, { failOn: 'truncated' })
      .autoOrient()
      .flatten({ background: 'white' })
      .toColourspace('srgb')
      .resize(resolution, resolution, { fit: 'outside', kernel: kernels[interpolation] })
      .removeAlpha()
      .raw()
      .toBuffer({ resolveWithObject: true });
  } catch (error) {
    throw new Error(explain((error as Error).message));
  }
  const { data, info } = scaled;
  return sharp(data, { raw: { width: info.width, height: info.height, channels: info.channels as 1 | 3 } })
    .extract({
      left: Math.round(x * (info.width - resolution)),
      top: Math.round(y * (info.height - resolution)),
      width: resolution,
      height: resolution,
    })
    .toColourspace('srgb')
    .raw()
    .toBuffer();
}

/** What libvips says, in words: without its detail, which another thread's error may have taken ("unknown error"). */
function explain(message: string): string {
  if (/unsupported image format/i.test(message)) return 'not an image that can be read';
  if (/unknown error|premature|truncat|read error|end of|not enough|libspng|out of order/i.test(message)) {
    return 'damaged or cut short';
  }
  return message.split('\n')[0].trim();
}
