/**
 * A run on paper: the pipeline itself, on a device without memory, with weights that are only sizes. What it would take and
 * do is then known exactly: bytes at the peak, every op with its shapes.
 */
import { Gpu, ShapeError } from '../../kernels/index.ts';
import type { DType, GpuArray } from '../../kernels/index.ts';
import { paperDevice } from '../../kernels/paper.ts';
import { AutoencoderKL, CLIPTextModel, UNet2DConditionModel } from '../../nn/index.ts';
import { ControlNetModel } from '../../nn/models/controlnet.ts';
import type { ControlNetConfig } from '../../nn/models/controlnet-config.ts';
import { SafetyChecker } from '../../nn/models/safety-checker.ts';
import { networkOf } from '../../nn/models/network.ts';
import type { Network } from '../../nn/models/network.ts';
import { parametersAs } from '../../nn/module.ts';
import type { Module } from '../../nn/module.ts';
import { currentGpu, useGpu } from '../../tensor/index.ts';
import { Pipeline } from '../pipeline.ts';
import type { SampleResult } from '../pipelines/options.ts';
import { RefinerPipeline } from '../pipelines/refiner.ts';
import type { ModelOutline } from './outline.ts';
import { flopsOf } from './work.ts';
import type { OpCall } from './work.ts';

/** A model, or what is asked of it, is more than the adapter can hold. */
export class DoesNotFitError extends Error {
  override name = 'DoesNotFitError';
}

/** What of a pipeline is at work. */
export const stages = ['text', 'encoder', 'network', 'decoder', 'safety'] as const;
export type Stage = (typeof stages)[number];

/** What is to be drawn. */
export interface Plan {
  /** Images. */
  count?: number;
  batchSize?: number;
  steps?: number;
  guidanceScale?: number;
  height?: number;
  width?: number;
  scheduler?: string;
  /** Side of the autoencoder's tiles in pixels. */
  vaeTile?: number;
  /** How weights and activations are kept. */
  dtype?: 'f32' | 'f16';
  /** Begin with an image, at this strength. */
  strength?: number;
  /** Paint only where a mask says. */
  mask?: boolean;
  /** Configurations of ControlNets. */
  controls?: readonly Partial<ControlNetConfig>[];
}

/** A part of a model. */
export interface PartSize {
  parameters: number;
  /** Bytes on the GPU. */
  bytes: number;
}

/** What a run takes, and what it does. */
export interface Rehearsal {
  parts: Record<'textEncoder' | 'network' | 'vae' | 'controls' | 'safetyChecker', PartSize>;
  /** Most bytes on the GPU at a time, and when. */
  peak: number;
  peakIn: Stage;
  calls: Record<Stage, OpCall[]>;
  flops: Record<Stage, number>;
  /** Dispatches of kernels. */
  dispatches: number;
  /** Of the network, for one batch; with guidance each works on twice the batch. */
  evaluations: number;
  height: number;
  width: number;
  steps: number;
  guidanceScale: number;
  count: number;
  dtype: 'f32' | 'f16';
  /** Why this adapter cannot run it, whatever memory it has. */
  refused?: string;
}

/**
 * Run on paper what `sample` would run on `gpu`.
 * @throws PromptError for sizes and schedulers that the model does not take, DoesNotFitError for gigantic images
 */
export async function rehearse(outline: ModelOutline, plan: Plan = {}, gpu: Gpu = currentGpu()): Promise<Rehearsal> {
  try {
    return await onPaper(Gpu.on(paperDevice(gpu)), outline, plan);
  } catch (error) {
    if (!(error instanceof ShapeError)) throw error;
    const limits = { maxBufferSize: Infinity, maxStorageBufferBindingSize: Infinity };
    return { ...(await onPaper(Gpu.on(paperDevice(gpu, limits)), outline, plan)), refused: error.message };
  }
}

async function onPaper(paper: Gpu, outline: ModelOutline, plan: Plan): Promise<Rehearsal> {
  const before = currentGpu();
  useGpu(paper);
  try {
    const { dtype = 'f32' } = plan;
    const make = <M extends Module>(module: () => M): [M, PartSize] => {
      const taken = paper.memory().live;
      const made = parametersAs(dtype, module);
      return [made, { parameters: made.parameterCount, bytes: paper.memory().live - taken }];
    };
    const projection = outline.kind === 'refiner';
    const [textEncoder, textSize] = make(() => new CLIPTextModel(outline.textEncoder, { projection }));
    const [vae, vaeSize] = make(() => new AutoencoderKL(outline.vae));
    const [network, networkSize] = make(() => networkOf(outline.network));
    const controls = (plan.controls ?? []).map((config) => make(() => new ControlNetModel(config)));
    const [safetyChecker, safetySize] = outline.safetyChecker
      ? make(() => new SafetyChecker(outline.safetyChecker))
      : [undefined, { parameters: 0, bytes: 0 }];
    const log = new Log(paper);
    log.during('text', textEncoder, 'forward');
    log.during('encoder', vae, 'moments');
    log.during('decoder', vae, 'decode');
    if (safetyChecker) log.during('safety', safetyChecker, 'embed');
    const parts = { textEncoder, vae, network, safetyChecker, controls: controls.map(([net]) => net) };
    const result = await run(outline, plan, parts);
    const controlSize = {
      parameters: controls.reduce((n, [, { parameters }]) => n + parameters, 0),
      bytes: controls.reduce((n, [, { bytes }]) => n + bytes, 0),
    };
    return {
      parts: {
        textEncoder: textSize,
        network: networkSize,
        vae: vaeSize,
        controls: controlSize,
        safetyChecker: safetySize,
      },
      ...log.result(),
      peak: paper.memory().peak,
      dispatches: paper.dispatches,
      evaluations: result.evaluations,
      height: result.height,
      width: result.width,
      steps: result.steps,
      guidanceScale: result.guidanceScale,
      count: result.count,
      dtype,
    };
  } finally {
    useGpu(before);
  }
}

