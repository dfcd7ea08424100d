/**
 * A fixed feature space for small RGB images: 64 numbers per image, no trained weights, nothing to download.
 *
 *     16   brightness, averaged over a 4 × 4 grid                  where things are
 *      8   two colour differences, averaged over a 2 × 2 grid      which colours, roughly where
 *      8   mean and RMS of |∂x| and |∂y| of the brightness at      sharpness: blur lowers the RMS,
 *          full and at half size                                   noise raises the mean
 *     32   two random 3×3 convolutions with ReLU, averaged         texture, shape and colour statistics
 *
 * The convolution weights come from our counter-based generator with a fixed seed, so the space is the same on every
 * machine and for ever. A Fréchet distance in it ranks models trained on the same data by layout, colour and sharpness.
 * It knows no objects, it is NOT the FID, and its values compare with no other paper's.
 */
import { normal } from '../../tensor/random.ts';

/** Numbers per image. */
export const featureCount = 64;

const seed = 20220907;
const filters1 = 12,
  filters2 = 32;
/** Bring each group to a spread of about 0.3, so that none drowns the others. */
const edgeScale = 8,
  textureScale = 2;

/** images: [count, height, width, 3] in −1 … 1, sides at least 16 → features [count, 64]. */
export function imageFeatures(images: ArrayLike<number>, height: number, width: number): Float32Array {
  const size = height * width * 3,
    count = images.length / size;
  if (!Number.isInteger(count)) {
    throw new RangeError(`imageFeatures: ${images.length} numbers are not images of [${height}, ${width}, 3]`);
  }
  if (height < 16 || width < 16) throw new RangeError(`imageFeatures: [${height}, ${width}] is smaller than 16 × 16`);
  const out = new Float32Array(count * featureCount);
  for (let i = 0; i < count; i++) {
    const image: Plane = {
      height,
      width,
      channels: 3,
      data: Float32Array.from({ length: size }, (_, k) => images[i * size + k]),
    };
    out.set(featuresOf(image), i * featureCount);
  }
  return out;
}

/** A feature map [height, width, channels]. */
interface Plane {
  height: number;
  width: number;
  channels: number;
  data: Float32Array;
}

function featuresOf(image: Plane): number[] {
  const opponent = toOpponent(image);
  const features = [...grid(opponent, 4, [0]), ...grid(opponent, 2, [1, 2])];
  let scale = opponent;
  for (let level = 0; level < 2; level++) {
    features.push(...edges(scale).map((edge) => edge * edgeScale));
    scale = halve(scale);
  }
  const hidden = halve(convolve(image, (weights1 ??= weights('features.1', 3, filters1)), filters1));
  const top = convolve(hidden, (weights2 ??= weights('features.2', filters1, filters2)), filters2);
  return [...features, ...grid(top, 1, [...Array(filters2).keys()]).map((mean) => mean * textureScale)];
}

/** Brightness, red − green, yellow − blue. */
function toOpponent({ height, width, data }: Plane): Plane {
  const out = new Float32Array(data.length);
  for (let i = 0; i < data.length; i += 3) {
    const [r, g, b] = [data[i], data[i + 1], data[i + 2]];
    out[i] = (r + g + b) / 3;
    out[i + 1] = r - g;
    out[i + 2] = (r + g) / 2 - b;
  }
  return { height, width, channels: 3, data: out };
}

/** Averages over an n × n grid of cells, for some of the channels. */
function grid({ height, width, channels, data }: Plane, n: number, wanted: number[]): number[] {
  const out: number[] = [];
  for (let gy = 0; gy < n; gy++) {
    for (let gx = 0; gx < n; gx++) {
      const [y0, y1] = [Math.floor((gy * height) / n), Math.floor(((gy + 1) * height) / n)];
      const [x0, x1] = [Math.floor((gx * width) / n), Math.floor(((gx + 1) * width) / n)];
      for (const c of wanted) {
        let sum = 0;
        for (let y = y0; y < y1; y++) for (let x = x0; x < x1; x++) sum += data[(y * width + x) * channels + c];
        out.push(sum / ((y1 - y0) * (x1 - x0)));
      }
    }
  }
  return out;
}

/** Mean and RMS of the differences to the right and to the lower neighbour, first channel. */
function edges({ height, width, channels, data }: Plane): number[] {
  let dx = 0,
    dy = 0,
    dx2 = 0,
    dy2 = 0;
  for (let y = 0; y < height - 1; y++) {
    for (let x = 0; x < width - 1; x++) {
      const i = (y * width + x) * channels;
      const right = data[i + channels] - data[i],
        down = data[i + width * channels] - data[i];
      dx += Math.abs(right);
      dy += Math.abs(down);
      dx2 += right * right;
      dy2 += down * down;
    }
  }
  const count = (height - 1) * (width - 1);
  return [dx / count, dy / count, Math.sqrt(dx2 / count), Math.sqrt(dy2 / count)];
}

/** Half the size by 2 × 2 averages. */
function halve({ height, width, channels, data }: Plane): Plane {
  const h = height >> 1,
    w = width >> 1,
    out = new Float32Array(h * w * channels);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      for (let c = 0; c < channels; c++) {
        const i = (2 * y * width + 2 * x) * channels + c,
          below = i + width * channels;
        out[(y * w + x) * channels + c] = (data[i] + data[i + channels] + data[below] + data[below + channels]) / 4;
      }
    }
  }
  return { height: h, width: w, channels, data: out };
}

let weights1: Float32Array | undefined, weights2: Float32Array | undefined;

/** Variance-keeping random weights [out, 3, 3, in]. */
function weights(stream: string, channels: number, filters: number): Float32Array {
  const fanIn = 9 * channels;
  return normal(seed, stream, filters * fanIn).map((w) => w * Math.sqrt(2 / fanIn));
}

/** 3 × 3 convolution without padding, then ReLU. */
function convolve({ height, width, channels, data }: Plane, weight: Float32Array, filters: number): Plane {
  const h = height - 2,
    w = width - 2,
    out = new Float32Array(h * w * filters);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      for (let f = 0; f < filters; f++) {
        let sum = 0,
          k = f * 9 * channels;
        for (let ky = 0; ky < 3; ky++) {
          const from = ((y + ky) * width + x) * channels;
          for (let i = from; i < from + 3 * channels; i++) sum += data[i] * weight[k++];
        }
        out[(y * w + x) * filters + f] = Math.max(sum, 0);
      }
    }
  }
  return { height: h, width: w, channels: filters, data: out };
}
