import { shapeError } from '../../kernels/index.ts';
import {
  add,
  avgPool2d,
  concat,
  conv2d,
  div,
  maxPool2d,
  mean,
  mul,
  relu,
  rsqrt,
  sub,
  tensor,
  upsampleBilinear,
} from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { kaimingUniform, onesInit, zerosInit } from '../initializers.ts';
import { Module, parameter } from '../module.ts';
import type { Parameter } from '../module.ts';

/** Batch normalisation with the statistics of training: a scale and a shift for each channel. */
class BatchNorm2d extends Module {
  weight: Parameter; // [C], as are all
  bias: Parameter;
  running_mean: Parameter;
  running_var: Parameter;

  constructor(channels: number) {
    super();
    this.weight = parameter([channels], onesInit);
    this.bias = parameter([channels], zerosInit);
    this.running_mean = parameter([channels], zerosInit);
    this.running_var = parameter([channels], onesInit);
  }

  /** x: [B, H, W, C] → [B, H, W, C] */
  forward(x: Tensor): Tensor {
    const scale = mul(this.weight, rsqrt(add(this.running_var, 1e-3)));
    return add(mul(x, scale), sub(this.bias, mul(this.running_mean, scale)));
  }
}

/** The weights of a convolution with a window of any shape, and no bias. */
class Kernel extends Module {
  weight: Parameter; // [O, kh, kw, I]

  constructor(inputs: number, outputs: number, [kh, kw]: readonly [number, number]) {
    super();
    this.weight = parameter([outputs, kh, kw, inputs], kaimingUniform(inputs * kh * kw), 'conv');
  }
}

interface BasicOptions {
  kernel?: number | readonly [height: number, width: number];
  stride?: number;
  /** Zeros around the image: as many as keep its size. */
  same?: boolean;
}

/** Convolution, batch normalisation, ReLU. */
class BasicConv2d extends Module {
  conv: Kernel;
  bn: BatchNorm2d;
  readonly stride: number;
  readonly padding: [left: number, right: number, top: number, bottom: number];

  constructor(inputs: number, outputs: number, { kernel = 1, stride = 1, same = false }: BasicOptions = {}) {
    super();
    const [kh, kw] = typeof kernel === 'number' ? [kernel, kernel] : kernel;
    this.conv = new Kernel(inputs, outputs, [kh, kw]);
    this.bn = new BatchNorm2d(outputs);
    this.stride = stride;
    const [y, x] = same ? [(kh - 1) / 2, (kw - 1) / 2] : [0, 0];
    this.padding = [x, x, y, y];
  }

  /** x: [B, H, W, I] → [B, H', W', O] */
  forward(x: Tensor): Tensor {
    const { stride, padding } = this;
    return relu(this.bn.forward(conv2d(x, this.conv.weight, undefined, { stride, padding })));
  }
}

const through = (x: Tensor, ...layers: BasicConv2d[]): Tensor => layers.reduce((h, layer) => layer.forward(h), x);
const pool3 = (x: Tensor) => maxPool2d(x, { kernel: 3, stride: 2 });

/** The mean of the 3 × 3 pixels around each; those beyond the edge do not count, unlike in torchvision's network. */
function around(x: Tensor): Tensor {
  const window = { kernel: 3, stride: 1, padding: 1 };
  const [, H, W] = x.shape;
  return div(avgPool2d(x, window), avgPool2d(tensor(Array(H * W).fill(1), [1, H, W, 1]), window));
}

class InceptionA extends Module {
  branch1x1: BasicConv2d;
  branch5x5_1: BasicConv2d;
  branch5x5_2: BasicConv2d;
  branch3x3dbl_1: BasicConv2d;
  branch3x3dbl_2: BasicConv2d;
  branch3x3dbl_3: BasicConv2d;
  branch_pool: BasicConv2d;

  constructor(inputs: number, pooled: number) {
    super();
    this.branch1x1 = new BasicConv2d(inputs, 64);
    this.branch5x5_1 = new BasicConv2d(inputs, 48);
    this.branch5x5_2 = new BasicConv2d(48, 64, { kernel: 5, same: true });
    this.branch3x3dbl_1 = new BasicConv2d(inputs, 64);
    this.branch3x3dbl_2 = new BasicConv2d(64, 96, { kernel: 3, same: true });
    this.branch3x3dbl_3 = new BasicConv2d(96, 96, { kernel: 3, same: true });
    this.branch_pool = new BasicConv2d(inputs, pooled);
  }

  /** x: [B, 35, 35, I] → [B, 35, 35, 224 + pooled] */
  forward(x: Tensor): Tensor {
    return concat([
      this.branch1x1.forward(x),
      through(x, this.branch5x5_1, this.branch5x5_2),
      through(x, this.branch3x3dbl_1, this.branch3x3dbl_2, this.branch3x3dbl_3),
      this.branch_pool.forward(around(x)),
    ]);
  }
}

