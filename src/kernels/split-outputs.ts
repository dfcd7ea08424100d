import type { GpuArray, Shape } from './array.ts';
import { castTo } from './cast.ts';
import { convShape } from './conv2d.ts';
import { copyStrided } from './copy.ts';
import type { Gpu } from './gpu.ts';
import { outline } from './outline.ts';
import { addTo, joinRows, rowsOf } from './split-pieces.ts';
import type { Operands, Rule } from './split-pieces.ts';

/**
 * x·Wᵀ or x ⋆ W with W in parts: each part of W makes some columns of y.
 *
 *     y[.., part] = x·W[part]ᵀ + bias[part]    dx = Σ dy[.., part]·W[part]    dW[part] = dy[.., part]ᵀ·x
 *
 * `shapeOf`: of y. The last two operands, `residual` and `temb`, have its columns too.
 */
function byOutputs(shapeOf: (inputs: Operands, attrs: any) => Shape): Rule {
  return (op, inputs, attrs) => {
    const [x, weight, bias, ...addends] = inputs as [GpuArray, GpuArray, ...(GpuArray | undefined)[]];
    if (attrs.groups > 1 || [x, ...addends].some((array) => array?.parts)) return undefined;
    const shape = shapeOf(inputs, attrs);
    const N = shape.at(-1)!;
    /** Some columns of an array, copied from it or to it. */
    const columns = (gpu: Gpu, all: GpuArray, first: number, part: GpuArray, write: boolean) => {
      const n = part.shape.at(-1)!;
      const sizes = [part.size / n, n];
      const [inAll, inPart] = [
        { offset: first, strides: [N, 1] },
        { offset: 0, strides: [n, 1] },
      ];
      if (write) copyStrided(gpu, sizes, part, inPart, all, inAll);
      else copyStrided(gpu, sizes, all, inAll, part, inPart);
    };
    const take = (gpu: Gpu, all: GpuArray, first: number, n: number) => {
      const part = gpu.empty([...all.shape.slice(0, -1), n], all.dtype);
      columns(gpu, all, first, part, false);
      return part;
    };
    return {
      ...op,
      forward(gpu) {
        const y = gpu.empty(shape, x.dtype);
        let first = 0;
        for (const part of weight.parts!) {
          const [n] = part.shape;
          const extras = [
            bias && rowsOf(bias, first, first + n),
            ...addends.map((all) => all && take(gpu, all, first, n)),
          ];
          const operands = [x, part, ...extras];
          const { output, saved = [] } = op.forward(gpu, operands, attrs);
          columns(gpu, y, first, output, true);
          for (const array of new Set([...extras, ...saved, output]))
            if (array !== x && array !== part) array?.dispose();
          first += n;
        }
        return { output: y, saved: [x, weight, ...[bias, ...addends].map((array) => array && outline(array))] };
      },
      backward(gpu, dy, [x, weight, bias, residual, temb], _, needs) {
        let dx: GpuArray | undefined;
        const dweight: GpuArray[] = [];
        const dbias: GpuArray[] = [];
        const dtemb = needs[4] ? gpu.empty(temb.shape, temb.dtype) : undefined;
        let first = 0;
        for (const part of weight.parts!) {
          const [n] = part.shape;
          const slice = take(gpu, dy, first, n);
          const saved = [x, part, bias, residual, temb];
          const [dxPart, dw, db, , dt] = op.backward!(
            gpu,
            slice,
            saved,
            attrs,
            needs.map((need, i) => need && i !== 3),
          );
          if (dxPart) dx = addTo(dx, dxPart);
          if (dw) dweight.push(dw);
          if (db) dbias.push(db);
          if (dt) columns(gpu, dtemb!, first, dt, true);
          dt?.dispose();
          slice.dispose();
          first += n;
        }
        return [
          dx,
          needs[1] ? joinRows(gpu, weight.shape, dweight) : undefined,
          needs[2] ? joinRows(gpu, [N], dbias) : undefined,
          needs[3] ? castTo(dy, residual.dtype) : undefined,
          dtemb,
        ];
      },
    };
  };
}

/** A fully connected layer with its weight in parts. */
export const linearInParts = byOutputs(([x, weight]) => [...x!.shape.slice(0, -1), weight!.shape[0]]);
/** A convolution with its weight in parts. */
export const convInParts = byOutputs(convShape);
