import type { GpuArray } from './array.ts';
import { convForward, convInput, convOf, convWeight, sums } from './conv2d-launch.ts';
import type { ConvAttrs } from './conv2d-launch.ts';
import { shapeError, wantWhole } from './errors.ts';
import { wantFloats } from './floats.ts';
import { hostArray } from './op.ts';
import type { Op } from './op.ts';
import { outline } from './outline.ts';

/** What convTranspose2d takes: stride, padding, dilation and groups of the convolution that it transposes. */
export interface ConvTransposeAttrs extends ConvAttrs {
  /** Rows and columns added at the bottom and right of y, to choose among the sizes that the stride allows. */
  outputPadding?: number;
}

/** The convolution that this one transposes: it maps y to x. */
function transposed(x: readonly number[], weight: readonly number[], attrs: ConvTransposeAttrs) {
  const { stride = 1, padding = 0, dilation = 1, groups = 1, outputPadding = 0 } = attrs;
  const say = (what: string) => shapeError('convTranspose2d', what, { x, weight });
  if (x.length !== 4) throw say('x must be [B, H, W, I]');
  if (weight.length !== 4) throw say('weight must be [I, kh, kw, O / groups]');
  if (x[3] !== weight[0]) throw say(`channels differ (${x[3]} ≠ ${weight[0]})`);
  for (const [name, value] of Object.entries({ stride, dilation, groups }))
    wantWhole('convTranspose2d', name, value, 1, { x, weight });
  wantWhole('convTranspose2d', 'outputPadding', outputPadding, 0, { x, weight });
  if (x[1] * x[2] === 0) throw say('x has no pixels');
  if (outputPadding >= Math.max(stride, dilation))
    throw say(`outputPadding ${outputPadding} must be below the stride or dilation`);
  const [left, right, top, bottom] = typeof padding === 'number' ? [padding, padding, padding, padding] : padding;
  const length = (n: number, k: number, pads: number) =>
    (n - 1) * stride - pads + dilation * (k - 1) + outputPadding + 1;
  const y = [x[0], length(x[1], weight[1], top + bottom), length(x[2], weight[2], left + right), weight[3] * groups];
  if (y[1] < 1 || y[2] < 1) throw say('the padding leaves nothing');
  return { ...convOf('convTranspose2d', y, weight, attrs), Ho: x[1], Wo: x[2] };
}

/**
 * Transposed convolution: what the gradient of a convolution does with dy, as an op of its own.
 *
 *     y[b, s·i + d·ky − top, s·j + d·kx − left, o] += x[b, i, j, c] · weight[c, ky, kx, o]      + bias[o]
 *
 *     x: [B, H, W, I]   weight: [I, kh, kw, O / groups]   bias: [O]   y: [B, Ho, Wo, O]
 *     Ho = (H − 1)·s − top − bottom + d·(kh − 1) + outputPadding + 1
 *
 *     dx = the convolution of dy      dweight = the weight gradient of that convolution      dbias = Σ dy
 *
 * @throws when channels or groups do not fit, the padding leaves nothing, or outputPadding reaches the stride
 * @see Dumoulin & Visin 2016, A guide to convolution arithmetic, §4. https://arxiv.org/abs/1603.07285
 */
export const convTranspose2d: Op<[x: GpuArray, weight: GpuArray, bias?: GpuArray], ConvTransposeAttrs> = {
  name: 'convTranspose2d',
  forward(gpu, [x, weight, bias], attrs) {
    wantFloats('convTranspose2d', { x, weight, bias });
    const c = transposed(x.shape, weight.shape, attrs);
    if (bias && (bias.shape.length !== 1 || bias.size !== c.C))
      throw shapeError('convTranspose2d', `bias must be [${c.C}]`, { x, weight, bias });
    const y = gpu.empty([c.B, c.H, c.W, c.C], x.dtype);
    convInput(gpu, c, x, weight, y, { bias });
    return { output: y, saved: [x, weight, bias && outline(bias)] };
  },
  backward(gpu, dy, [x, weight, bias], attrs, needs) {
    const c = transposed(x.shape, weight.shape, attrs);
    let dx, dweight, dbias;
    if (needs[0]) convForward(gpu, c, dy, weight, (dx = gpu.empty(x.shape, x.dtype)));
    if (needs[1]) dweight = convWeight(gpu, c, dy, x, weight);
    if (needs[2]) {
      const total = sums(gpu, dy, 1, c.B * c.H * c.W, c.C, bias.dtype);
      dbias = total.view([c.C]);
      total.dispose();
    }
    return [dx, dweight, dbias];
  },
  reference([x, weight, bias], attrs) {
    const {
      B,
      H,
      W,
      C: O,
      Ho,
      Wo,
      O: I,
      kh,
      kw,
      stride,
      dilation,
      groups,
      top,
      left,
    } = transposed(x.shape, weight.shape, attrs);
    const Og = O / groups;
    const y = hostArray([B, H, W, O]);
    for (let i = 0; i < y.data.length; i++) y.data[i] = bias?.data[i % O] ?? 0;
    for (let i = 0; i < x.data.length; i++) {
      const c = i % I;
      const [b, iy, ix] = [Math.floor(i / (I * Wo * Ho)), Math.floor(i / (I * Wo)) % Ho, Math.floor(i / I) % Wo];
      for (let ky = 0; ky < kh; ky++) {
        for (let kx = 0; kx < kw; kx++) {
          const oy = iy * stride + ky * dilation - top;
          const ox = ix * stride + kx * dilation - left;
          if (oy < 0 || ox < 0 || oy >= H || ox >= W) continue;
          const to = ((b * H + oy) * W + ox) * O + Math.floor(c / (I / groups)) * Og;
          for (let o = 0; o < Og; o++) y.data[to + o] += x.data[i] * weight.data[((c * kh + ky) * kw + kx) * Og + o];
        }
      }
    }
    return y;
  },
};
