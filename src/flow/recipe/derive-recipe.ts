/** A recipe for a checkpoint of others: what can be read off it, and for the rest the numbers of the InstaFlow paper. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { exists } from '../../tensor/io/files-node.ts';
import type { TrainOptions } from '../trainer.ts';
import { ModelFolderError, readJson } from './model-folder.ts';
import { indexOf, isRectifiedFlow, schedulerOf, sdScheduler } from './model-index.ts';
import { preset } from './recipe.ts';
import type { Recipe } from './recipe.ts';

/** @see Liu et al. 2023, InstaFlow, appendix: AdamW, clipping, warm-up, average. https://arxiv.org/abs/2309.06380 */
const asPublished: Omit<TrainOptions, 'steps'> = {
  batchSize: 4,
  learningRate: 1e-6,
  scheduler: 'constant_with_warmup',
  warmupSteps: 1000,
  maxGradNorm: 1,
  weightDecay: 1e-2,
  emaDecay: 0.9999,
  checkpointingSteps: 500,
  gradientCheckpointing: true,
};

/** Is it a folder in diffusers' layout with one network, as Stable Diffusion's and InstaFlow's? `train` leaves several. */
export async function isCheckpoint(model: string): Promise<boolean> {
  const parts = await readdir(model).catch(() => [] as string[]);
  return parts.includes('unet') && !parts.some((name) => name.startsWith('unet_'));
}

/**
 * Reflow and distillation of a Stable Diffusion 1.x, a fine-tuned one, or a flow with its networks. The network is the
 * teacher; whether it is one of a diffusion, model_index.json says.
 * @throws ModelFolderError when it is no such folder, or one of another family
 */
export async function deriveRecipe(model: string): Promise<Recipe> {
  const info = await stat(model).catch(() => undefined);
  if (!info?.isDirectory())
    throw new ModelFolderError(
      `${model}: ${info ? 'a file' : 'no such folder'}\n  training wants a folder in diffusers' layout${info ? ': make one with rectiflow convert' : ''}`,
    );
  const missing: string[] = [];
  for (const part of ['tokenizer', 'text_encoder', 'vae', 'unet'])
    if (!(await exists(join(model, part)))) missing.push(part);
  if (missing.length) throw new ModelFolderError(`${model}: is not a whole model\n  missing: ${missing.join(', ')}`);
  const [unet, vae, textEncoder] = await Promise.all(
    ['unet', 'vae', 'text_encoder'].map((part) => readJson(join(model, part, 'config.json'))),
  );
  if (unet.addition_embed_type)
    throw new ModelFolderError(
      `${model}: a model of Stable Diffusion XL, whose network wants more than a text\n  those of Stable Diffusion 1.x can be trained`,
    );
  const diffusion = isRectifiedFlow(await indexOf(model)) ? undefined : ((await schedulerOf(model)) ?? sdScheduler);
  const factor = 2 ** ((vae.block_out_channels as number[]).length - 1);
  const small = preset('emoji');
  return {
    ...small,
    name: 'checkpoint',
    data: { ...small.data, resolution: unet.sample_size * factor },
    tokenizer: { vocabSize: textEncoder.vocab_size, maxLength: textEncoder.max_position_embeddings },
    vae: { ...small.vae, config: vae },
    textEncoder,
    unet,
    pairs: { count: 10_000, steps: 25, guidanceScale: diffusion ? 5 : 1.5, batchSize: 4 },
    reflow: { train: { ...asPublished, steps: 70_000 }, nullText: 0.1 },
    distill: {
      train: { ...asPublished, steps: 21_500 },
      pairs: { count: 10_000, steps: 25, guidanceScale: 1.5, batchSize: 4 },
    },
    evaluate: { count: 64, steps: 25, guidanceScale: diffusion ? 7.5 : 1.5 },
    ...(diffusion && { diffusion: diffusion as Record<string, unknown> }),
  };
}
