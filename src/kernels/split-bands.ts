/**
 * How ops work on an image that is larger than one binding by itself: it lies in bands, some rows of pixels each (see
 * GpuArray), and is alone in its batch; split.ts takes larger batches apart.
 */
import { accumulate } from './accumulate.ts';
import type { GpuArray, Shape } from './array.ts';
import { conv2d, convShape } from './conv2d.ts';
import { convOf } from './conv2d-launch.ts';
import type { ConvAttrs } from './conv2d-launch.ts';
import { copyRange } from './copy.ts';
import { outline } from './outline.ts';
import { addTo, pieceByPiece } from './split-pieces.ts';
import type { Rule } from './split-pieces.ts';
import { resizedShape, upsampleNearest } from './upsample.ts';
import type { ResizeAttrs } from './upsample.ts';

/** Rows `from` … `to` of an image, copied.   x: [1, H, W, C] → [1, to − from, W, C] */
function bandOf(x: GpuArray, from: number, to: number): GpuArray {
  const band = x.gpu.empty([1, to - from, ...x.shape.slice(2)], x.dtype);
  copyRange(x, (from * x.size) / x.shape[1], band, 0, band.size);
  return band;
}

/** And back. Frees the band. */
function putBand(band: GpuArray, x: GpuArray, from: number): void {
  copyRange(band, 0, x, (from * x.size) / x.shape[1], band.size);
  band.dispose();
}

const rowBytes = ([, , W, C]: Shape): number => 4 * W * C;

/** Each band of the output looks at the rows of the input that its taps reach. */
export const convInBands: Rule = (_, inputs, attrs: ConvAttrs) => {
  const [x, weight, bias, residual, temb] = inputs as [GpuArray, GpuArray, ...(GpuArray | undefined)[]];
  const { padding = 0 } = attrs;
  const [left, right, top, bottom] = typeof padding === 'number' ? Array<number>(4).fill(padding) : padding;
  const { H, Ho, kh, stride, dilation } = convOf('conv2d', x.shape, weight.shape, attrs);
  const shape = convShape(inputs, attrs);
  const reach = dilation * (kh - 1) + 1;
  const limit = x.gpu.arrayLimit;
  const most = Math.min(limit / rowBytes(shape), (limit / rowBytes(x.shape) - reach) / stride + 1);
  if (most < 1 || Math.max(top, bottom) >= reach) return undefined;
  const lines = most < 2 ? 1 : 2 * Math.floor(most / 2); // even: Winograd's tiles are two high
  const bands = Array.from({ length: Math.ceil(Ho / lines) }, (_, i) => {
    const from = i * lines;
    const to = Math.min(from + lines, Ho);
    const [first, last] = [from * stride - top, (to - 1) * stride - top + reach];
    const [inFrom, inTo] = [Math.max(0, first), Math.min(H, last)];
    return {
      from,
      to,
      inFrom,
      inTo,
      attrs: { ...attrs, padding: [left, right, inFrom - first, last - inTo] as const },
    };
  });
  return {
    ...conv2d,
    forward(gpu) {
      const y = gpu.empty(shape, x.dtype);
      for (const { from, to, inFrom, inTo, attrs } of bands) {
        const own = bandOf(x, inFrom, inTo);
        const addend = residual && bandOf(residual, from, to);
        const { output, saved } = conv2d.forward(gpu, [own, weight, bias, addend, temb], attrs);
        putBand(output, y, from);
        for (const array of [own, addend, ...saved!.slice(2)]) array?.dispose();
      }
      return { output: y, saved: [x, weight, ...[bias, residual, temb].map((array) => array && outline(array))] };
    },
    backward(gpu, dy, [x, weight, ...rest], _, needs) {
      const dx = needs[0] ? gpu.zeros(x.shape, x.dtype) : undefined;
      const totals: (GpuArray | undefined)[] = [];
      for (const { from, to, inFrom, inTo, attrs } of bands) {
        const own = bandOf(x, inFrom, inTo);
        const slice = bandOf(dy, from, to);
        const wanted = needs.map((need, i) => need && i !== 3);
        const [part, ...gradients] = conv2d.backward!(gpu, slice, [own, weight, ...rest], attrs, wanted);
        if (part) {
          const sum = bandOf(dx!, inFrom, inTo); // bands overlap by the reach of the taps
          accumulate(sum, part);
          putBand(sum, dx!, inFrom);
        }
        for (const array of [own, slice, part]) array?.dispose();
        gradients.forEach((g, i) => g && (totals[i] = addTo(totals[i], g)));
      }
      const [dweight, dbias, , dtemb] = totals;
      return [dx, dweight, dbias, needs[3] ? dy.view() : undefined, dtemb];
    },
  };
};

/** By whole factors, so that each row of the input makes rows of its own. */
export const upsampleInBands: Rule = (_, inputs, attrs: ResizeAttrs) => {
  const [x] = inputs as [GpuArray];
  const shape = resizedShape(x.shape, attrs);
  const factor = shape[1] / x.shape[1];
  const most = Math.floor(x.gpu.arrayLimit / rowBytes(shape) / factor);
  if (!Number.isInteger(factor) || most < 1) return undefined;
  const each = (run: (from: number, to: number, attrs: ResizeAttrs) => void) => {
    for (let from = 0, to; from < x.shape[1]; from = to) {
      to = Math.min(from + most, x.shape[1]);
      run(from, to, { size: [factor * (to - from), shape[2]] });
    }
  };
  return {
    ...upsampleNearest,
    forward(gpu) {
      const y = gpu.empty(shape, x.dtype);
      each((from, to, size) => {
        const own = bandOf(x, from, to);
        putBand(upsampleNearest.forward(gpu, [own], size).output, y, factor * from);
        own.dispose();
      });
      return { output: y, saved: [outline(x)] };
    },
    backward(gpu, dy, [like]) {
      const dx = gpu.empty(like.shape, like.dtype);
      each((from, to, size) => {
        const slice = bandOf(dy, factor * from, factor * to);
        const own = bandOf(dx, from, to); // for its shape
        putBand(upsampleNearest.backward!(gpu, slice, [own], size, [true])[0]!, dx, from);
        for (const array of [own, slice]) array.dispose();
      });
      return [dx];
    },
  };
};

/** The axes along which an array in parts is cut. */
export const cutAxes = ({ shape, parts }: GpuArray): number[] =>
  shape.flatMap((d, i) => (d === parts![0].shape[i] ? [] : i));

/** Part by part; operands that are not in parts must be the same for all. */
export const partByPart = pieceByPiece((inputs) => {
  const divided = inputs.find((x) => x?.parts)!;
  const { shape } = divided;
  const cut = Math.max(...cutAxes(divided));
  const shared = (x: GpuArray) => shape.every((_, i) => i > cut || (x.shape.at(i - shape.length) ?? 1) === 1);
  const fit = inputs.every((x) => !x || (x.parts ? x.shape.join() === shape.join() : shared(x)));
  return fit ? inputs.map((x) => x?.parts !== undefined) : undefined;
});
