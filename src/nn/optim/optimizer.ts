import { prepareStep, StepBuffers } from '../../kernels/optimizer.ts';
import type { GpuArray } from '../../kernels/index.ts';
import { currentGpu } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { fromCheckpoint, toCheckpoint } from '../layout.ts';
import { Parameter } from '../module.ts';
import { StateDictError } from '../state-dict.ts';
import type { StateDict } from '../module.ts';
import type { EMA } from './ema.ts';

/** What all optimisers take. */
export interface OptimizerOptions {
  /** Learning rate (0.001); `step({ lr })` may say another. */
  lr?: number;
  /** How strongly weights are drawn to zero. */
  weightDecay?: number;
  /** Scale all gradients down together when their norm exceeds this. */
  maxGradNorm?: number;
  /** Averages to keep in the same pass over the weights. */
  ema?: EMA;
}

/** What happened, as far as the GPU has come. */
export interface StepReport {
  /** Norm of all gradients of the last step, before clipping. */
  gradNorm: number;
  /** False when a gradient was NaN or infinite; such a step changes nothing. */
  finite: boolean;
  /** Steps that changed nothing, and steps that did, ever. */
  skipped: number;
  steps: number;
}

/** Moves parameters against their gradients. All of a step is on the GPU; only `report()` reads back. */
export abstract class Optimizer {
  /** Learning rate of steps that name none. */
  lr: number;
  /** What the loss is multiplied by before `backward()`: gradients are divided by it. See `LossScale`. */
  lossScale = 1;
  protected readonly buffers = new StepBuffers(currentGpu());
  /** What is remembered of each parameter, by key. */
  protected readonly slots = new Map<string, Record<string, GpuArray>>();
  protected readonly ema: EMA | undefined;
  readonly #maxGradNorm: number | undefined;

  constructor(
    readonly parameters: ReadonlyMap<string, Tensor>,
    { lr = 1e-3, weightDecay = 0, maxGradNorm, ema }: OptimizerOptions,
    slotNames: readonly string[],
  ) {
    wantRange('lr', lr);
    wantRange('weightDecay', weightDecay);
    if (maxGradNorm !== undefined) wantRange('maxGradNorm', maxGradNorm);
    this.lr = lr;
    this.#maxGradNorm = maxGradNorm;
    this.ema = ema;
    for (const [key, p] of parameters) {
      this.slots.set(key, Object.fromEntries(slotNames.map((name) => [name, currentGpu().zeros(p.shape)])));
    }
  }

  protected betas: readonly [number, number] | undefined;

  /** The kernel for one parameter. */
  protected abstract update(p: GpuArray, g: GpuArray, slots: Record<string, GpuArray>, ema: GpuArray | undefined): void;

  /**
   * One step by the gradients that `backward()` left, which are then freed; with `setToNone: false` they are kept as zeros,
   * for the next `backward()` to add to.
   */
  step({ setToNone = true } = {}): void {
    wantRange('lr', this.lr);
    wantRange('lossScale', this.lossScale);
    const given = [...this.parameters].filter(([, p]) => p.grad);
    if (!given.length)
      throw new Error(
        'optimizer: no parameter has a gradient\n  call requiresGrad(true) before and backward() after the forward pass',
      );
    for (const [key, p] of given) {
      if (p.dtype !== 'f32')
        throw new Error(
          `optimizer: ${key} is ${p.dtype}, and small steps would be rounded away\n  train in f32, and convert what is only run: module.to('f16')`,
        );
    }
    this.buffers.feed(() => ({
      rate: this.lr,
      maxNorm: this.#maxGradNorm,
      emaDecay: this.ema?.advance(),
      lossScale: this.lossScale,
    }));
    prepareStep(
      this.buffers,
      given.map(([, p]) => p.grad!.array),
      this.betas,
    );
    for (const [key, p] of given) {
      this.update(p.array, p.grad!.array, this.slots.get(key)!, this.ema?.shadow.get(key)?.array);
      if (!setToNone) {
        currentGpu().clear(p.grad!.array);
        continue;
      }
      p.grad!.dispose();
      p.grad = undefined;
    }
  }

  /** Wait for the GPU and see how the last step went. */
  async report(): Promise<StepReport> {
    const { norm, finite, skipped, steps } = await this.buffers.read();
    return { gradNorm: norm, finite: finite === 1, skipped, steps };
  }

  /** `<key>.<slot>` in the checkpoint's layout, and `steps`: all that is needed to go on. */
  async stateDict(): Promise<StateDict> {
    const { steps, skipped } = await this.buffers.read();
    const state: StateDict = { steps: { shape: [2], data: Float32Array.of(steps, skipped) } };
    for (const [key, slots] of this.slots) {
      for (const [name, array] of Object.entries(slots)) {
        state[`${key}.${name}`] = toCheckpoint(
          (await array.read()) as Float32Array,
          array.shape,
          layoutOf(this.parameters.get(key)!),
        );
      }
    }
    return state;
  }

  /** Go on from a saved state. @throws StateDictError when it belongs to other parameters */
  loadStateDict(state: StateDict): void {
    const wrong: string[] = [];
    const loaded: [GpuArray, Float32Array][] = [];
    for (const [key, slots] of this.slots) {
      for (const [name, array] of Object.entries(slots)) {
        const tensor = state[`${key}.${name}`];
        const data = tensor && fromCheckpoint(tensor, array.shape, layoutOf(this.parameters.get(key)!));
        if (data) loaded.push([array, data]);
        else wrong.push(`${key}.${name}`);
      }
    }
    if (!state.steps) wrong.push('steps');
    if (wrong.length) {
      throw new StateDictError(
        `optimizer: this state belongs to other parameters\n  missing or of another shape: ${wrong.slice(0, 8).join(', ')}`,
      );
    }
    for (const [array, data] of loaded) array.write(data);
    const [steps, skipped] = state.steps.data;
    this.buffers.restore({ steps, skipped });
  }

  /** Free what is remembered of the parameters; not the parameters. */
  dispose(): void {
    for (const slots of this.slots.values()) for (const array of Object.values(slots)) array.dispose();
    this.buffers.dispose();
  }

  /** For `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** @throws when `value` is not a number from 0 and below `limit` */
export function wantRange(name: string, value: number, limit = Infinity): void {
  if (value >= 0 && value < limit) return;
  throw new RangeError(
    `optimizer: ${name} is ${value}, must be 0 or more${limit < Infinity ? ` and below ${limit}` : ''}`,
  );
}

const layoutOf = (p: Tensor) => (p instanceof Parameter ? p.layout : 'same');
