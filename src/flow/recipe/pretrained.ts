/** Begin a run with the teacher of a model that was trained before: only what comes after it is made anew. */
import { cp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { AutoencoderKL } from '../../nn/index.ts';
import { ModelFolderError, openModule } from './model-folder.ts';
import { stageNames } from './recipe.ts';
import type { Run } from './run.ts';
import { cacheLatents } from './stage-vae.ts';

/** What a teacher consists of, and what training it takes. */
const parts = ['tokenizer', 'text_encoder', 'vae', 'unet_teacher'] as const;
const trained = stageNames.slice(0, stageNames.indexOf('teacher') + 1);

/**
 * Copy tokenizer, text encoder, VAE and teacher from a model in diffusers' layout, encode the images of this run with that
 * VAE, and count the stages up to the teacher as finished. Does nothing when they are.
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
  run.say(`${trained.join(', ')}: taken from ${model}`);
}
