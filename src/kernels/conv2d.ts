import type { GpuArray, Shape } from './array.ts';
import { castTo } from './cast.ts';
import { convForward, convInput, convOf, convWeight, sums } from './conv2d-launch.ts';
import type { ConvAttrs } from './conv2d-launch.ts';
import { shapeError } from './errors.ts';
import { wantFloats } from './floats.ts';
import { hostArray } from './op.ts';
import type { Inputs, Op } from './op.ts';
import { outline } from './outline.ts';

type ConvInputs = [x: GpuArray, weight: GpuArray, bias?: GpuArray, residual?: GpuArray, temb?: GpuArray];

/** The shape of `conv2d`'s output. @throws when the shapes do not fit */
export function convShape([x, weight]: Inputs, attrs: ConvAttrs): Shape {
  const { B, Ho, Wo, O } = convOf('conv2d', x!.shape, weight!.shape, attrs);
  return [B, Ho, Wo, O];
}

/**
 * 2-D convolution, with what a ResNet block adds to it in the same pass.
 *
 *     y[b, i, j, o] = Σ_{ky, kx, c} x[b, s·i + d·ky − top, s·j + d·kx − left, c] · weight[o, ky, kx, c]
 *                     + bias[o] + residual[b, i, j, o] + temb[b, o]
 *
 *     x: [B, H, W, C]   weight: [O, kh, kw, C / groups]   bias: [O]   residual, y: [B, Ho, Wo, O]   temb: [B, O]
 *     Ho = ⌊(H + top + bottom − d·(kh − 1) − 1) / s⌋ + 1
 *
 *     dx = the transposed convolution of dy      dweight[o, ky, kx, c] = Σ_{b, i, j} dy[b, i, j, o] · x[…as above…, c]
 *     dbias = Σ_{b, i, j} dy      dresidual = dy      dtemb = Σ_{i, j} dy
 *
 * @throws when channels or groups do not fit, the kernel exceeds the padded image, or an addend has another shape
 * @see Dumoulin & Visin 2016, A guide to convolution arithmetic. https://arxiv.org/abs/1603.07285
 */
export const conv2d: Op<ConvInputs, ConvAttrs> = {
  name: 'conv2d',
  forward(gpu, [x, weight, bias, residual, temb], attrs) {
    wantFloats('conv2d', { x, weight, bias, residual, temb });
    const c = convOf('conv2d', x.shape, weight.shape, attrs);
    const shape = [c.B, c.Ho, c.Wo, c.O];
    if (bias && (bias.shape.length !== 1 || bias.size !== c.O))
      throw shapeError('conv2d', `bias must be [${c.O}]`, { x, weight, bias });
    if (residual && !same(residual.shape, shape))
      throw shapeError('conv2d', `residual must be like y, [${shape.join(', ')}]`, { x, weight, residual });
    if (temb && !same(temb.shape, [c.B, c.O]))
      throw shapeError('conv2d', `temb must be [${c.B}, ${c.O}]`, { x, weight, temb });
    const y = gpu.empty(shape, x.dtype);
    convForward(gpu, c, x, weight, y, { bias, residual, temb });
    return { output: y, saved: [x, weight, ...[bias, residual, temb].map((extra) => extra && outline(extra))] };
  },
  backward(gpu, dy, [x, weight, bias, residual, temb], attrs, needs) {
    const c = convOf('conv2d', x.shape, weight.shape, attrs);
    const pixels = c.Ho * c.Wo;
    let dx, dweight, dbias, dtemb;
    if (needs[0]) convInput(gpu, c, dy, weight, (dx = gpu.empty(x.shape, x.dtype)));
    if (needs[1]) dweight = convWeight(gpu, c, x, dy, weight);
    if (needs[4]) dtemb = sums(gpu, dy, c.B, pixels, c.O, temb.dtype);
    if (needs[2]) {
      const total =
        dtemb?.dtype === 'f32'
          ? sums(gpu, dtemb, 1, c.B, c.O, bias.dtype)
          : sums(gpu, dy, 1, c.B * pixels, c.O, bias.dtype);
      dbias = total.view([c.O]);
      total.dispose();
    }
    return [dx, dweight, dbias, needs[3] ? castTo(dy, residual.dtype) : undefined, dtemb];
  },
  reference([x, weight, bias, residual, temb], attrs) {
    const { B, H, W, C, Ho, Wo, O, kh, kw, stride, dilation, groups, top, left } = convOf(
      'conv2d',
      x.shape,
      weight.shape,
      attrs,
    );
    const I = C / groups;
    const y = hostArray([B, Ho, Wo, O]);
    for (let i = 0; i < y.data.length; i++) {
      const o = i % O;
      const [b, oy, ox] = [Math.floor(i / (O * Wo * Ho)), Math.floor(i / (O * Wo)) % Ho, Math.floor(i / O) % Wo];
      let sum = (bias?.data[o] ?? 0) + (residual?.data[i] ?? 0) + (temb?.data[b * O + o] ?? 0);
      for (let ky = 0; ky < kh; ky++) {
        for (let kx = 0; kx < kw; kx++) {
          const iy = oy * stride + ky * dilation - top;
          const ix = ox * stride + kx * dilation - left;
          if (iy < 0 || ix < 0 || iy >= H || ix >= W) continue;
          const from = ((b * H + iy) * W + ix) * C + Math.floor(o / (O / groups)) * I;
          const at = ((o * kh + ky) * kw + kx) * I;
          for (let c = 0; c < I; c++) sum += x.data[from + c] * weight.data[at + c];
        }
      }
      y.data[i] = sum;
    }
    return y;
  },
};

const same = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((d, i) => d === b[i]);
