/** The objective of a stage, with the frozen networks that its loss looks through. */
import { AutoencoderKL } from '../../nn/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { decodedDistance, decoderDistance } from '../decoded-distance.ts';
import type { LatentShape } from '../latents.ts';
import { isPerceptual, makeLoss, wantsLpips } from '../losses.ts';
import type { LatentDistance, LossOptions } from '../losses.ts';
import { imageObjective, velocityObjective } from '../objectives.ts';
import type { Objective } from '../objectives.ts';
import type { TimeOptions } from '../times.ts';
import { openModule } from './model-folder.ts';
import { openLpips } from './open-lpips.ts';
import type { Run } from './run.ts';
import { noiseScheduleOf } from './student.ts';

/** What a stage's objective depends on. */
export interface StageObjective {
  shape: LatentShape;
  times: TimeOptions;
  loss: LossOptions;
  /** 'epsilon': the student stays a network of diffusion. */
  predicts?: 'velocity' | 'epsilon';
  seed: number;
  stream: string;
  /** Compute the decoder again in backward. */
  gradientCheckpointing?: boolean;
  timeWaves(timesteps: readonly number[]): Tensor;
}

/** @throws ModelFolderError when the loss wants weights of LPIPS that are not there, or not whole */
export async function openObjective(run: Run, stage: StageObjective): Promise<Objective & { dispose(): void }> {
  const { predicts = 'velocity', ...options } = stage;
  const frozen: { dispose(): void }[] = [];
  const schedule = predicts === 'epsilon' ? noiseScheduleOf(run) : undefined;
  let distance: LatentDistance | undefined;
  if (isPerceptual(stage.loss.type)) {
    const lpips = wantsLpips(stage.loss.type) ? await openLpips(run.recipe.lpips ?? []) : undefined;
    if (lpips) frozen.push(lpips);
    const vae = await openModule(run.model, 'vae', (config) => new AutoencoderKL(config));
    vae.gradientCheckpointing = stage.gradientCheckpointing ?? false;
    frozen.push(vae);
    distance = lpips ? decodedDistance(vae, lpips) : decoderDistance(vae);
  }
  const told = { ...options, loss: makeLoss(stage.loss, distance) };
  const objective = schedule
    ? imageObjective(schedule.schedule, schedule.predictionType, told)
    : velocityObjective(told);
  return { ...objective, dispose: () => frozen.forEach((network) => network.dispose()) };
}
