/** What a folder of diffusers says of how its model is sampled, and what holds where it says nothing. */
import { join } from 'node:path';
import { exists } from '../../tensor/io/files-node.ts';
import type { SamplingDefaults } from '../pipelines/options.ts';
import { readJson } from './model-folder.ts';

/** What Stable Diffusion 1.x was trained with; its single files do not say. */
const trainedSchedule = {
  num_train_timesteps: 1000,
  beta_start: 0.00085,
  beta_end: 0.012,
  beta_schedule: 'scaled_linear',
  steps_offset: 1,
  clip_sample: false,
  set_alpha_to_one: false,
};
export const sdScheduler = { _class_name: 'PNDMScheduler', ...trainedSchedule, skip_prk_steps: true };
export const refinerScheduler = { _class_name: 'EulerDiscreteScheduler', ...trainedSchedule };

/** model_index.json of a folder, if it has one. */
export const indexOf = (path: string): Promise<Record<string, unknown> | undefined> =>
  exists(join(path, 'model_index.json')).then((there) =>
    there ? readJson(join(path, 'model_index.json')) : undefined,
  );

/** Whether a model_index.json says that the network predicts the velocity of a flow. */
export const isRectifiedFlow = (index?: Record<string, unknown>): boolean =>
  /RectifiedFlow/.test(String(index?._class_name));

/** How models of others are sampled, which do not say. */
export const usualSampling = (isFlow: boolean): SamplingDefaults =>
  isFlow ? { steps: 1, guidanceScale: 1 } : { steps: 25, guidanceScale: 7.5 };

export const schedulerOf = async (path: string): Promise<object | undefined> => {
  const file = join(path, 'scheduler', 'scheduler_config.json');
  return (await exists(file)) ? readJson(file) : undefined;
};
