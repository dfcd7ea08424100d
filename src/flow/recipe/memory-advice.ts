/** What to change when a stage does not fit the GPU. */
import { DeviceLostError, OutOfMemoryError } from '../../kernels/index.ts';
import type { TrainOptions } from '../trainer.ts';
import { TrainingError } from '../training-error.ts';

/** Flags that make a training step smaller, those that change least first, and what they cost. */
export function smallerSteps(options: TrainOptions): [flags: string, cost: string][] {
  const { batchSize, accumulationSteps = 1, gradientCheckpointing, mixedPrecision = 'no' } = options;
  const halves = `--train_batch_size ${Math.ceil(batchSize / 2)} --gradient_accumulation_steps ${accumulationSteps * 2}`;
  const all: [boolean, string, string][] = [
    [!gradientCheckpointing, '--gradient_checkpointing', 'the same bits, a third more time'],
    [batchSize > 1, `${halves} --force`, 'half the activations, the same samples in a step'],
    [mixedPrecision === 'no', '--mixed_precision fp16 --force', 'half the activations, rounded'],
  ];
  return all.flatMap(([applies, flags, cost]) => (applies ? [[flags, cost] as [string, string]] : []));
}

/** The error that ended a training stage; with what to do about it where memory is why, or may be. */
export function withAdvice(error: unknown, stage: string, options: TrainOptions): unknown {
  const flags = smallerSteps(options);
  const width = Math.max(...flags.map(([words]) => words.length));
  const lines = flags.map(([words, cost]) => `    ${words.padEnd(width)}  ${cost}`);
  const advice = lines.length ? ['  less memory for a step, from the last checkpoint on:', ...lines] : [];
  if (error instanceof OutOfMemoryError)
    return new TrainingError([`${stage}: ${error.message}`, ...advice].join('\n'), { cause: error });
  if (error instanceof DeviceLostError) return new DeviceLostError(error.reason, [error.details, ...advice].join('\n'));
  return error;
}
