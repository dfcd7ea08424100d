import { shapeError } from '../../kernels/index.ts';
import { add, concat, div, l2Normalize, maxPool2d, mean, pad, relu, square, sub, tensor } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import type { HostTensor } from '../../tensor/io/safetensors.ts';
import { Conv2d } from '../layers/conv2d.ts';
import { Module } from '../module.ts';
import type { StateDict } from '../module.ts';

/** Networks whose features are compared. */
export type LPIPSNet = 'vgg' | 'alex' | 'squeeze';

type Layer = Conv2d | Fire | ((x: Tensor) => Tensor);

/** A narrow 1×1 convolution feeding a 1×1 and a 3×3 one side by side: the block of SqueezeNet. */
class Fire extends Module {
  squeeze: Conv2d;
  expand1x1: Conv2d;
  expand3x3: Conv2d;

  constructor(inputs: number, narrow: number, wide: number) {
    super();
    this.squeeze = new Conv2d(inputs, narrow, 1);
    this.expand1x1 = new Conv2d(narrow, wide, 1);
    this.expand3x3 = new Conv2d(narrow, wide, 3, { padding: 1 });
  }

  /** x: [B, H, W, I] → [B, H, W, 2 · wide] */
  forward(x: Tensor): Tensor {
    const s = relu(this.squeeze.forward(x));
    return concat([relu(this.expand1x1.forward(s)), relu(this.expand3x3.forward(s))]);
  }
}

const conv3 = (inputs: number, outputs: number) => new Conv2d(inputs, outputs, 3, { padding: 1 });
const halve = (x: Tensor) => maxPool2d(x, { kernel: 2 });
const pool3 = (x: Tensor) => maxPool2d(x, { kernel: 3, stride: 2 });

/** Windows that reach over the edge count too (torch's `ceil_mode`): behind a ReLU, zeros there change no maximum. */
function pool3Ceil(x: Tensor): Tensor {
  const [, H, W] = x.shape;
  const pads = [[0, 0], [0, 1 - (H % 2)], [0, 1 - (W % 2)], [0, 0]] as const; // prettier-ignore
  return pool3(H % 2 && W % 2 ? x : pad(x, pads));
}

interface Trunk {
  /** torchvision's `features`, cut into slices; the output of each slice is compared. */
  slices: () => Layer[][];
  /** Channels of the outputs. */
  channels: readonly number[];
  /** The smallest side that leaves a pixel in every slice. */
  smallest: number;
}

const trunks: Record<LPIPSNet, Trunk> = {
  vgg: {
    slices: () => [
      [conv3(3, 64), relu, conv3(64, 64), relu],
      [halve, conv3(64, 128), relu, conv3(128, 128), relu],
      [halve, conv3(128, 256), relu, conv3(256, 256), relu, conv3(256, 256), relu],
      [halve, conv3(256, 512), relu, conv3(512, 512), relu, conv3(512, 512), relu],
      [halve, conv3(512, 512), relu, conv3(512, 512), relu, conv3(512, 512), relu],
    ],
    channels: [64, 128, 256, 512, 512],
    smallest: 16,
  },
  alex: {
    slices: () => [
      [new Conv2d(3, 64, 11, { stride: 4, padding: 2 }), relu],
      [pool3, new Conv2d(64, 192, 5, { padding: 2 }), relu],
      [pool3, conv3(192, 384), relu],
      [conv3(384, 256), relu],
      [conv3(256, 256), relu],
    ],
    channels: [64, 192, 384, 256, 256],
    smallest: 31,
  },
  squeeze: {
    slices: () => [
      [new Conv2d(3, 64, 3, { stride: 2 }), relu],
      [pool3Ceil, new Fire(64, 16, 64), new Fire(128, 16, 64)],
      [pool3Ceil, new Fire(128, 32, 128), new Fire(256, 32, 128)],
      [pool3Ceil, new Fire(256, 48, 192)],
      [new Fire(384, 48, 192)],
      [new Fire(384, 64, 256)],
      [new Fire(512, 64, 256)],
    ],
    channels: [64, 128, 256, 384, 384, 512, 512],
    smallest: 17,
  },
};

/** A network for classifying images, without its last layers; made to be looked into. */
class Features extends Module {
  /** A layer's place in its slice is its number in torchvision's `features`, hence its key. */
  slice1: Layer[] = [];
  slice2: Layer[] = [];
  slice3: Layer[] = [];
  slice4: Layer[] = [];
  slice5: Layer[] = [];
  slice6: Layer[] = [];
  slice7: Layer[] = [];

  constructor(slices: Layer[][]) {
    super();
    let number = 0;
    for (const [i, layers] of slices.entries()) for (const layer of layers) this.#slices[i][number++] = layer;
  }

  /** x: [B, H, W, 3] → the output of every slice, [B, h, w, C] each */
  forward(x: Tensor): Tensor[] {
    return this.#slices
      .filter((slice) => slice.length)
      .map((slice) => {
        slice.forEach((layer) => (x = layer instanceof Module ? layer.forward(x) : layer(x))); // skips the gap in front
        return x;
      });
  }

