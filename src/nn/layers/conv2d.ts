import { shapeError } from '../../kernels/index.ts';
import { conv2d } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { kaimingUniform } from '../initializers.ts';
import { Module, parameter } from '../module.ts';
import type { Parameter } from '../module.ts';
import type { Adapter } from './linear.ts';

/** Zeros around the image before a convolution: the same on all sides, or [left, right, top, bottom]. */
export type Padding = number | readonly [left: number, right: number, top: number, bottom: number];

/** A convolution over images, with its bias and two more sums fused. */
export class Conv2d extends Module {
  weight: Parameter; // [O, k, k, I]
  bias: Parameter | undefined; // [O]
  readonly stride: number;
  readonly padding: Padding;
  /** @internal */
  adapter: Adapter | undefined;

  constructor(
    inputs: number,
    outputs: number,
    kernel: number,
    { stride = 1, padding = 0 as Padding, bias = true } = {},
  ) {
    super();
    const fanIn = inputs * kernel * kernel;
    this.weight = parameter([outputs, kernel, kernel, inputs], kaimingUniform(fanIn), 'conv');
    if (bias) this.bias = parameter([outputs], kaimingUniform(fanIn));
    this.stride = stride;
    this.padding = padding;
  }

  /** x: [B, H, W, I] → [B, H', W', O], plus `temb` [B, O] for every pixel and `residual` [B, H', W', O] */
  forward(x: Tensor, { temb, residual }: { temb?: Tensor; residual?: Tensor } = {}): Tensor {
    const inputs = this.weight.shape[3];
    if (x.shape.length !== 4 || x.shape[3] !== inputs) {
      throw shapeError('Conv2d', `wants images with ${inputs} channels`, {
        'x [B, H, W, C]': x,
        'weight [O, kh, kw, I]': this.weight,
      });
    }
    const { stride, padding, adapter } = this;
    residual = adapter ? adapter(x, residual) : residual;
    return conv2d(x, this.weight, this.bias, { stride, padding, temb, residual });
  }
}