/** Numbers on the host are real, on paper too. */
const MOST_PIXELS = 2 ** 24;

/** Any words are as many tokens. */
const tokenizer = (length: number) => ({
  maxLength: length,
  encode: () => ({ ids: new Int32Array(length), length, cut: '' }),
  encodeBatch: (texts: readonly string[]) => ({
    ids: new Int32Array(texts.length * length),
    lengths: texts.map(() => length),
    cut: texts.map(() => ''),
  }),
});

interface Parts {
  textEncoder: CLIPTextModel;
  vae: AutoencoderKL;
  network: Network;
  controls: ControlNetModel[];
  safetyChecker?: SafetyChecker;
}

function run(outline: ModelOutline, plan: Plan, { textEncoder, vae, network, ...parts }: Parts): Promise<SampleResult> {
  const { count = 1, batchSize, scheduler, strength, vaeTile } = plan;
  const { steps = outline.defaults.steps, guidanceScale = outline.defaults.guidanceScale } = plan;
  const side = network.config.sample_size * vae.factor;
  const { height = side, width = side } = plan;
  if (height * width > MOST_PIXELS)
    throw new DoesNotFitError(
      `does not fit: an image of ${width} × ${height}
  at most ${MOST_PIXELS / 2 ** 20} megapixels are drawn`,
    );
  const words = tokenizer(textEncoder.config.max_position_embeddings);
  const common = { textEncoder, vae, tokenizer: words, safetyChecker: parts.safetyChecker };
  const prompts = Array<string>(count).fill('anything');
  const asked = { prompts, seeds: 0, steps, guidanceScale, batchSize, scheduler, height, width, vaeTile };
  const image = new Float32Array(height * width * 3);
  if (outline.kind === 'refiner' && network instanceof UNet2DConditionModel) {
    const refiner = new RefinerPipeline({ ...common, network, scheduler: outline.scheduler! });
    const images = new Float32Array(count * image.length);
    return refiner.refine({ ...asked, images, strength });
  }
  const pipeline = new Pipeline({ ...common, networks: { unet: network }, defaults: {}, scheduler: outline.scheduler });
  const mask = plan.mask ? new Float32Array(height * width) : undefined;
  const controls = parts.controls.map((net) => ({ net, image }));
  return pipeline.sample({ ...asked, controls, ...(strength !== undefined || mask ? { image, strength, mask } : {}) });
}

/** Counts ops by what is at work, and notes when memory was last at its most. */
class Log {
  readonly #calls: Record<Stage, Map<string, OpCall>> = {
    text: new Map(),
    encoder: new Map(),
    network: new Map(),
    decoder: new Map(),
    safety: new Map(),
  };
  /** The network, and what solvers and guidance do around it, unless something else is. */
  #now: Stage = 'network';
  #peak = 0;
  #peakIn: Stage = 'text';

  constructor(gpu: Gpu) {
    gpu.witness = (op, inputs, attrs, output) => {
      const { peak } = gpu.memory();
      if (peak > this.#peak) [this.#peak, this.#peakIn] = [peak, this.#now];
      if (inputs.some((x) => x?.storage === output.storage) && !output.parts) return; // a view
      const [operands, made] = [inputs.map((x) => x && described(x)), described(output)];
      const key = JSON.stringify([op.name, operands, attrs]);
      const calls = this.#calls[this.#now];
      const known = calls.get(key);
      if (known) known.count++;
      else calls.set(key, { op, inputs: operands, attrs, output: made, count: 1 });
    };
  }

  /** What this method of the module does belongs to `stage`. */
  during<M extends Module>(stage: Stage, module: M, method: keyof M & string): void {
    const original = module[method] as (...args: unknown[]) => unknown;
    module[method] = ((...args: unknown[]) => {
      const before = this.#now;
      this.#now = stage;
      try {
        return original.apply(module, args);
      } finally {
        this.#now = before;
      }
    }) as M[typeof method];
  }

  result(): Pick<Rehearsal, 'calls' | 'flops' | 'peakIn'> {
    const each = <T>(of: (stage: Stage) => T) =>
      Object.fromEntries(stages.map((stage) => [stage, of(stage)])) as Record<Stage, T>;
    const calls = each((stage) => [...this.#calls[stage].values()]);
    const flops = each((stage) => calls[stage].reduce((sum, call) => sum + call.count * flopsOf(call), 0));
    return { calls, flops, peakIn: this.#peakIn };
  }
}

const described = ({ shape, dtype }: GpuArray): { shape: readonly number[]; dtype: DType } => ({ shape, dtype });
