/** One step of reflow at the full size of Stable Diffusion 1.5, with weights that are drawn: time, and memory by part. */
import { builtIn } from '../src/flow/estimate/outline.ts';
import type { ModelOutline } from '../src/flow/estimate/outline.ts';
import { rehearseStep, trainStep } from '../src/flow/estimate/train-step.ts';
import type { StepMemory, StepPlan, StepReport } from '../src/flow/estimate/train-step.ts';
import { stepTable } from '../src/cli/estimate-step.ts';
import { bytes, seconds } from '../src/cli/units.ts';
import type { Module } from '../src/nn/index.ts';
import { currentGpu } from '../src/tensor/index.ts';
import { normal } from '../src/tensor/random.ts';

/** A step that was made, beside what was expected of it. */
export interface Step {
  name: string;
  expected: StepMemory;
  measured: StepReport;
  /** Most memory of the process, with JavaScript's and, on a software adapter, the GPU's: bytes. */
  resident: number;
}

/** The steps of `npm run bench -- step` and `-- step-lora`. */
export const STEPS: Record<string, StepPlan> = {
  step: { gradientCheckpointing: true },
  'step-lora': { gradientCheckpointing: true, rank: 4 },
};

/** @throws Error when the loss or the gradient is not a number, or memory is not within 15 % of what was expected */
export async function measureStep(
  name: string,
  { outline = builtIn.sd15, plan = STEPS[name] }: { outline?: ModelOutline; plan?: StepPlan } = {},
  print: (text: string) => void = console.log,
): Promise<Step> {
  const { memory: expected } = await rehearseStep(outline, plan);
  print(`${bytes(expected.peak)} expected`);
  const measured = await trainStep(outline, plan, drawWeights);
  const resident = 1024 * process.resourceUsage().maxRSS;
  const step = { name, expected, measured, resident };
  print(stepText(step));
  const [{ loss, gradNorm }] = measured.log;
  if (!(Number.isFinite(loss) && gradNorm > 0 && gradNorm < Infinity))
    throw new Error(`${name}: the loss is ${loss}, the norm of the gradients ${gradNorm}`);
  if (Math.abs(measured.memory.peak / expected.peak - 1) > 0.15)
    throw new Error(`${name}: took ${bytes(measured.memory.peak)}, not ${bytes(expected.peak)} within 15 %`);
  return step;
}

export function stepText({ name, expected, measured, resident }: Step): string {
  const [{ loss, gradNorm }] = measured.log;
  return [
    ...stepTable(measured, expected),
    `${name}: ${measured.seconds.map(seconds).join(', ')}, loss ${loss.toPrecision(4)}, |g| ${gradNorm.toPrecision(4)}, process ${bytes(resident)} at its most`,
  ].join('\n');
}

/** Enough different numbers; the rest repeats them. */
const DRAWN = 65_521;

/**
 * Weights as they begin, without the minutes that drawing each would take: N(0, 1 / inputs) by repeating a row of numbers,
 * gains 1, biases 0. What waits to be uploaded is on the host, so not much of it at a time.
 */
export async function drawWeights(module: Module): Promise<void> {
  const drawn = normal(1, 'weights', DRAWN);
  let waiting = 0;
  for (const [key, p] of module.namedParameters()) {
    const [O] = p.shape;
    const deviation = 1 / Math.sqrt(p.size / O);
    const numbers = new Float32Array(p.size);
    if (p.shape.length === 1) numbers.fill(key.endsWith('weight') ? 1 : 0);
    else for (let i = 0; i < p.size; i++) numbers[i] = deviation * drawn[i % DRAWN];
    p.array.write(numbers);
    waiting += 4 * p.size;
    if (waiting < 2 ** 28) continue;
    await currentGpu().idle();
    waiting = 0;
  }
  await currentGpu().idle();
}
