/** Steps of reflow at Stable Diffusion's size: batch 1 and 4, in f32 and with f16 activations. */
import { builtIn } from '../../src/flow/estimate/outline.ts';
import { trainStep } from '../../src/flow/estimate/train-step.ts';
import { preset } from '../../src/flow/recipe/recipe.ts';
import { median } from '../machine.ts';
import { drawWeights } from '../step.ts';
import type { PartOptions } from './part.ts';

/** A step, after the first ones, which compile. */
export interface StepTime {
  batchSize: number;
  mixedPrecision: 'no' | 'fp16';
  gradientCheckpointing: boolean;
  /** Seconds. */
  first: number;
  warm: number;
  /** Bytes on the GPU. */
  peak: number;
  loss: number;
  error?: string;
}

const STEPS = 5;

export async function timeTraining({ small, say, seconds }: PartOptions): Promise<StepTime[]> {
  const tiny = preset('tiny');
  const outline = small
    ? { ...builtIn.sd15, network: tiny.unet, vae: tiny.vae.config, textEncoder: tiny.textEncoder }
    : builtIn.sd15;
  const found: StepTime[] = [];
  for (const [batchSize, mixedPrecision, gradientCheckpointing] of [
    [1, 'no', false],
    [4, 'fp16', true],
    [4, 'no', true],
  ] as const) {
    const plan = { batchSize, mixedPrecision, gradientCheckpointing };
    const name = `batch ${batchSize}, ${mixedPrecision === 'no' ? 'f32' : 'f16'}${gradientCheckpointing ? ', checkpointed' : ''}`;
    if (seconds() < 15) {
      say(`  ${name}: left out, the time is up`);
      continue;
    }
    try {
      const report = await trainStep(outline, { ...plan, steps: STEPS }, drawWeights);
      const [first, , ...rest] = report.seconds;
      const step = { ...plan, first, warm: median(rest), peak: report.memory.peak, loss: report.log.at(-1)!.loss };
      found.push(step);
      say(
        `  ${name}: ${(1000 * step.warm).toFixed(1)} ms (first ${step.first.toFixed(1)} s), ${(step.peak / 2 ** 30).toFixed(2)} GiB`,
      );
    } catch (error) {
      const { message } = error as Error;
      found.push({ ...plan, first: NaN, warm: NaN, peak: NaN, loss: NaN, error: message });
      say(`  ${name}: ${message}`);
    }
  }
  return found;
}
