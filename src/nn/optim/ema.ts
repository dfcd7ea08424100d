import { castInto } from '../../kernels/cast.ts';
import { emaStep, StepBuffers } from '../../kernels/optimizer.ts';
import { currentGpu, keep, Tensor } from '../../tensor/index.ts';
import { fromCheckpoint, toCheckpoint } from '../layout.ts';
import { Module, Parameter } from '../module.ts';
import { StateDictError } from '../state-dict.ts';
import type { StateDict } from '../module.ts';

/** How fast the average follows; names as in diffusers. */
export interface EMAOptions {
  decay?: number;
  minDecay?: number;
  updateAfterStep?: number;
  /** Decay 1 − (1 + step / invGamma)^(−power) until it reaches `decay`, not (1 + step) / (10 + step). */
  useEmaWarmup?: boolean;
  invGamma?: number;
  power?: number;
}

/** The decay of the n-th update, n = 1, 2, …: small at first, so that the average forgets where it began. */
export function emaDecay(n: number, options: EMAOptions = {}): number {
  const {
    decay = 0.9999,
    minDecay = 0,
    updateAfterStep = 0,
    useEmaWarmup = false,
    invGamma = 1,
    power = 2 / 3,
  } = options;
  const step = Math.max(0, n - updateAfterStep - 1);
  if (step <= 0) return 0;
  const now = useEmaWarmup ? 1 - (1 + step / invGamma) ** -power : (1 + step) / (10 + step);
  return Math.max(Math.min(now, decay), minDecay);
}

type Source = Module | ReadonlyMap<string, Tensor>;
const parametersOf = (source: Source): ReadonlyMap<string, Tensor> =>
  source instanceof Module ? source.namedParameters() : source;

/**
 * A running average of the weights: steadier than the weights themselves, and what is sampled from. Decay rule and names
 * are those of diffusers' EMAModel.
 */
export class EMA {
  readonly shadow = new Map<string, Tensor>();
  /** Updates so far. */
  steps = 0;
  readonly #parameters: ReadonlyMap<string, Tensor>;
  readonly #buffers = new StepBuffers(currentGpu());

  constructor(
    source: Source,
    readonly options: EMAOptions = {},
  ) {
    const { decay = 0.9999 } = options;
    if (!(decay >= 0 && decay <= 1)) throw new RangeError(`EMA: decay is ${decay}, must be from 0 to 1`);
    this.#parameters = parametersOf(source);
    for (const [key, p] of this.#parameters) {
      const copy = currentGpu().empty(p.shape);
      castInto(p.array, copy);
      this.shadow.set(key, keep(new Tensor(copy)));
    }
  }

  /** Count one update and return its decay: for optimisers that keep the average themselves. */
  advance(): number {
    return emaDecay(++this.steps, this.options);
  }

  /** One update, where the optimiser does not do it. */
  step(): void {
    this.#buffers.feed(() => ({ emaDecay: this.advance() }));
    for (const [key, t] of this.shadow) emaStep(this.#buffers, t.array, this.#parameters.get(key)!.array);
  }

  /** Give the averages to a module. */
  copyTo(target: Source): void {
    for (const [key, p] of parametersOf(target)) castInto(this.#of(key).array, p.array);
  }

  /** Exchange the averages with the weights of a module: twice around an evaluation. */
  swap(target: Source): void {
    const gpu = currentGpu();
    for (const [key, p] of parametersOf(target)) {
      const mine = this.#of(key),
        spare = gpu.empty(p.shape);
      gpu.copy(p.array, spare);
      gpu.copy(mine.array, p.array);
      gpu.copy(spare, mine.array);
      spare.dispose();
    }
  }

  /** The averages in the checkpoint's layout, by the keys of the weights: a model to load. */
  async stateDict(): Promise<StateDict> {
    const state: StateDict = {};
    for (const [key, t] of this.shadow)
      state[key] = toCheckpoint((await t.read()) as Float32Array, t.shape, this.#layout(key));
    return state;
  }

  /** Go on from saved averages. @throws StateDictError when a key is missing or has another shape */
  loadStateDict(state: StateDict, { steps = this.steps } = {}): void {
    for (const [key, t] of this.shadow) {
      const data = state[key] && fromCheckpoint(state[key], t.shape, this.#layout(key));
      if (!data)
        throw new StateDictError(
          `EMA: ${key} is missing or has another shape\n  file  [${state[key]?.shape.join(', ') ?? ''}]\n  model [${t.shape.join(', ')}]`,
        );
      t.array.write(data);
    }
    this.steps = steps;
  }

  /** Free the averages. */
  dispose(): void {
    for (const t of this.shadow.values()) t.dispose();
    this.#buffers.dispose();
  }

  /** For `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  #of(key: string): Tensor {
    const mine = this.shadow.get(key);
    if (!mine) throw new StateDictError(`EMA: keeps no average of ${key}`);
    return mine;
  }

  #layout(key: string) {
    const p = this.#parameters.get(key);
    return p instanceof Parameter ? p.layout : 'same';
  }
}
