import sharp from 'sharp';
import { fromBytes, toBytes } from '../../flow/data/captioned-images.ts';

/** One picture in memory. */
export interface RgbImage {
  width: number;
  height: number;
  data: Uint8Array | Uint8ClampedArray; // [height, width, 3]
}

/** values: [height, width, 3] in [-1, 1] */
export function imageFromFloats(values: Float32Array, width: number, height = width): RgbImage {
  return checked({ width, height, data: toBytes(values) });
}

/** values: [B, height, width, 3] in [-1, 1] → B pictures */
export function imagesFromFloats(values: Float32Array, width: number, height = width): RgbImage[] {
  const stride = width * height * 3;
  return Array.from({ length: values.length / stride }, (_, i) =>
    imageFromFloats(values.subarray(i * stride, (i + 1) * stride), width, height),
  );
}

interface Size {
  width: number;
  height: number;
}

/** A picture of any format, cut to the size's proportions and scaled: [height, width, 3] in [-1, 1] */
export async function readImage(path: string, size: Size): Promise<Float32Array> {
  return fromBytes(await readPixels(path, size, 3));
}

/** White is 1, black 0, and so is what is transparent: [height, width] */
export async function readMask(path: string, size: Size): Promise<Float32Array> {
  return Float32Array.from(await readPixels(path, size, 1), (value) => value / 255);
}

async function readPixels(path: string, { width, height }: Size, channels: 1 | 3): Promise<Buffer> {
  try {
    const picture = sharp(path, { failOn: 'truncated' })
      .rotate()
      .flatten({ background: channels === 3 ? 'white' : 'black' });
    const coloured = channels === 3 ? picture.toColourspace('srgb') : picture.toColourspace('b-w');
    return await coloured.resize(width, height, { fit: 'cover', kernel: 'lanczos3' }).raw().toBuffer();
  } catch (error) {
    throw new Error(`${path}: cannot be read as an image: ${(error as Error).message.split('\n')[0].trim()}`);
  }
}

/** As PNG; `width` × `height` asks for another size: larger in whole pixels where it divides, smaller smoothly. */
export async function encodePng(image: RgbImage, width = image.width, height = image.height): Promise<Buffer> {
  const { data } = checked(image);
  let picture = sharp(Buffer.from(data.buffer, data.byteOffset, data.byteLength), {
    raw: { width: image.width, height: image.height, channels: 3 },
  });
  if (width !== image.width || height !== image.height) {
    picture = picture.resize(width, height, { fit: 'fill', kernel: width > image.width ? 'nearest' : 'lanczos3' });
  }
  return picture.png().toBuffer();
}

/** An SVG as PNG, `scale` pixels to the unit. */
export async function renderSvg(svg: string, scale = 1): Promise<Buffer> {
  return sharp(Buffer.from(svg), { density: 72 * scale, unlimited: true })
    .flatten({ background: 'white' })
    .png()
    .toBuffer();
}

function checked(image: RgbImage): RgbImage {
  const { width, height, data } = image;
  if (data.length !== width * height * 3) {
    throw new Error(`picture: ${data.length} values for [${height}, ${width}, 3]`);
  }
  return image;
}
