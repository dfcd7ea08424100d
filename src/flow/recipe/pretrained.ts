/** Begin a run with the teacher of a model that was trained before: only what comes after it is made anew. */
import { copyFile, cp, link, mkdir, readdir, realpath, rm } from 'node:fs/promises';
import { constants } from 'node:fs';
import { join } from 'node:path';
import { AutoencoderKL } from '../../nn/index.ts';
import { findWeights } from '../../tensor/io/weights-node.ts';
import { isCheckpoint } from './derive-recipe.ts';
import { ModelFolderError, openModule } from './model-folder.ts';
import { stageNames } from './recipe.ts';
import type { Run } from './run.ts';
import { cacheLatents } from './stage-vae.ts';

/** What a teacher consists of, and what training it takes. */
const parts = ['tokenizer', 'text_encoder', 'vae', 'unet_teacher'] as const;
const trained = stageNames.slice(0, stageNames.indexOf('teacher') + 1);

/**
 * Take tokenizer, text encoder, VAE and teacher from a model in diffusers' layout, and count the stages up to the teacher
 * as finished. Does nothing when they are. Of a model that `train` made, the images of this run are encoded with its VAE; of
 * one of others nothing is read but its files linked, or copied where they cannot be.
 * @throws ModelFolderError when the model has no teacher, or its VAE is for another size
 */
export async function adoptTeacher(run: Run, model: string): Promise<void> {
  const finished = await Promise.all(trained.map((stage) => run.finished(stage)));
  if (finished.every(Boolean)) return;
  const begun = trained.find((_, i) => finished[i]);
  if (begun)
    throw new ModelFolderError(
      `${run.folder}: its stage ${begun} is trained already, so it cannot begin with ${model}\n  give another --output_dir`,
    );
  if (await isCheckpoint(model)) await linkCheckpoint(run, model);
  else await copyTeacher(run, model);
  run.say(`${trained.join(', ')}: taken from ${model}`);
}

async function copyTeacher(run: Run, model: string): Promise<void> {
  const present = await readdir(model).catch(() => [] as string[]);
  const missing = parts.filter((part) => !present.includes(part));
  if (missing.length)
    throw new ModelFolderError(`${model}: no teacher to begin with\n  missing: ${missing.join(', ')}`);
  for (const part of parts) {
    await rm(join(run.model, part), { recursive: true, force: true });
    await cp(join(model, part), join(run.model, part), { recursive: true });
  }
  const vae = await openModule(run.model, 'vae', (config) => new AutoencoderKL(config));
  const { sample_size: trainedFor } = vae.config;
  const { size } = await run.data();
  if (trainedFor !== size)
    throw new ModelFolderError(
      `${model}: trained for ${trainedFor} × ${trainedFor} pixels, the data has ${size} × ${size}\n  give --resolution ${trainedFor}`,
    );
  const { error } = await cacheLatents(run, vae);
  vae.dispose();
  for (const stage of trained) await run.finish(stage, { from: model, ...(stage === 'vae' ? { rmse: error } : {}) });
}

/** The network of a checkpoint is the teacher. Its gigabytes are not written again where the disk can share them. */
async function linkCheckpoint(run: Run, model: string): Promise<void> {
  for (const part of parts) {
    const from = join(model, part === 'unet_teacher' ? 'unet' : part);
    const to = join(run.model, part);
    await rm(to, { recursive: true, force: true });
    await mkdir(to, { recursive: true });
    for (const file of await filesOf(part, from)) await share(join(from, file), join(to, file));
  }
  for (const stage of trained) await run.finish(stage, { from: model });
}

/** Configurations and one set of weights; other precisions and formats stay behind. */
async function filesOf(part: (typeof parts)[number], folder: string): Promise<string[]> {
  const files = await readdir(folder).catch(() => [] as string[]);
  const small = files.filter((file) => /\.(json|txt)$/.test(file) && !file.includes('.index.'));
  if (part === 'tokenizer') return small;
  const weights = (await findWeights(folder)).slice(folder.length + 1);
  if (!/\.index(\.\w+)?\.json$/.test(weights)) return [...small, weights];
  const [stem, kind] = [weights.split('.')[0], weights.includes('safetensors') ? 'safetensors' : 'bin'];
  return [...small, weights, ...files.filter((file) => file.startsWith(`${stem}-`) && file.endsWith(kind))];
}

async function share(from: string, to: string): Promise<void> {
  const file = await realpath(from); // the hub's cache has links to its files
  await link(file, to).catch(() => copyFile(file, to, constants.COPYFILE_FICLONE));
}
