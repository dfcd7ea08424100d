/** Training a LoRA of a task's networks in place of the networks. */
import { castInto } from '../kernels/cast.ts';
import type { StateDict } from '../nn/index.ts';
import { attachLoras } from '../nn/lora-apply.ts';
import type { AppliedLoras } from '../nn/lora-apply.ts';
import { loraMetadata } from '../nn/lora-metadata.ts';
import { componentNames, newLora } from '../nn/lora.ts';
import type { Lora } from '../nn/lora.ts';
import { currentGpu, noGrad, scope } from '../tensor/index.ts';
import type { Tensor } from '../tensor/index.ts';
import type { TrainTask } from './trainer.ts';
import { TrainingError } from './training-error.ts';

/** Bytes. */
const PIECE = 2 ** 28;

/** A LoRA of what diffusers' train_text_to_image_lora.py trains: the projections of all attention, α = r. */
export class LoraTraining {
  readonly lora: Lora;
  readonly #applied: AppliedLoras;

  /** @throws TrainingError when no network takes a LoRA */
  constructor(
    readonly task: TrainTask,
    rank: number,
    readonly mixedPrecision: 'no' | 'fp16',
  ) {
    const networks = componentNames.filter((name) => task.modules[name]);
    if (!networks.length)
      throw new TrainingError(
        `${task.name}: no network here takes a LoRA\n  there is: ${Object.keys(task.modules).join(', ')}\n  leave out --rank`,
      );
    this.lora = newLora(Object.fromEntries(networks.map((name) => [name, task.modules[name]])), { rank });
    this.#applied = attachLoras([{ lora: this.lora }]);
  }

  get parameters(): ReadonlyMap<string, Tensor> {
    return this.lora.namedParameters();
  }

  /** With 'fp16' the networks, which do not learn, are kept in f16. What they leave goes back to the driver piece by piece. */
  async narrow(): Promise<void> {
    if (this.mixedPrecision !== 'fp16') return;
    let left = 0;
    for (const p of Object.values(this.task.modules).flatMap((module) => [...module.namedParameters().values()])) {
      p.convert('f16');
      left += 4 * p.size;
      if (left < PIECE) continue;
      await currentGpu().trim();
      left = 0;
    }
    await currentGpu().trim();
  }

  /** W ← W + (α / r) · B A, for good. @returns the LoRA as a file has it */
  async finish(): Promise<{ tensors: StateDict; metadata: Record<string, string> }> {
    this.#applied.remove();
    this.#widen();
    for (const layer of this.lora.layers.values()) {
      const { weight } = layer.target;
      scope(() => noGrad(() => castInto(layer.addTo(weight.detach(), 1).array, weight.array)));
    }
    return { tensors: await this.lora.stateDict(), metadata: loraMetadata(this.lora) };
  }

  #widen(): void {
    for (const module of Object.values(this.task.modules)) module.to('f32');
  }

  dispose(): void {
    this.#applied.remove();
    this.#widen();
    this.lora.dispose();
  }
}
