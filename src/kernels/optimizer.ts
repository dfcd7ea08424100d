import type { GpuArray } from './array.ts';
import { shapeError } from './errors.ts';
import { spread } from './gpu.ts';
import type { Gpu } from './gpu.ts';
import code from './optimizer.wgsl';

const PER_GROUP = 64 * 16;
const groupsFor = (n: number) => Math.ceil(n / PER_GROUP);

/** Stands for "do not clip": WGSL may assume that there is no infinity. */
const NO_LIMIT = 1e30;

/** What a step leaves in `state`. */
export interface StepState {
  /** Length of all gradients as one vector, before clipping. */
  norm: number;
  factor: number;
  /** 1, or 0 when a gradient was NaN or infinite: then nothing was changed. */
  finite: number;
  skipped: number;
  steps: number;
}

/** What the host decides for each step. */
export interface StepControls {
  /** Learning rate. */
  rate?: number;
  /** Gradients are scaled down together to this length. */
  maxNorm?: number;
  emaDecay?: number;
  /** What the loss was multiplied by before the backward pass (1). */
  lossScale?: number;
}

/**
 * What the kernels of an optimiser share: `control` comes from the CPU each step, `state` stays on the GPU. Together with
 * the gradients they determine a step, so that nothing has to be read back.
 */
export class StepBuffers {
  readonly control: GpuArray;
  readonly state: GpuArray;

  constructor(readonly gpu: Gpu) {
    this.control = gpu.zeros([4]);
    this.state = gpu.zeros([8]);
  }

  /** What `controls` returns goes to the GPU now; in a recorded step, at each replay. */
  feed(controls: () => StepControls): void {
    this.gpu.feed(this.control, () => {
      const { rate = 0, maxNorm = NO_LIMIT, emaDecay = 1, lossScale = 1 } = controls();
      return [rate, Math.min(maxNorm, NO_LIMIT), 1 - emaDecay, 1 / lossScale];
    });
  }

  async read(): Promise<StepState> {
    const [norm, factor, finite, skipped, steps] = await this.state.read();
    return { norm, factor, finite, skipped, steps };
  }

  restore({ steps = 0, skipped = 0 }: Partial<StepState>): void {
    this.state.write([0, 1, 1, skipped, steps, 0, 0, 0]);
  }

  dispose(): void {
    this.control.dispose();
    this.state.dispose();
  }
}

/**
 * The norm of all gradients together, and what follows from it for this step: the factor that clips them, whether they
 * are finite, and Adam's bias corrections.
 *
 *     norm = √(Σ g²) / s    factor = min(1, maxNorm / (norm + 10⁻⁶)) / s    s: the loss scale    rate = lr / (1 − β₁ᵗ)    root = 1 / √(1 − β₂ᵗ)
 */
export function prepareStep(
  buffers: StepBuffers,
  gradients: readonly GpuArray[],
  betas: readonly [number, number] = [0.5, 0.5],
): void {
  const { gpu, control, state } = buffers;
  gradients = gradients.flatMap((g) => g.parts ?? [g]);
  const count = gradients.reduce((n, g) => n + groupsFor(g.size), 0);
  const sums = gpu.empty([Math.max(1, count)]);
  let at = 0;
  for (const g of gradients) {
    gpu.run(code, 'square_sums', { n: g.size, at }, [g, sums], spread(groupsFor(g.size)));
    at += groupsFor(g.size);
  }
  const decays = { count, log_beta1: logOf(betas[0]), log_beta2: logOf(betas[1]) };
  gpu.run(code, 'prepare', decays, [sums, control, state], [1]);
  sums.dispose();
}

const logOf = (beta: number): number => (beta > 0 ? Math.max(Math.log(beta), -80) : -80);

export interface AdamOptions {
  betas: readonly [number, number];
  eps: number;
  weightDecay: number;
  /** AdamW: weight decay acts on the weight. Adam: it joins the gradient. */
  decoupled: boolean;
}

