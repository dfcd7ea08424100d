/** Runners of the groups that need whole networks. */
import type { Runner } from './runner.ts';
import { runClip } from './networks-clip.ts';
import { runFull } from './networks-full.ts';
import { runKeys } from './networks-keys.ts';
import { runLpips } from './networks-lpips.ts';
import { runTrain } from './networks-train.ts';
import { runUnet } from './networks-unet.ts';
import { runVae } from './networks-vae.ts';

export const networkRunners: Record<string, Runner> = {
  keys: runKeys,
  unet: runUnet,
  vae: runVae,
  clip: runClip,
  train: runTrain,
  lpips: runLpips,
  full: runFull,
};
