/** Images ↔ latents at the scale that networks work at. */
import type { AutoencoderKL } from '../../nn/index.ts';
import { decodeTiled, encodeTiled } from '../../nn/models/vae-tiles.ts';
import { noGrad, scope, tensor } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { scaleLatents, unscaleLatents } from '../latents.ts';
import type { LatentScale } from '../latents.ts';
import { concatenate, itemsOf } from './arrays.ts';

/** Latents [B, h, w, C] → images [B, H, W, 3], one by one: a single image takes the least memory. */
export async function decodeLatents(
  vae: AutoencoderKL,
  latents: Float32Array,
  shape: readonly number[],
  tile?: number,
): Promise<{ images: Float32Array; height: number; width: number }> {
  const channels = shape.at(-1)!;
  const scaled = unscaleLatents(latents, channels, vae.config as LatentScale);
  const [count, ...each] = shape;
  const { dtype } = vae.post_quant_conv.weight;
  // Small images go together, large ones one by one: the decoder's maps have sixty times the numbers of its latents.
  const together = Math.max(1, Math.floor(TOGETHER / (latents.length / count)));
  const parts: Float32Array[] = [];
  let height = 0,
    width = 0;
  for (let from = 0; from < count; from += together) {
    const n = Math.min(together, count - from);
    using image = noGrad(() =>
      scope(() => {
        const z = tensor(itemsOf(scaled, scaled.length / count, from, from + n), [n, ...each], { dtype });
        return tile ? decodeTiled(vae, z, { tile }) : vae.decode(z);
      }),
    );
    [, height, width] = image.shape;
    parts.push((await image.read()) as Float32Array);
  }
  return { images: concatenate(parts), height, width };
}

/** Latents of 64 images of 32 × 32 pixels. */
const TOGETHER = 64 * 512;

/** Images [B, H, W, 3] → latents [B, h, w, C], drawn from the encoder's Gaussians with `noise`. */
export async function encodeImages(vae: AutoencoderKL, images: Tensor, noise: Tensor, tile?: number): Promise<Tensor> {
  const [count, , , channels] = noise.shape;
  const size = images.size / count;
  const all = (await images.read()) as Float32Array;
  const drawn = (await noise.read()) as Float32Array;
  const parts: Float32Array[] = [];
  for (let i = 0; i < count; i++) {
    using latents = noGrad(() =>
      scope(() => {
        const { dtype } = vae.quant_conv.weight;
        const image = tensor(all.subarray(i * size, (i + 1) * size), [1, ...images.shape.slice(1)], { dtype });
        const own = tensor(itemsOf(drawn, drawn.length / count, i, i + 1), [1, ...noise.shape.slice(1)]);
        return vae.sample(tile ? encodeTiled(vae, image, { tile }) : vae.encode(image), own);
      }),
    );
    parts.push((await latents.read()) as Float32Array);
  }
  return tensor(scaleLatents(concatenate(parts), channels, vae.config as LatentScale), noise.shape);
}

/** The nearest pixel of each latent.   mask: [B, H, W] → [B, h, w, 1], 1 from one half on */
export function latentMask(mask: Float32Array, [H, W]: readonly number[], [h, w]: readonly number[]): Float32Array {
  const count = mask.length / (H * W);
  const out = new Float32Array(count * h * w);
  for (let i = 0; i < out.length; i++) {
    const [x, y, b] = [i % w, Math.floor(i / w) % h, Math.floor(i / (w * h))];
    out[i] = mask[(b * H + Math.floor((y * H) / h)) * W + Math.floor((x * W) / w)] < 0.5 ? 0 : 1;
  }
  return out;
}