/** The same for each part of a parameter that is larger than one binding: what is kept for it is divided alike. */
function eachPart<S extends object>(slots: S, step: (slots: S) => void): void {
  const arrays = Object.entries(slots) as [string, GpuArray | undefined][];
  const count = arrays[0][1]!.parts?.length;
  if (count === undefined) return step(slots);
  for (let i = 0; i < count; i++)
    step(Object.fromEntries(arrays.map(([name, array]) => [name, array?.parts![i]])) as S);
}

interface Slots {
  p: GpuArray;
  g: GpuArray;
  /** Its running average, kept in the same pass. */
  ema?: GpuArray;
}

/**
 * One step for one parameter, after `prepareStep`.
 *
 *     m ← β₁ m + (1 − β₁) g    v ← β₂ v + (1 − β₂) g²    p ← p − lr · m̂ / (√v̂ + ε)    m̂ = m / (1 − β₁ᵗ)   v̂ = v / (1 − β₂ᵗ)
 *
 * @see Loshchilov & Hutter 2017, Decoupled Weight Decay Regularization, algorithm 2. https://arxiv.org/abs/1711.05101
 */
export function adamStep(
  { gpu, control, state }: StepBuffers,
  slots: Slots & { m: GpuArray; v: GpuArray },
  options: AdamOptions,
): void {
  sameSize('adam', { ...slots });
  const {
    betas: [beta1, beta2],
    eps,
    weightDecay,
    decoupled,
  } = options;
  const uniforms = { beta1, rest1: 1 - beta1, beta2, rest2: 1 - beta2, eps, decay: weightDecay };
  eachPart(slots, ({ p, g, m, v, ema }) => {
    const arrays = [control, state, g, p, m, v, ema ?? gpu.none];
    const constants = { DECOUPLED: decoupled, EMA: ema !== undefined };
    gpu.run(code, 'adam', { ...uniforms, n: p.size }, arrays, spread(groupsFor(p.size)), constants);
  });
}

/**
 * One step for one parameter, after `prepareStep`.
 *
 *     u ← μ u + g    p ← p − lr · u    (Nesterov: p ← p − lr · (g + μ u))
 */
export function sgdStep(
  { gpu, control, state }: StepBuffers,
  slots: Slots & { u: GpuArray },
  options: { momentum: number; weightDecay: number; nesterov: boolean },
): void {
  sameSize('sgd', { ...slots });
  const { momentum, weightDecay, nesterov } = options;
  eachPart(slots, ({ p, g, u, ema }) => {
    const arrays = [control, state, g, p, u, ema ?? gpu.none];
    const uniforms = { n: p.size, momentum, decay: weightDecay };
    const constants = { NESTEROV: nesterov, EMA: ema !== undefined };
    gpu.run(code, 'sgd', uniforms, arrays, spread(groupsFor(p.size)), constants);
  });
}

/** average ← average − (1 − decay)(average − p) */
export function emaStep({ gpu, control }: StepBuffers, average: GpuArray, p: GpuArray): void {
  sameSize('ema', { average, p });
  eachPart({ p, average }, ({ p, average }) =>
    gpu.run(code, 'ema', { n: p.size, at: 0 }, [control, p, average], spread(groupsFor(p.size))),
  );
}

/** g ← g · factor, after `prepareStep`; the steps above clip by themselves. */
export function clipStep({ gpu, state }: StepBuffers, g: GpuArray): void {
  eachPart({ g }, ({ g }) => gpu.run(code, 'clip', { n: g.size, at: 0 }, [state, g], spread(groupsFor(g.size))));
}

function sameSize(op: string, arrays: Record<string, GpuArray | undefined>): void {
  const [first, ...rest] = Object.values(arrays).filter((a) => a !== undefined);
  if (rest.some((a) => a.size !== first.size))
    throw shapeError(op, 'a parameter and what is kept for it differ in size', arrays);
}
