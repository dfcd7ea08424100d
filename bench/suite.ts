/** The lines of `npm run bench`, part by part: what models and the comparison with other libraries really run. */
import { preset } from '../src/flow/recipe/recipe.ts';
import { flowLoss } from '../src/flow/rectified-flow.ts';
import { AdamW, EMA, UNet2DConditionModel } from '../src/nn/index.ts';
import { normal } from '../src/tensor/random.ts';
import * as T from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { opOf, training } from './calls.ts';
import { checkGradients, checkResult, clearGradients } from './check.ts';
import type { Line } from './measure.ts';
import { opLines } from './ops.ts';
import { bytesOf, flopOf, MODELS, operandsOf, sizeOf, WORKS } from './work.ts';
import type { Kind, Work, WorkOf } from './work.ts';

/** What `npm run bench` times; each name is an argument it takes. */
export const PARTS: Record<string, () => Line[]> = {
  matmul: () => linesOf(kinds('matmul')),
  conv: () => linesOf(kinds('conv')),
  attention: () => linesOf(kinds('attention')),
  norms: () => linesOf(kinds('groupNormSilu', 'layerNorm', 'softmax', 'add')),
  emoji: () => linesOf(MODELS.emoji),
  unet: () => linesOf(MODELS.unet),
  vae: () => linesOf(MODELS.vae),
  ops: opLines,
  training: () => [...kinds('train').map((work) => trainingLine(work as WorkOf<'train'>)), teacherLine()],
};

const kinds = (...wanted: Kind[]): Work[] => Object.values(WORKS).filter(({ kind }) => wanted.includes(kind));
const linesOf = (works: Work[]): Line[] => works.flatMap((work) => (work.kind === 'train' ? [] : linesOfOp(work)));

/** One line forward, one forward and backward: of Σ y, with gradients of every operand. */
function linesOfOp(work: Exclude<Work, WorkOf<'train'>>): Line[] {
  const op = opOf(work);
  const tensorsOf = () => {
    const operands = operandsOf(work);
    return { operands, tensors: operands.map(({ shape, data }) => T.keep(T.tensor(data, shape))) };
  };
  const free = (tensors: Tensor[]) => () => tensors.forEach((tensor) => tensor.dispose());
  const forward: Line = {
    name: nameOf(work),
    flop: flopOf(work),
    bytes: bytesOf(work),
    prepare() {
      const { operands, tensors } = tensorsOf();
      const run = () => T.noGrad(() => void op(tensors));
      return { run, check: () => checkResult(work, operands, tensors), dispose: free(tensors) };
    },
  };
  if (work.kind === 'add') return [forward]; // its gradient is a view
  const both: Line = {
    name: `${nameOf(work)}, forward + backward`,
    // Backward does twice the work, attention computes its scores once more; a norm reads dy and y and writes dx.
    flop: forward.flop && forward.flop * (work.kind === 'attention' ? 3.5 : 3),
    bytes: forward.bytes && forward.bytes * 2.5,
    prepare() {
      const { tensors } = tensorsOf();
      const run = () => {
        for (const x of tensors) x.requiresGrad = true;
        T.sum(op(tensors)).backward();
        clearGradients(tensors);
      };
      return { run, check: () => checkGradients(work, tensors), dispose: free(tensors) };
    },
  };
  return [forward, both];
}

function nameOf(work: Exclude<Work, WorkOf<'train'>>): string {
  switch (work.kind) {
    case 'matmul':
    case 'linear':
      return `${work.kind} [${work.M}, ${work.K}] × [${work.K}, ${work.N}]`;
    case 'conv':
      return `conv2d 3×3 [${work.B}, ${work.H}, ${work.W}, ${work.C}] → ${work.O}`;
    case 'attention':
      return `attention [${work.B}, ${work.heads}, ${work.Tq}, ${work.D}] over ${work.Tk}`;
    case 'groupNormSilu':
      return `groupNorm + silu [${work.B}, ${work.H}, ${work.W}, ${work.C}], ${work.groups} groups`;
    case 'layerNorm':
      return `layerNorm [${work.rows}, ${work.cols}]`;
    case 'softmax':
      return `softmax [${work.shape.join(', ')}]`;
    case 'add':
      return `add [${work.n}]`;
  }
}

function trainingLine(work: WorkOf<'train'>): Line {
  return {
    name: `training step, ${work.network === 'mlp' ? 'perceptron 784-512-256-10' : 'three convolutions'}, batch ${work.batch}`,
    flop: flopOf(work),
    prepare() {
      const { step, dispose } = training(work);
      return { run: () => void step(), check: () => checkFalls(step), dispose };
    },
  };
}

/** The shipped model's teacher: forward, backward, clipping, AdamW and EMA. */
export function teacher(batch: number): { step(): Tensor; parameters: number; dispose(): void } {
  const unet = new UNet2DConditionModel(preset('emoji').unet).initialize(1).requiresGrad(true);
  const parameters = unet.namedParameters();
  const ema = new EMA(parameters);
  const optimizer = new AdamW(parameters, { maxGradNorm: 1, ema });
  const random = (...shape: number[]) => T.keep(T.tensor(normal(1, shape.join(), sizeOf(shape)), shape));
  const { sample_size: side, in_channels: channels, cross_attention_dim: width } = unet.config;
  const [x, target] = [random(batch, side, side, channels), random(batch, side, side, channels)];
  const text = random(batch, 16, width);
  const timesteps = Array.from({ length: batch }, (_, i) => (1000 * (i + 0.5)) / batch);
  return {
    parameters: unet.parameterCount,
    step() {
      const loss = flowLoss(unet.forward(x, timesteps, text), target);
      loss.backward();
      optimizer.step();
      return loss;
    },
    dispose() {
      for (const tensor of [x, target, text, ...parameters.values()]) tensor.dispose();
      optimizer.dispose();
      ema.dispose();
    },
  };
}

function teacherLine(batch = 16): Line {
  return {
    name: `training step, the emoji model's teacher, batch ${batch}`,
    prepare() {
      const { step, dispose } = teacher(batch);
      return { run: () => void step(), check: () => checkFalls(step), dispose };
    },
  };
}

/** @throws when the loss does not fall within a few steps on the same batch */
async function checkFalls(step: () => Tensor): Promise<void> {
  const losses: number[] = [];
  for (let i = 0; i < 6; i++) losses.push(await T.scope(() => step().item()));
  if (!(losses[5] < losses[0]))
    throw new Error(`the loss does not fall: ${losses.map((x) => x.toPrecision(4)).join(', ')}`);
}
