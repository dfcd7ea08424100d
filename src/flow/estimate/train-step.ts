/**
 * A step of reflow at any size, and what it takes of memory by part. On paper (see `paperDevice`) that is an estimate; on an
 * adapter, with weights that are drawn, the measurement that the estimate is held to.
 */
import { Gpu } from '../../kernels/index.ts';
import { paperDevice } from '../../kernels/paper.ts';
import { AutoencoderKL, LPIPS } from '../../nn/index.ts';
import type { LPIPSNet, Module } from '../../nn/index.ts';
import { newLora } from '../../nn/lora.ts';
import { networkOf } from '../../nn/models/network.ts';
import { currentGpu, tensor, useGpu } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { normal } from '../../tensor/random.ts';
import { decodedDistance, decoderDistance } from '../decoded-distance.ts';
import { isPerceptual, makeLoss, wantsLpips } from '../losses.ts';
import type { LossType } from '../losses.ts';
import { velocityObjective } from '../objectives.ts';
import type { Points } from '../objectives.ts';
import { train } from '../trainer.ts';
import type { LogLine, TrainOptions } from '../trainer.ts';
import type { ModelOutline } from './outline.ts';

/** How the step trains. What is not given costs least: no average of the weights, one sample, L2. */
export interface StepPlan extends Partial<TrainOptions> {
  /** Pixels; the model's own unless given. */
  height?: number;
  width?: number;
  loss?: LossType;
  /** The network of LPIPS, for losses that look at images (alex). */
  lpips?: LPIPSNet;
}

/** Bytes on the GPU at the peak of a step. */
export interface StepMemory {
  /** Of the network, whether it learns or not. */
  weights: number;
  /** Of decoder and LPIPS, for losses that look through them. */
  frozen: number;
  /** Its two averages, EMA, and what learns in place of the network (a LoRA). */
  optimiser: number;
  gradients: number;
  /** What the forward pass keeps for backward, the batch, and what backward needs on its way. */
  activations: number;
  peak: number;
}

/** What a step takes. */
export interface StepReport {
  parameters: number;
  /** Numbers that learn. */
  trained: number;
  memory: StepMemory;
  height: number;
  width: number;
  batchSize: number;
  /** Of the first step, and of each step after it; empty on paper. */
  seconds: number[];
  log: LogLine[];
}

/** What it would take on `gpu`, without any memory. */
export async function rehearseStep(
  outline: ModelOutline,
  plan: StepPlan = {},
  gpu = currentGpu(),
): Promise<StepReport> {
  const before = currentGpu();
  useGpu(Gpu.on(paperDevice(gpu)));
  try {
    const report = await trainStep(outline, { ...plan, steps: 1 }, () => {});
    return { ...report, seconds: [], log: [] };
  } finally {
    useGpu(before);
  }
}

/**
 * One step, or `plan.steps`, on the current adapter. `fill` gives each network its weights; parameters begin at zero.
 * Everything is freed afterwards.
 */
export async function trainStep(
  { name, kind, network: config, vae: vaeConfig }: ModelOutline,
  { height, width, loss = 'l2', lpips: net = 'alex', ...options }: StepPlan,
  fill: (module: Module) => void | Promise<void>,
): Promise<StepReport> {
  if (kind === 'refiner')
    throw new RangeError(`${name}: there is no training of the refiner\n  U-Nets of Stable Diffusion 1.x train`);
  const gpu = currentGpu();
  const start = gpu.memory().live;
  const made: Module[] = [];
  const make = async <M extends Module>(module: M): Promise<M> => {
    made.push(module);
    await fill(module);
    return module;
  };
  try {
    const unet = await make(networkOf(config));
    unet.gradientCheckpointing = options.gradientCheckpointing ?? false;
    const lpips = wantsLpips(loss) ? await make(new LPIPS(net)) : undefined;
    const vae = isPerceptual(loss) ? await make(new AutoencoderKL(vaeConfig)) : undefined;
    if (vae) vae.gradientCheckpointing = unet.gradientCheckpointing;
    const frozen = (lpips ? bytesOf(lpips) : 0) + (vae ? bytesOf(vae) : 0);
    const { sample_size: side, out_channels: channels, cross_attention_dim: textWidth } = unet.config;
    const factor = 2 ** ((vaeConfig.block_out_channels?.length ?? 4) - 1);
    const shape = [Math.ceil((height ?? side * factor) / factor), Math.ceil((width ?? side * factor) / factor), channels] as const; // prettier-ignore
    const { batchSize = 1 } = options;
    const objective = velocityObjective({
      ...{ shape, times: { distribution: 'uniform' }, seed: 1, stream: 'step' },
      loss: makeLoss({ type: loss }, vae && (lpips ? decodedDistance(vae, lpips) : decoderDistance(vae))),
      timeWaves: (timesteps) => unet.timeWaves(timesteps),
    });
    const size = batchSize * shape[0] * shape[1] * channels;
    const words = normal(1, 'text', batchSize * TOKENS * textWidth);
    const batchBytes = 4 * (words.length + 2 * size); // text, xt and target; times are next to nothing
    const trained = options.rank ? loraSize(unet, options.rank) : unet.parameterCount;
    const parameters = [...unet.namedParameters().values()]; // with mixed precision halves stand in their place
    let [weights, optimiser] = [0, 0];
    const task = {
      name: 'step',
      modules: { unet },
      batch: (step: number): Tensor[] => [
        tensor(words, [batchSize, TOKENS, textWidth]),
        ...objective.points(normal(1, 'x0', size, step * size), normal(1, 'x1', size, step * size), step),
      ],
      loss(text: Tensor, ...points: Tensor[]): Tensor {
        // Recorded once, when all that stays over the steps is there, and the batch.
        weights = bytes(parameters);
        optimiser = gpu.memory().live - start - weights - frozen - batchBytes;
        return objective.loss(unet.forward(points[0], points[1], text), points as unknown as Points);
      },
    };
    await gpu.idle();
    await gpu.trim();
    gpu.resetPeak();
    const log: LogLine[] = [];
    let peak = 0;
    await train(
      task,
      { ...least, ...options, batchSize },
      {
        log(line) {
          log.push(line);
          peak = gpu.memory().peak - start;
        },
      },
    );
    const gradients = 4 * trained;
    const activations = peak - weights - frozen - optimiser - gradients;
    return {
      ...{ parameters: unet.parameterCount, trained, batchSize, log },
      ...{ height: shape[0] * factor, width: shape[1] * factor },
      memory: { weights, frozen, optimiser, gradients, activations, peak },
      seconds: log.map(({ seconds }, i) => seconds - (log[i - 1]?.seconds ?? 0)),
    };
  } finally {
    for (const module of made) module.dispose();
  }
}

/** On the GPU, where sizes are rounded up. */
const bytes = (parameters: readonly Tensor[]): number =>
  parameters.flatMap(({ array }) => array.parts ?? [array]).reduce((n, { storage }) => n + storage.bytes, 0);

const bytesOf = (module: Module): number => bytes([...module.namedParameters().values()]);

/** Numbers in a LoRA as the trainer makes one. */
function loraSize(unet: Module, rank: number): number {
  const lora = newLora({ unet }, { rank });
  try {
    return lora.parameterCount;
  } finally {
    lora.dispose();
  }
}

/** CLIP's. */
const TOKENS = 77;

const least: TrainOptions = {
  steps: 1,
  batchSize: 1,
  learningRate: 1e-6,
  scheduler: 'constant',
  warmupSteps: 0,
  maxGradNorm: 1,
  weightDecay: 1e-2,
  emaDecay: 0,
  checkpointingSteps: Infinity,
};
