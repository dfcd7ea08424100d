/** Noise from a file, such as what another program drew: `sample --latents`. */
import { readTensors } from '../tensor/io/files-node.ts';
import type { LatentShape } from '../flow/latents.ts';
import { channelsLast } from './verify/layout.ts';

/**
 * Noise for `count` images from the only tensor of a safetensors file, [count, C, h, w] as PyTorch keeps latents; of one image
 * for all is fine.   latents: [h, w, C]
 * @returns [count, h, w, C]
 * @throws Error when the file holds no such tensor
 */
export async function readLatents(file: string, count: number, [h, w, C]: LatentShape): Promise<Float32Array> {
  const { tensors } = await readTensors(file);
  const names = Object.keys(tensors);
  if (names.length !== 1)
    throw new Error(
      `${file}: has ${names.length} tensors${names.length ? `: ${names.slice(0, 5).join(', ')}` : ''}\n` +
        '  --latents wants a file with one, the noise',
    );
  const { shape, data } = tensors[names[0]];
  const fits = (n: number) => shape.join() === [n, C, h, w].join();
  if (!fits(count) && !fits(1))
    throw new Error(
      `${file}: --latents does not fit\n  ${names[0]}: [${shape.join(', ')}]\n  wanted: [${[count, C, h, w].join(', ')}], or [1, …] for all\n` +
        '  h and w are height and width divided by the scale of the VAE',
    );
  const one = channelsLast({ shape, data }).data as Float32Array;
  if (fits(count)) return one;
  const all = new Float32Array(count * one.length);
  for (let i = 0; i < count; i++) all.set(one, i * one.length);
  return all;
}