  get #slices(): Layer[][] {
    return [this.slice1, this.slice2, this.slice3, this.slice4, this.slice5, this.slice6, this.slice7];
  }
}

/** Channels → one number, by weights. `model[0]` is a dropout in the checkpoint, which has nothing to load. */
class NetLinLayer extends Module {
  model: [undefined, Conv2d];

  constructor(channels: number) {
    super();
    this.model = [undefined, new Conv2d(channels, 1, 1, { bias: false })];
  }

  /** x: [B, h, w, C] → [B], the mean over pixels */
  forward(x: Tensor): Tensor {
    return mean(this.model[1].forward(x), { axes: [1, 2, 3] });
  }
}

/**
 * LPIPS, how different two images look: the distance between their features in a network for classifying images, with
 * weights on the channels that were fitted to people's judgements.   x, y: [B, H, W, 3] in −1 … 1 → [B]
 *
 *     d(x, y) = Σₗ mean over pixels of Σ_c w[l, c] · (f̂ₗ(x) − f̂ₗ(y))²      f̂ = f / |f| over the channels
 *
 * Keys are those of the lpips package, version 0.1. `loadStateDict` also takes what is published: the ImageNet network of
 * torchvision together with the heads, `{ ...vgg16, ...heads }`.
 *
 * @see Zhang et al. 2018, The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, §3.
 *      https://arxiv.org/abs/1801.03924
 * @see https://github.com/richzhang/PerceptualSimilarity
 */
export class LPIPS extends Module {
  net: Features;
  lin0!: NetLinLayer;
  lin1!: NetLinLayer;
  lin2!: NetLinLayer;
  lin3!: NetLinLayer;
  lin4!: NetLinLayer;
  lin5: NetLinLayer | undefined;
  lin6: NetLinLayer | undefined;
  readonly #name: LPIPSNet;

  constructor(net: LPIPSNet = 'vgg') {
    super();
    const trunk = trunks[net];
    if (!trunk) throw new Error(`LPIPS: there is no network ${net}\n  known: ${Object.keys(trunks).join(' ')}`);
    this.#name = net;
    this.net = new Features(trunk.slices());
    for (const [i, channels] of trunk.channels.entries()) this[`lin${i}` as 'lin0'] = new NetLinLayer(channels);
  }

  /** x, y: [B, H, W, 3] in −1 … 1 → [B], 0 for equal images */
  forward(x: Tensor, y: Tensor): Tensor {
    return this.perSlice(x, y).reduce((sum, d) => add(sum, d));
  }

  /** The addends of the distance, from fine to coarse: [B] each */
  perSlice(x: Tensor, y: Tensor): Tensor[] {
    if (x.shape.join() !== y.shape.join()) throw shapeError('LPIPS', 'the images differ in size', { x, y });
    const [p, q] = [this.features(x), this.features(y)];
    const heads = [this.lin0, this.lin1, this.lin2, this.lin3, this.lin4, this.lin5, this.lin6];
    // Where all channels are 0, eps keeps the quotient 0; the ReLU in front lets no gradient pass there.
    return p.map((f, l) => {
      const difference = sub(l2Normalize(f, { eps: 1e-10 }), l2Normalize(q[l], { eps: 1e-10 }));
      return heads[l]!.forward(square(difference));
    });
  }

  /** The output of every slice.   x: [B, H, W, 3] in −1 … 1 → [B, h, w, C] each */
  features(x: Tensor): Tensor[] {
    const { smallest } = trunks[this.#name];
    const [, H, W, channels] = x.shape;
    if (x.shape.length !== 4 || channels !== 3) throw shapeError('LPIPS', 'wants images [B, H, W, 3]', { x });
    if (Math.min(H, W) < smallest) {
      throw shapeError(
        'LPIPS',
        `sides of at least ${smallest} for ${this.#name}, not ${H} × ${W}`,
        { x },
        'upsample first',
      );
    }
    // The mean and deviation of ImageNet's colours, for images in −1 … 1.
    return this.net.forward(div(sub(x, tensor([-0.03, -0.088, -0.188])), tensor([0.458, 0.448, 0.45])));
  }

  override loadStateDict(tensors: StateDict | ReadonlyMap<string, HostTensor>, options: { strict?: boolean } = {}) {
    const given = tensors instanceof Map ? [...tensors] : Object.entries(tensors);
    const published = new Map(
      [...this.namedParameters().keys()].map((key) => [key.replace(sliceKey, 'features'), key]),
    );
    const own = given
      .filter(([key]) => !notOurs.test(key))
      .map(([key, value]) => [published.get(key) ?? key, value] as const);
    return super.loadStateDict(new Map(own), options);
  }
}

const sliceKey = /^net\.slice\d+/;

/** The last layers of the classifier, the constants of `features()`, and every `lin` once more. */
const notOurs = /^(classifier|scaling_layer|lins)\./;
