import { adamStep } from '../../kernels/optimizer.ts';
import type { AdamOptions } from '../../kernels/optimizer.ts';
import type { GpuArray } from '../../kernels/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { Optimizer, wantRange } from './optimizer.ts';
import type { OptimizerOptions } from './optimizer.ts';

/** Decays of the averages of the gradient and of its square, and what keeps the root from zero. */
export interface AdamWOptions extends OptimizerOptions {
  betas?: readonly [number, number];
  eps?: number;
}

/**
 * Adam whose weight decay acts on the weights themselves.
 * @see Loshchilov & Hutter 2017, Decoupled Weight Decay Regularization. https://arxiv.org/abs/1711.05101
 */
export class AdamW extends Optimizer {
  protected readonly options: AdamOptions;

  constructor(parameters: ReadonlyMap<string, Tensor>, options: AdamWOptions = {}) {
    super(parameters, options, ['exp_avg', 'exp_avg_sq']);
    const { betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01 } = options;
    for (const beta of betas) wantRange('a beta', beta, 1);
    wantRange('eps', eps);
    this.options = { betas, eps, weightDecay, decoupled: true };
    this.betas = betas;
  }

  protected override update(
    p: GpuArray,
    g: GpuArray,
    { exp_avg: m, exp_avg_sq: v }: Record<string, GpuArray>,
    ema?: GpuArray,
  ): void {
    adamStep(this.buffers, { p, g, m, v, ema }, this.options);
  }
}

/**
 * Weight decay, if any, joins the gradient.
 * @see Kingma & Ba 2014, Adam: A Method for Stochastic Optimization. https://arxiv.org/abs/1412.6980
 */
export class Adam extends AdamW {
  constructor(parameters: ReadonlyMap<string, Tensor>, options: AdamWOptions = {}) {
    super(parameters, { weightDecay: 0, ...options });
    this.options.decoupled = false;
  }
}
