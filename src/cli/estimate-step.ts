/** `estimate --train`: what a training step takes, as tables and sentences. */
import type { ModelOutline } from '../flow/estimate/outline.ts';
import { rehearseStep } from '../flow/estimate/train-step.ts';
import type { StepMemory, StepPlan, StepReport } from '../flow/estimate/train-step.ts';
import { lossTypes } from '../flow/losses.ts';
import { choice, flag, int } from './command.ts';
import type { Values } from './command.ts';
import * as show from './units.ts';

/** Of training, by the names that `train` has for them. */
export const stepFlags = {
  train: flag(false, 'a step of reflow instead of an image, with these flags as for train:'),
  train_batch_size: int(1, 'images in a forward pass', { min: 1 }),
  gradient_accumulation_steps: int(1, 'batches in a step', { min: 1 }),
  gradient_checkpointing: flag(false, 'compute the U-Net again in backward'),
  mixed_precision: choice('no', ['no', 'fp16'], 'activations in half precision'),
  rank: int(undefined, 'a LoRA of this rank learns, not the network', { min: 1 }),
  use_ema: flag(false, 'keep an average of the weights'),
  loss_type: choice('l2', lossTypes, 'lpips and lpl look through the decoder'),
};

/** What `estimate --train` is asked. */
export type StepFlags = Values<typeof stepFlags> & { height?: number; width?: number; json: boolean };

/** What a step takes, whether that is there, and what else would fit. */
export async function estimateStep(outline: ModelOutline, flags: StepFlags, available?: number): Promise<string[]> {
  const plan = planOf(flags);
  const report = await rehearseStep(outline, plan);
  const { seconds: _, log: __, ...figures } = report;
  const isEnough = (memory: StepMemory) => available === undefined || memory.peak <= available;
  const fits = isEnough(report.memory);
  if (flags.json) return [JSON.stringify({ model: outline.name, ...figures, available, fits }, null, 2)];
  const lines = [stepTitle(outline.name, report, plan), ...stepTable(report).map((line) => `  ${line}`)];
  if (available !== undefined) lines.push(`available ${show.bytes(available)}`);
  if (fits) return [...lines, available === undefined ? 'nothing tells how much this GPU has; give --memory' : 'fits'];
  lines.push(
    `does not fit: ${show.bytes(report.memory.peak)} of GPU memory needed, ${show.bytes(available!)} available`,
  );
  const ways: [boolean, string, StepPlan][] = [
    [!plan.gradientCheckpointing, '--gradient_checkpointing', { gradientCheckpointing: true }],
    [plan.batchSize! > 1, '--train_batch_size 1 with --gradient_accumulation_steps', { batchSize: 1, accumulationSteps: 2 }], // prettier-ignore
    [Boolean(plan.emaDecay), '--no-use_ema', { emaDecay: 0 }],
    [!plan.rank, '--rank 4', { rank: 4 }],
    [!plan.rank, '--rank 4 --gradient_checkpointing', { rank: 4, gradientCheckpointing: true }],
  ];
  const found: string[] = [];
  for (const [, words, change] of ways.filter(([isChange]) => isChange)) {
    const { memory } = await rehearseStep(outline, { ...plan, ...change });
    if (isEnough(memory)) found.push(`  try ${words}: ${show.bytes(memory.peak)}`);
  }
  return [...lines, ...(found.length ? found : ['  neither checkpointing nor a LoRA makes it fit'])];
}

const planOf = (flags: StepFlags): StepPlan => ({
  batchSize: flags.train_batch_size,
  accumulationSteps: flags.gradient_accumulation_steps,
  gradientCheckpointing: flags.gradient_checkpointing,
  mixedPrecision: flags.mixed_precision,
  rank: flags.rank,
  emaDecay: flags.use_ema ? 0.9999 : 0,
  loss: flags.loss_type,
  height: flags.height,
  width: flags.width,
});

const parts: [keyof StepMemory, string][] = [
  ['weights', 'weights'],
  ['frozen', 'decoder and LPIPS'],
  ['optimiser', 'optimiser'],
  ['gradients', 'gradients'],
  ['activations', 'activations'],
  ['peak', 'at the peak'],
];

/** Memory by part; beside it what was expected, where that is given. */
export function stepTable({ memory }: Pick<StepReport, 'memory'>, expected?: StepMemory): string[] {
  const rows = parts
    .filter(([part]) => memory[part] > 0)
    .map(([part, name]) => [name, show.bytes(memory[part]), ...(expected ? [show.bytes(expected[part])] : [])]);
  return show.table([['', expected ? 'measured' : 'memory', ...(expected ? ['expected'] : [])], ...rows]);
}

/** 'Stable Diffusion 1.5: a step of reflow, 1 image of 512 × 512, gradient checkpointing, LoRA of rank 4, 860 M …' */
function stepTitle(name: string, report: StepReport, plan: StepPlan): string {
  const { parameters, trained, height, width, batchSize } = report;
  const how = [
    `${batchSize} image${batchSize > 1 ? 's' : ''} of ${width} × ${height}`,
    ...(plan.loss && plan.loss !== 'l2' ? [`loss ${plan.loss}`] : []),
    ...(plan.gradientCheckpointing ? ['gradient checkpointing'] : []),
    ...(plan.mixedPrecision === 'fp16' ? ['fp16'] : []),
    ...(plan.accumulationSteps && plan.accumulationSteps > 1 ? [`${plan.accumulationSteps} times for a step`] : []),
    ...(plan.emaDecay ? ['EMA'] : []),
    ...(plan.rank ? [`LoRA of rank ${plan.rank}`] : []),
  ];
  const learn = trained === parameters ? 'all learn' : `${show.count(trained)} learn`;
  return `${name}: a training step, ${how.join(', ')}; ${show.count(parameters)} parameters, ${learn}`;
}
