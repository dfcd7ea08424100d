import { shapeError } from '../../kernels/index.ts';
import { linear } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { kaimingUniform } from '../initializers.ts';
import type { Initializer } from '../initializers.ts';
import { Module, parameter } from '../module.ts';
import type { Parameter } from '../module.ts';

/** Adds its own function of a layer's input to what is added to the layer's output: a LoRA at run time. */
export type Adapter = (x: Tensor, residual?: Tensor) => Tensor;

/** y = x Wᵀ + b along the last axis. */
export class Linear extends Module {
  weight: Parameter; // [O, I]
  bias: Parameter | undefined; // [O]
  /** @internal */
  adapter: Adapter | undefined;

  constructor(inputs: number, outputs: number, { bias = true, weightInit, biasInit }: LinearOptions = {}) {
    super();
    this.weight = parameter([outputs, inputs], weightInit ?? kaimingUniform(inputs));
    if (bias) this.bias = parameter([outputs], biasInit ?? kaimingUniform(inputs));
  }

  /** x: [..., I] → [..., O], plus `residual` of that shape */
  forward(x: Tensor, { residual }: { residual?: Tensor } = {}): Tensor {
    const [, inputs] = this.weight.shape;
    if (x.shape.at(-1) !== inputs) {
      throw shapeError('Linear', `last axis differs (${x.shape.at(-1)} ≠ ${inputs})`, { x, weight: this.weight });
    }
    return linear(x, this.weight, this.bias, { residual: this.adapter ? this.adapter(x, residual) : residual });
  }
}

/** Whether there is a bias, and with what weight and bias begin (uniform in ±1 / √inputs). */
export interface LinearOptions {
  bias?: boolean;
  weightInit?: Initializer;
  biasInit?: Initializer;
}
