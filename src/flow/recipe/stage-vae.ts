import { join } from 'node:path';
import { AutoencoderKL } from '../../nn/index.ts';
import { add, currentGpu, exp, l1, mean, mse, mul, noGrad, scope, square, sub, tensor } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { normal } from '../../tensor/random.ts';
import { readTensors, writeTensors } from '../../tensor/io/files-node.ts';
import { BatchSampler, gatherImages } from '../data/loader.ts';
import { latentStatistics, scaleLatents } from '../latents.ts';
import type { LatentShape } from '../latents.ts';
import { batchAt } from './captions.ts';
import { openModule, saveModule } from './model-folder.ts';
import type { Run } from './run.ts';

/** Images ↔ latents. Afterwards the latents of all images are kept, at mean 0 and deviation 1 in every channel. */
export async function vaeStage(run: Run): Promise<void> {
  const { seed, vae: recipe } = run.recipe;
  const data = await run.data();
  const { size } = data;
  const vae = new AutoencoderKL(recipe.config).initialize(seed);
  const { batchSize } = recipe.train;
  const sampler = new BatchSampler(data.captions, { batchSize, seed, randomFlip: recipe.randomFlip });
  const channels = vae.config.latent_channels;
  const side = size / vae.factor;
  const noiseSize = batchSize * side * side * channels;

  const batch = (step: number): Tensor[] => [
    tensor(gatherImages(data, batchAt(sampler, step)), [batchSize, size, size, 3]),
    tensor(normal(seed, 'vae noise', noiseSize, step * noiseSize), [batchSize, side, side, channels]),
  ];
  const loss = (images: Tensor, noise: Tensor): Tensor => {
    const posterior = vae.encode(images);
    const rebuilt = vae.decode(vae.sample(posterior, noise));
    const weights = recipe.loss;
    const error = add(mul(l1(rebuilt, images), weights.l1), mul(mse(rebuilt, images), weights.l2));
    return add(error, mul(meanKl(posterior.mean, posterior.logvar), weights.kl));
  };
  const shown =
    data.ids.length < 12
      ? data.ids.map((_, i) => i)
      : Array.from({ length: 12 }, (_, i) => Math.floor((i * data.ids.length) / 12));
  const pixels = size * size * 3;
  const originals = shown.map((i) => data.images.subarray(i * pixels, (i + 1) * pixels));
  const preview = async (step: number) => {
    const rebuilt = await rebuild(vae, originals, size);
    await run.sheet('vae', {
      title: `${run.recipe.name} · autoencoder, step ${step}`,
      size,
      rows: [
        { title: 'image', images: originals },
        { title: 'rebuilt', images: rebuilt },
      ],
    });
  };
  const result = await run.train(
    'vae',
    { name: 'vae', modules: { vae }, samples: sampler.length, batch, loss, preview },
    recipe.train,
  );

  const { latents, error } = await encodeAll(vae, data.images, size);
  Object.assign(vae.config, { scaling_factor: 1, ...latentStatistics(latents, channels) });
  await saveModule(run.model, 'vae', vae, 'AutoencoderKL');
  vae.dispose();
  // What the stored half-precision weights make of the images: that is what everything after works with.
  const stored = await openModule(run.model, 'vae', (config) => new AutoencoderKL(config));
  const final = await cacheLatents(run, stored);
  if (run.hooks.artist) {
    const rebuilt = await rebuild(stored, originals, size);
    await run.sheet('vae', {
      title: `${run.recipe.name} · autoencoder`,
      subtitle: `root mean square error ${error.toFixed(4)}`,
      size,
      rows: [
        { title: 'image', images: originals },
        { title: 'rebuilt', images: rebuilt },
      ],
    });
  }
  stored.dispose();
  await run.finish('vae', { ...result, rmse: final.error, psnr: 20 * Math.log10(2 / final.error) });
  run.say(
    `vae: rebuilds with root mean square error ${final.error.toFixed(4)} (PSNR ${(20 * Math.log10(2 / final.error)).toFixed(1)} dB)`,
  );
}

/** Encode all training images and keep their latents, for the stages that follow. @returns the error of rebuilding them */
export async function cacheLatents(run: Run, vae: AutoencoderKL): Promise<{ error: number }> {
  const { images, ids, size } = await run.data();
  const { latents, error } = await encodeAll(vae, images, size);
  const { latent_channels: channels } = vae.config;
  const side = size / vae.factor;
  await writeTensors(join(await run.stageFolder('vae'), 'latents.safetensors'), {
    latents: { shape: [ids.length, side, side, channels], data: scaleLatents(latents, channels, vae.config) },
  });
  return { error };
}

/** Latents of all training images at the flow's scale: [N, h, w, C]. */
export async function cachedLatents(run: Run): Promise<{ latents: Float32Array; shape: LatentShape; size: number }> {
  const { tensors } = await readTensors(join(run.folder, 'vae', 'latents.safetensors'));
  const { data, shape } = tensors.latents;
  const latentShape = shape.slice(1) as unknown as LatentShape;
  return { latents: data, shape: latentShape, size: latentShape[0] * latentShape[1] * latentShape[2] };
}

/** KL from the unit Gaussian, mean over elements: ½ (μ² + σ² − 1 − log σ²) */
function meanKl(mu: Tensor, logvar: Tensor): Tensor {
  const spread = sub(exp(logvar), logvar);
  return mul(add(add(mean(square(mu)), mean(spread)), -1), 0.5);
}

async function encodeAll(vae: AutoencoderKL, images: Float32Array, size: number, batchSize = 32) {
  const pixels = size * size * 3;
  const count = images.length / pixels;
  const parts: Float32Array[] = [];
  let squares = 0;
  for (let from = 0; from < count; from += batchSize) {
    const n = Math.min(batchSize, count - from);
    const batch = images.subarray(from * pixels, (from + n) * pixels);
    const [mu, rebuilt] = noGrad(() =>
      scope(() => {
        const mu = vae.encode(tensor(batch, [n, size, size, 3])).mean;
        return [mu, vae.decode(mu)];
      }),
    );
    parts.push((await mu.read()) as Float32Array);
    const out = await rebuilt.read();
    for (let i = 0; i < out.length; i++) squares += (out[i] - batch[i]) ** 2;
    mu.dispose();
    rebuilt.dispose();
  }
  await currentGpu().idle();
  const latents = new Float32Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    latents.set(part, at);
    at += part.length;
  }
  return { latents, error: Math.sqrt(squares / images.length) };
}

async function rebuild(vae: AutoencoderKL, images: Float32Array[], size: number): Promise<Float32Array[]> {
  const pixels = size * size * 3;
  const batch = new Float32Array(images.length * pixels);
  images.forEach((image, i) => batch.set(image, i * pixels));
  const out = noGrad(() => scope(() => vae.decode(vae.encode(tensor(batch, [images.length, size, size, 3])).mean)));
  const made = (await out.read()) as Float32Array;
  out.dispose();
  return images.map((_, i) => made.slice(i * pixels, (i + 1) * pixels));
}
