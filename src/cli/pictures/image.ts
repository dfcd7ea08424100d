import sharp from 'sharp';
import { toBytes } from '../../flow/data/captioned-images.ts';

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
