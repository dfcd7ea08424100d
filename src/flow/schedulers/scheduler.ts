/** What a pipeline sees of a scheduler, whichever it is. */
import { shapeError } from '../../kernels/index.ts';
import { keep, scope } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';

/** What a step may need besides the network's output. */
export interface StepOptions {
  /** Draws fresh noise of the sample's shape. Called once by every step that adds noise. */
  noise?: () => Tensor;
  /** DDIM: how much of DDPM's noise to add, 0 to 1. */
  eta?: number;
}

/** What `run` is told besides. */
export interface RunOptions extends StepOptions {
  /** Begin at timesteps[start], for image → image. */
  start?: number;
  /** Hears of every step; may give another tensor to go on from (inpainting), which then belongs to the run. */
  onStep?(index: number, t: number, sample: Tensor): Tensor | void | Promise<Tensor | void>;
}

/** The network with all that it is conditioned on.   sample: [B, …], t: timestep → [B, …] */
export type Denoiser = (sample: Tensor, t: number) => Tensor;

/**
 * From noise to image in steps of the network's timesteps, by the names of diffusers.
 *
 *     scheduler.setTimesteps(25);
 *     let sample = mul(noise, scheduler.initNoiseSigma);
 *     for (const t of scheduler.timesteps)
 *       sample = scheduler.step(network(scheduler.scaleModelInput(sample, t), t), t, sample);
 *
 * `run` is that loop, with memory kept flat. Coefficients are float64 on the CPU; a step is a few sums of tensors on the
 * GPU. What a scheduler remembers of earlier steps carries no gradient; `setTimesteps` and `dispose` free it.
 */
export abstract class Scheduler {
  /** The timesteps that the network is to be told, in this order; empty before `setTimesteps`. */
  timesteps: readonly number[] = [];
  /** Of earlier steps. */
  #history: Tensor[] = [];

  /** The name of its class in diffusers. */
  abstract readonly name: string;

  /** What noise of variance 1 is multiplied by to begin with; known once the timesteps are. */
  get initNoiseSigma(): number {
    return 1;
  }

  /** Choose `steps` timesteps, and begin anew. @throws RangeError when there cannot be as many */
  setTimesteps(steps: number): void {
    this.dispose();
    this.timesteps = this.spaced(steps);
  }

  protected abstract spaced(steps: number): readonly number[];

  /** What the network is to see: the sample itself where nothing needs scaling. */
  scaleModelInput(sample: Tensor, _t: number): Tensor {
    return sample;
  }

  /**
   * One step on: from the sample at t and the network's output for it to the sample at the next of `timesteps`.
   * modelOutput, sample: [B, …] → [B, …]
   * @throws RangeError when t is none of `timesteps`, ShapeError when shapes differ, Error when noise is needed
   */
  step(modelOutput: Tensor, t: number, sample: Tensor, options: StepOptions = {}): Tensor {
    const { eta = 0 } = options;
    this.wantAlike('step', sample, modelOutput);
    if (!(eta >= 0 && eta <= 1)) throw new RangeError(`${this.name}: eta is ${eta}, must be from 0 to 1`);
    const index = this.indexOf(t);
    return scope(() => this.advance(modelOutput, index, sample, options));
  }

  protected abstract advance(modelOutput: Tensor, index: number, sample: Tensor, options: StepOptions): Tensor;

  /** The image that the network believes in at t: for previews. modelOutput, sample: [B, …] → [B, …] */
  abstract predictOriginal(modelOutput: Tensor, t: number, sample: Tensor): Tensor;

  /** Images as they are at a timestep: where image → image begins. original, noise: [B, …], t: one, or one for each → [B, …] */
  abstract addNoise(original: Tensor, noise: Tensor, t: number | readonly number[]): Tensor;

  /** All steps from `start` on. `sample` stays the caller's; the result is a new tensor. */
  async run(network: Denoiser, sample: Tensor, options: RunOptions = {}): Promise<Tensor> {
    const { start = 0, onStep } = options;
    const first = this.timesteps[start];
    if (first === undefined)
      throw new RangeError(
        `${this.name}: start is ${start}, of ${this.timesteps.length} timesteps\n  setTimesteps comes first`,
      );
    let current = sample;
    try {
      for (let i = start; i < this.timesteps.length; i++) {
        const t = this.timesteps[i];
        const next = await this.walk(network, i, current, options);
        if (current !== sample) current.dispose();
        current = next;
        const other = await onStep?.(i, t, next);
        if (!other || other === next) continue;
        next.dispose();
        current = other;
      }
    } catch (error) {
      if (current !== sample) current.dispose();
      throw error;
    } finally {
      this.dispose();
    }
    return current;
  }

  /** The network and the step after it. */
  protected walk(network: Denoiser, index: number, sample: Tensor, options: StepOptions): Tensor | Promise<Tensor> {
    const t = this.timesteps[index];
    return scope(() => this.step(network(this.scaleModelInput(sample, t), t), t, sample, options));
  }

  /** Forget earlier steps. The scheduler can be used again from its first timestep. */
  dispose(): void {
    for (const tensor of this.#history) tensor.dispose();
    this.#history = [];
  }

  /** For `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Outputs of earlier steps, the newest last. */
  protected get history(): readonly Tensor[] {
    return this.#history;
  }

  /** Remember an output, and only the newest `count`. */
  protected remember(output: Tensor, count: number): void {
    this.#history.push(this.hold(output));
    while (this.#history.length > count) this.#history.shift()!.dispose();
  }

  /** The numbers of a tensor for later, whoever frees that one. */
  protected hold(tensor: Tensor): Tensor {
    return keep(tensor.detach());
  }

  /** Noise from the caller. */
  protected draw({ noise }: StepOptions, sample: Tensor): Tensor {
    if (!noise)
      throw new Error(
        `${this.name}: this step adds noise\n  give step() or run() noise: () => a tensor of [${sample.shape.join(', ')}]`,
      );
    const drawn = noise();
    this.wantAlike('noise', sample, drawn);
    return drawn;
  }

  protected indexOf(t: number): number {
    const index = this.timesteps.indexOf(t);
    if (index >= 0) return index;
    const shown = this.timesteps.slice(0, 8).join(', ') + (this.timesteps.length > 8 ? ', …' : '');
    throw new RangeError(
      `${this.name}: ${t} is none of its timesteps\n  timesteps  ${shown || '(none)'}\n  ` +
        (shown ? 'pass one of scheduler.timesteps' : 'call setTimesteps(steps) first'),
    );
  }

  protected wantAlike(what: string, sample: Tensor, other: Tensor): void {
    if (sample.shape.join() !== other.shape.join())
      throw shapeError(`${this.name}: ${what}`, 'shapes differ', {
        sample,
        [what === 'noise' ? what : 'modelOutput']: other,
      });
  }
}