class InceptionB extends Module {
  branch3x3: BasicConv2d;
  branch3x3dbl_1: BasicConv2d;
  branch3x3dbl_2: BasicConv2d;
  branch3x3dbl_3: BasicConv2d;

  constructor(inputs: number) {
    super();
    this.branch3x3 = new BasicConv2d(inputs, 384, { kernel: 3, stride: 2 });
    this.branch3x3dbl_1 = new BasicConv2d(inputs, 64);
    this.branch3x3dbl_2 = new BasicConv2d(64, 96, { kernel: 3, same: true });
    this.branch3x3dbl_3 = new BasicConv2d(96, 96, { kernel: 3, stride: 2 });
  }

  /** x: [B, 35, 35, 288] → [B, 17, 17, 768] */
  forward(x: Tensor): Tensor {
    const double = through(x, this.branch3x3dbl_1, this.branch3x3dbl_2, this.branch3x3dbl_3);
    return concat([this.branch3x3.forward(x), double, pool3(x)]);
  }
}

const wide = { kernel: [1, 7], same: true } as const;
const tall = { kernel: [7, 1], same: true } as const;

class InceptionC extends Module {
  branch1x1: BasicConv2d;
  branch7x7_1: BasicConv2d;
  branch7x7_2: BasicConv2d;
  branch7x7_3: BasicConv2d;
  branch7x7dbl_1: BasicConv2d;
  branch7x7dbl_2: BasicConv2d;
  branch7x7dbl_3: BasicConv2d;
  branch7x7dbl_4: BasicConv2d;
  branch7x7dbl_5: BasicConv2d;
  branch_pool: BasicConv2d;

  constructor(inputs: number, inner: number) {
    super();
    this.branch1x1 = new BasicConv2d(inputs, 192);
    this.branch7x7_1 = new BasicConv2d(inputs, inner);
    this.branch7x7_2 = new BasicConv2d(inner, inner, wide);
    this.branch7x7_3 = new BasicConv2d(inner, 192, tall);
    this.branch7x7dbl_1 = new BasicConv2d(inputs, inner);
    this.branch7x7dbl_2 = new BasicConv2d(inner, inner, tall);
    this.branch7x7dbl_3 = new BasicConv2d(inner, inner, wide);
    this.branch7x7dbl_4 = new BasicConv2d(inner, inner, tall);
    this.branch7x7dbl_5 = new BasicConv2d(inner, 192, wide);
    this.branch_pool = new BasicConv2d(inputs, 192);
  }

  /** x: [B, 17, 17, 768] → [B, 17, 17, 768] */
  forward(x: Tensor): Tensor {
    const { branch7x7dbl_1: a, branch7x7dbl_2: b, branch7x7dbl_3: c, branch7x7dbl_4: d, branch7x7dbl_5: e } = this;
    return concat([
      this.branch1x1.forward(x),
      through(x, this.branch7x7_1, this.branch7x7_2, this.branch7x7_3),
      through(x, a, b, c, d, e),
      this.branch_pool.forward(around(x)),
    ]);
  }
}

class InceptionD extends Module {
  branch3x3_1: BasicConv2d;
  branch3x3_2: BasicConv2d;
  branch7x7x3_1: BasicConv2d;
  branch7x7x3_2: BasicConv2d;
  branch7x7x3_3: BasicConv2d;
  branch7x7x3_4: BasicConv2d;

  constructor(inputs: number) {
    super();
    this.branch3x3_1 = new BasicConv2d(inputs, 192);
    this.branch3x3_2 = new BasicConv2d(192, 320, { kernel: 3, stride: 2 });
    this.branch7x7x3_1 = new BasicConv2d(inputs, 192);
    this.branch7x7x3_2 = new BasicConv2d(192, 192, wide);
    this.branch7x7x3_3 = new BasicConv2d(192, 192, tall);
    this.branch7x7x3_4 = new BasicConv2d(192, 192, { kernel: 3, stride: 2 });
  }

  /** x: [B, 17, 17, 768] → [B, 8, 8, 1280] */
  forward(x: Tensor): Tensor {
    const { branch7x7x3_1: a, branch7x7x3_2: b, branch7x7x3_3: c, branch7x7x3_4: d } = this;
    return concat([through(x, this.branch3x3_1, this.branch3x3_2), through(x, a, b, c, d), pool3(x)]);
  }
}

class InceptionE extends Module {
  branch1x1: BasicConv2d;
  branch3x3_1: BasicConv2d;
  branch3x3_2a: BasicConv2d;
  branch3x3_2b: BasicConv2d;
  branch3x3dbl_1: BasicConv2d;
  branch3x3dbl_2: BasicConv2d;
  branch3x3dbl_3a: BasicConv2d;
  branch3x3dbl_3b: BasicConv2d;
  branch_pool: BasicConv2d;

