/** One optimiser step of a training task: batches, precision, gradients; recorded once and replayed. */
import { AdamW, EMA } from '../nn/index.ts';
import type { Module, StateDict } from '../nn/index.ts';
import { autocast } from '../nn/autocast.ts';
import { LossScale } from '../nn/optim/loss-scale.ts';
import { compile, currentGpu, mul, scope, tensor, Tensor } from '../tensor/index.ts';
import { LoraTraining } from './lora-training.ts';
import type { Checkpoint, TrainOptions, TrainTask } from './trainer.ts';
import { TrainingError } from './training-error.ts';

/** What a step came to. */
export interface Learned {
  /** Mean over the batches of the step. */
  loss: number;
  gradNorm: number;
  /** False when the loss or a gradient was not a number; then nothing was changed. */
  finite: boolean;
}

/** What is trained, its optimiser and averages, and the recorded step. */
export class Learner {
  readonly parameters: ReadonlyMap<string, Tensor>;
  readonly ema: EMA | undefined;
  readonly lossScale: LossScale | undefined;
  readonly #optimizer: AdamW;
  readonly #lora: LoraTraining | undefined;
  readonly #batches: number;
  /** Scaled gradients of a batch, and the step when there is but one batch to it. */
  readonly #learn: ReturnType<typeof compile<Tensor[], Tensor>>;
  /** The step from the gradients of several batches. */
  readonly #update: ReturnType<typeof compile<[], void>>;

