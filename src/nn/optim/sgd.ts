import { sgdStep } from '../../kernels/optimizer.ts';
import type { GpuArray } from '../../kernels/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { Optimizer, wantRange } from './optimizer.ts';
import type { OptimizerOptions } from './optimizer.ts';

/** Momentum (0) and whether to look ahead along it. */
export interface SGDOptions extends OptimizerOptions {
  momentum?: number;
  nesterov?: boolean;
}

/** Straight against the gradient, with momentum if asked. */
export class SGD extends Optimizer {
  readonly #options: { momentum: number; weightDecay: number; nesterov: boolean };

  constructor(parameters: ReadonlyMap<string, Tensor>, options: SGDOptions = {}) {
    super(parameters, options, ['momentum_buffer']);
    const { momentum = 0, weightDecay = 0, nesterov = false } = options;
    wantRange('momentum', momentum);
    if (nesterov && momentum === 0) throw new RangeError('optimizer: nesterov wants a momentum above 0');
    this.#options = { momentum, weightDecay, nesterov };
  }

  protected override update(
    p: GpuArray,
    g: GpuArray,
    { momentum_buffer: u }: Record<string, GpuArray>,
    ema?: GpuArray,
  ): void {
    sgdStep(this.buffers, { p, g, u, ema }, this.#options);
  }
}