  constructor(
    inputs: number,
    /** The last block takes the largest of the pixels around, where the others take the mean. */
    readonly pool: 'mean' | 'largest',
  ) {
    super();
    const row = { kernel: [1, 3], same: true } as const;
    const column = { kernel: [3, 1], same: true } as const;
    this.branch1x1 = new BasicConv2d(inputs, 320);
    this.branch3x3_1 = new BasicConv2d(inputs, 384);
    this.branch3x3_2a = new BasicConv2d(384, 384, row);
    this.branch3x3_2b = new BasicConv2d(384, 384, column);
    this.branch3x3dbl_1 = new BasicConv2d(inputs, 448);
    this.branch3x3dbl_2 = new BasicConv2d(448, 384, { kernel: 3, same: true });
    this.branch3x3dbl_3a = new BasicConv2d(384, 384, row);
    this.branch3x3dbl_3b = new BasicConv2d(384, 384, column);
    this.branch_pool = new BasicConv2d(inputs, 192);
  }

  /** x: [B, 8, 8, I] → [B, 8, 8, 2048] */
  forward(x: Tensor): Tensor {
    const one = this.branch3x3_1.forward(x);
    const two = through(x, this.branch3x3dbl_1, this.branch3x3dbl_2);
    const pooled = this.pool === 'mean' ? around(x) : maxPool2d(x, { kernel: 3, stride: 1, padding: 1 });
    return concat([
      this.branch1x1.forward(x),
      this.branch3x3_2a.forward(one),
      this.branch3x3_2b.forward(one),
      this.branch3x3dbl_3a.forward(two),
      this.branch3x3dbl_3b.forward(two),
      this.branch_pool.forward(pooled),
    ]);
  }
}

/**
 * Inception v3 up to its last pool, as the Fréchet Inception distance has it: TensorFlow's network of 2015, which differs
 * from torchvision's in how the pools of its blocks treat edges and in the pool of the last block. Keys are those of
 * pytorch-fid, and of torchvision.
 *
 * @see Szegedy et al. 2015, Rethinking the Inception Architecture for Computer Vision. https://arxiv.org/abs/1512.00567
 * @see Heusel et al. 2017, GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium.
 *      https://arxiv.org/abs/1706.08500
 * @see https://github.com/mseitzer/pytorch-fid
 */
export class InceptionV3 extends Module {
  Conv2d_1a_3x3 = new BasicConv2d(3, 32, { kernel: 3, stride: 2 });
  Conv2d_2a_3x3 = new BasicConv2d(32, 32, { kernel: 3 });
  Conv2d_2b_3x3 = new BasicConv2d(32, 64, { kernel: 3, same: true });
  Conv2d_3b_1x1 = new BasicConv2d(64, 80);
  Conv2d_4a_3x3 = new BasicConv2d(80, 192, { kernel: 3 });
  Mixed_5b = new InceptionA(192, 32);
  Mixed_5c = new InceptionA(256, 64);
  Mixed_5d = new InceptionA(288, 64);
  Mixed_6a = new InceptionB(288);
  Mixed_6b = new InceptionC(768, 128);
  Mixed_6c = new InceptionC(768, 160);
  Mixed_6d = new InceptionC(768, 160);
  Mixed_6e = new InceptionC(768, 192);
  Mixed_7a = new InceptionD(768);
  Mixed_7b = new InceptionE(1280, 'mean');
  Mixed_7c = new InceptionE(2048, 'largest');

  /** x: [B, H, W, 3] in −1 … 1, of any size → [B, 2048] */
  forward(x: Tensor): Tensor {
    if (x.shape.length !== 4 || x.shape[3] !== 3) throw shapeError('InceptionV3', 'wants images [B, H, W, 3]', { x });
    return this.features(upsampleBilinear(x, { size: [299, 299] }));
  }

  /** Without scaling first.   x: [B, H, W, 3], sides at least 75 → [B, 2048] */
  features(x: Tensor): Tensor {
    x = pool3(through(x, this.Conv2d_1a_3x3, this.Conv2d_2a_3x3, this.Conv2d_2b_3x3));
    x = pool3(through(x, this.Conv2d_3b_1x1, this.Conv2d_4a_3x3));
    x = this.Mixed_5d.forward(this.Mixed_5c.forward(this.Mixed_5b.forward(x)));
    for (const block of [this.Mixed_6a, this.Mixed_6b, this.Mixed_6c, this.Mixed_6d, this.Mixed_6e])
      x = block.forward(x);
    x = this.Mixed_7c.forward(this.Mixed_7b.forward(this.Mixed_7a.forward(x)));
    return mean(x, { axes: [1, 2] });
  }
}
