/** What the stages after the teacher share: the frozen text side and the networks by name. */
import { join } from 'node:path';
import { CLIPTextModel } from '../../nn/index.ts';
import { StackedUNet } from '../../nn/models/stacked-unet.ts';
import { currentGpu, neg, noGrad, scope } from '../../tensor/index.ts';
import { velocityOfDiffusion } from '../diffusion-velocity.ts';
import type { ConditionalNetwork } from '../guidance.ts';
import type { NetworkName } from '../pipelines/options.ts';
import { timestepOf } from '../rectified-flow.ts';
import { readConfig, trainingFields } from '../schedulers/config.ts';
import type { PredictionType } from '../schedulers/config.ts';
import { NoiseSchedule } from '../schedulers/noise-schedule.ts';
import { ModelFolderError, openModule, openTokenizer, saveModule } from './model-folder.ts';
import { classNameOf, networkOf } from '../../nn/models/network.ts';
import type { Network } from '../../nn/models/network.ts';
import type { Run } from './run.ts';
import { TextTable } from './texts.ts';

/** Some texts, and the empty one, through the frozen text encoder. */
export async function encodeTexts(run: Run, texts: readonly string[]): Promise<TextTable> {
  const tokenizer = await openTokenizer(join(run.model, 'tokenizer'));
  const encoder = await openModule(run.model, 'text_encoder', (config) => new CLIPTextModel(config));
  const all = ['', ...texts, ...(run.hooks.validationPrompts ?? [])];
  const table = await TextTable.encode(all, tokenizer, encoder);
  encoder.dispose();
  return table;
}

/** Every caption of the data, and the empty one. */
export async function encodeCaptions(run: Run): Promise<TextTable> {
  const { captions } = await run.data();
  return encodeTexts(run, captions.flat());
}

export const openNetwork = (run: Run, name: NetworkName): Promise<Network> => openModule(run.model, name, networkOf);

export const saveNetwork = (run: Run, name: NetworkName, network: Network): Promise<void> =>
  saveModule(run.model, name, network, classNameOf(network));

/** How a student begins. */
export interface StudentOptions {
  /** 'stacked': two U-Nets in a row, both with the weights of `from` (InstaFlow-1.7B). */
  network?: 'unet' | 'stacked';
  /** Begin with minus the output: a network of noise then says −ε, most of the velocity x1 − x0. */
  negate?: boolean;
}

/**
 * A student with the weights of another network of the run. A network of noise has no other form as a velocity: as in the
 * paper, it is trained until its output means x1 − x0.
 */
export async function openStudent(
  run: Run,
  from: NetworkName,
  { network = 'unet', negate = false }: StudentOptions = {},
): Promise<Network> {
  const student = await openNetwork(run, from);
  if (negate) {
    for (const p of (student instanceof StackedUNet ? student.unets[1] : student).conv_out!.namedParameters().values())
      scope(() => noGrad(() => currentGpu().copy(neg(p).array, p.array)));
  }
  if (network === 'unet' || student instanceof StackedUNet) return student;
  const stacked = new StackedUNet(student.config).copyUNet(student);
  student.dispose();
  return stacked;
}

/** The noise schedule of a run whose teacher is a diffusion. @throws ModelFolderError when it is a flow */
export function noiseScheduleOf(run: Run): {
  schedule: NoiseSchedule;
  predictionType: Exclude<PredictionType, 'sample'>;
} {
  const { diffusion } = run.recipe;
  if (!diffusion)
    throw new ModelFolderError(
      `${run.folder}: its teacher is a rectified flow, which has no noise schedule\n  train without --prediction_type epsilon`,
    );
  const config = readConfig('teacher', diffusion, trainingFields);
  const { prediction_type: predictionType } = config;
  if (predictionType === 'sample')
    throw new ModelFolderError(`${run.folder}: its teacher predicts the image itself, which is not supported here`);
  return { schedule: new NoiseSchedule(config), predictionType };
}

/** The velocity of a network of a flow. */
export const conditional =
  (network: Network): ConditionalNetwork =>
  (z, t, text) =>
    noGrad(() => scope(() => network.forward(z, timestepOf(t), text)));

/** The velocity of the run's teacher, be it a flow or a diffusion. */
export function teacherVelocity(run: Run, network: Network): ConditionalNetwork {
  if (!run.recipe.diffusion) return conditional(network);
  const { schedule, predictionType } = noiseScheduleOf(run);
  const velocity = velocityOfDiffusion(
    (z, k, text: Parameters<ConditionalNetwork>[2]) => network.forward(z, k, text),
    schedule,
    predictionType,
  );
  return (z, t, text) => noGrad(() => velocity(z, t, text));
}
