import { upsampleNearest } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { Module } from '../module.ts';
import { Conv2d } from './conv2d.ts';
import type { Padding } from './conv2d.ts';

/** Half the pixels each way, by a convolution with stride 2. The VAE pads right and bottom only: `[0, 1, 0, 1]`. */
export class Downsample2D extends Module {
  conv: Conv2d;

  constructor(channels: number, padding: Padding = 1) {
    super();
    this.conv = new Conv2d(channels, channels, 3, { stride: 2, padding });
  }

  /** x: [B, H, W, C] → [B, ⌈H/2⌉, ⌈W/2⌉, C]; the VAE's rounds down */
  forward(x: Tensor): Tensor {
    return this.conv.forward(x);
  }
}

/** Each pixel becomes four, then a convolution. */
export class Upsample2D extends Module {
  conv: Conv2d;

  constructor(channels: number) {
    super();
    this.conv = new Conv2d(channels, channels, 3, { padding: 1 });
  }

  /** x: [B, H, W, C] → [B, 2H, 2W, C], or to `size`: an odd image was rounded up on its way down */
  forward(x: Tensor, [height, width] = [2 * x.shape[1], 2 * x.shape[2]]): Tensor {
    return this.conv.forward(upsampleNearest(x, { size: [height, width] }));
  }
}