  constructor(
    readonly task: TrainTask,
    options: TrainOptions,
  ) {
    const { rank, accumulationSteps = 1, mixedPrecision = 'no', emaDecay, emaWarmup, maxGradNorm } = options;
    this.#batches = accumulationSteps;
    this.lossScale = mixedPrecision === 'fp16' ? new LossScale() : undefined;
    this.#lora = rank ? new LoraTraining(task, rank, mixedPrecision) : undefined;
    for (const module of this.#trained) module.requiresGrad(true);
    this.parameters = this.#lora?.parameters ?? namedParameters(task.modules);
    if (emaDecay > 0)
      this.ema = new EMA(this.parameters, { decay: emaDecay, useEmaWarmup: Boolean(emaWarmup), ...emaWarmup });
    this.#optimizer = new AdamW(this.parameters, {
      lr: options.learningRate,
      weightDecay: options.weightDecay,
      betas: options.betas,
      eps: options.epsilon,
      maxGradNorm: maxGradNorm || undefined,
      ema: this.ema,
    });
    this.#learn = compile((scale: Tensor, ...batch: Tensor[]) => {
      const loss = this.#backward(scale, batch);
      if (this.#batches === 1) this.#optimizer.step();
      return loss;
    });
    this.#update = compile(() => this.#optimizer.step({ setToNone: false }));
  }

  /** Before the first step. */
  async prepare(): Promise<void> {
    await this.#lora?.narrow();
  }

  get #trained(): Module[] {
    return this.#lora ? [this.#lora.lora] : Object.values(this.task.modules);
  }

  /** Gradients of `scale` times the loss. */
  #backward(scale: Tensor, batch: readonly Tensor[]): Tensor {
    if (!this.lossScale && this.#batches === 1) {
      const loss = this.task.loss(...batch);
      loss.backward();
      return loss;
    }
    return this.#inPrecision(() => {
      const loss = this.task.loss(...batch);
      mul(loss, scale).backward();
      return loss;
    });
  }

  #inPrecision<T>(run: () => T): T {
    if (!this.lossScale) return run();
    return autocast([...Object.values(this.task.modules), ...(this.#lora ? [this.#lora.lora] : [])], run);
  }

  /** The n-th optimiser step. */
  async step(n: number, lr: number): Promise<Learned> {
    const scale = this.lossScale?.scale ?? 1;
    Object.assign(this.#optimizer, { lr, lossScale: scale });
    if (this.#batches > 1) this.#keepGradients();
    const losses = Array.from({ length: this.#batches }, (_, i) =>
      scope(() => this.#learn(tensor(scale / this.#batches), ...this.task.batch(n * this.#batches + i))),
    );
    if (this.#batches > 1) {
      this.#dropUntouched();
      this.#update();
    }
    let loss = 0;
    for (const value of losses) {
      loss += (await value.item()) / this.#batches;
      value.dispose();
    }
    const { gradNorm, finite } = await this.#optimizer.report();
    this.lossScale?.update(finite);
    return { loss, gradNorm, finite: finite && Number.isFinite(loss) };
  }

  /** Zeros that the backward passes of a step add to. */
  #kept: Map<Tensor, Tensor> | undefined;

  #keepGradients(): void {
    if (this.#kept) return;
    this.#kept = new Map();
    for (const p of this.parameters.values()) {
      p.grad = new Tensor(currentGpu().zeros(p.shape));
      this.#kept.set(p, p.grad);
    }
  }

  /** A parameter that the loss does not depend on is left alone, as with one batch. */
  #dropUntouched(): void {
    for (const [p, zeros] of this.#kept!) {
      if (p.grad !== zeros) continue;
      zeros.dispose();
      p.grad = undefined;
    }
    this.#kept!.clear();
  }

  /** The forward and backward passes of the n-th step once more, one by one and not recorded. `watch` runs the pass. */
  *repeat(n: number): Generator<{ batch: readonly Tensor[]; pass(watch: <T>(run: () => T) => T): Tensor }> {
    for (let i = 0; i < this.#batches; i++) {
      for (const p of this.parameters.values()) p.grad = (p.grad?.dispose(), undefined);
      const batch = this.task.batch(n * this.#batches + i);
      const scale = tensor((this.lossScale?.scale ?? 1) / this.#batches);
      yield { batch, pass: (watch) => scope(() => watch(() => this.#backward(scale, batch))) };
      for (const t of [scale, ...batch]) t.dispose();
    }
  }

  /** Weights, optimiser, averages and loss scale. */
  async collect(): Promise<Pick<Checkpoint, 'tensors' | 'lossScale' | 'emaSteps'>> {
    const tensors: StateDict = {};
    for (const [key, p] of this.parameters)
      tensors[`model.${key}`] = { shape: [...p.shape], data: (await p.read()) as Float32Array };
    const add = (prefix: string, state: StateDict) => {
      for (const [key, value] of Object.entries(state)) tensors[`${prefix}.${key}`] = value;
    };
    add('optimizer', await this.#optimizer.stateDict());
    if (this.ema) add('ema', await this.ema.stateDict());
    return { tensors, lossScale: this.lossScale?.state, emaSteps: this.ema?.steps };
  }

  /** @throws TrainingError when the checkpoint is of other networks */
  restore({ tensors, step, lossScale, emaSteps = step }: Checkpoint): void {
    const part = (prefix: string) =>
      Object.fromEntries(
        Object.entries(tensors).flatMap(([key, value]) =>
          key.startsWith(`${prefix}.`) ? [[key.slice(prefix.length + 1), value]] : [],
        ),
      );
    const model = part('model');
    for (const [key, p] of this.parameters) {
      const saved = model[key];
      if (!saved || saved.data.length !== p.size) {
        throw new TrainingError(
          `the checkpoint does not fit the model: ${key}\n  train in another --output_dir, or with --resume_from_checkpoint none`,
        );
      }
      p.array.write(saved.data);
    }
    this.#optimizer.loadStateDict(part('optimizer'));
    // A run that goes on with averages or another precision has none saved: an average begins with its first update.
    const averages = part('ema');
    if (Object.keys(averages).length) this.ema?.loadStateDict(averages, { steps: emaSteps });
    if (this.lossScale && lossScale) this.lossScale.state = lossScale;
  }

  /** Put the averages in place of the weights, or back. */
  swapAverages(): void {
    this.ema?.swap(this.parameters);
  }

  /** After the last step: averaged weights, and a LoRA's product, into the networks. @returns the LoRA, if one was trained */
  async finish(): Promise<{ tensors: StateDict; metadata: Record<string, string> } | undefined> {
    this.ema?.copyTo(this.parameters);
    return this.#lora?.finish();
  }

  dispose(): void {
    for (const p of this.parameters.values()) p.grad = (p.grad?.dispose(), undefined);
    for (const module of this.#trained) module.requiresGrad(false);
    this.#learn.dispose();
    this.#update.dispose();
    this.ema?.dispose();
    this.#optimizer.dispose();
    this.#lora?.dispose();
  }
}

/** All parameters of several modules, as `<module>.<key>`. */
export function namedParameters(modules: Record<string, Module>): Map<string, Tensor> {
  const all = new Map<string, Tensor>();
  for (const [name, module] of Object.entries(modules)) {
    for (const [key, parameter] of module.namedParameters()) all.set(`${name}.${key}`, parameter);
  }
  return all;
}
