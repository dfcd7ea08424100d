import code from './layer-norm.wgsl';
import { sizeOf } from './array.ts';
import type { GpuArray, Shape } from './array.ts';
import type { Capabilities } from './device.ts';
import { shapeError, wantWhole } from './errors.ts';
import { wantFloats } from './floats.ts';
import { spread } from './gpu.ts';
import { lanes } from './lanes.ts';
import { hostArray } from './op.ts';
import type { Op } from './op.ts';
import { outline } from './outline.ts';

export interface LayerNormAttrs {
  eps: number;
  /** How many of the last axes are normalised together; 1 when absent. */
  axes?: number;
}

/** Threads for a row of `width` V and rows for a workgroup: 'thread' gives each row one thread, 'team' 32 or 256. */
export function pick(
  op: string,
  width: number,
  { family, force }: Pick<Capabilities, 'family' | 'force'>,
): { TEAM: number; ROWS: number } {
  const variant = force[op] ?? (family === 'cpu' || width < 8 ? 'thread' : 'team');
  if (variant === 'thread') return { TEAM: 1, ROWS: 32 };
  return width <= 256 ? { TEAM: 32, ROWS: 8 } : { TEAM: 256, ROWS: 1 };
}

function geometry(x: Shape, { eps, axes = 1 }: LayerNormAttrs, capabilities: Capabilities) {
  const count = sizeOf(x.slice(x.length - axes));
  const rows = sizeOf(x) / count;
  const [kernel, width] = lanes(code, count);
  const team = pick('layerNorm', width, capabilities);
  const wanted = Math.ceil((capabilities.family === 'cpu' ? 512 : 16384) / width);
  const chunk = Math.max(16, Math.ceil(rows / wanted));
  const uniforms = { rows, width, count, eps, chunk, chunks: Math.ceil(rows / chunk) };
  return { kernel, uniforms, team, grid: spread(Math.ceil(rows / team.ROWS)) };
}

/**
 * Zero mean and unit variance over the last axis (or the last few), then scale and shift.
 *
 *     x̂ = (x − μ) · r,  r = 1 / √(σ² + ε)     y = x̂ · w + b          x, y: [rows, width]   w, b: [width]
 *     dw = Σ dy · x̂   db = Σ dy   dx = r · (dy · w − mean(dy · w) − x̂ · mean(dy · w · x̂))
 *
 * @throws when w or b is not shaped like the normalised axes, or rows have no numbers
 * @see Ba et al. 2016, Layer Normalization, §3. https://arxiv.org/abs/1607.06450
 */
export const layerNorm: Op<[x: GpuArray, weight: GpuArray | undefined, bias: GpuArray | undefined], LayerNormAttrs> = {
  name: 'layerNorm',
  forward(gpu, [x, weight, bias], attrs) {
    wantFloats('layerNorm', { x, weight, bias });
    check(x.shape, weight?.shape, bias?.shape, attrs);
    const { kernel, uniforms, team, grid } = geometry(x.shape, attrs, gpu.capabilities);
    const y = gpu.empty(x.shape, x.dtype);
    const moments = gpu.empty([uniforms.rows, 2]);
    const constants = { ...team, AFFINE: weight !== undefined, BIAS: bias !== undefined };
    gpu.run(kernel, 'forward', uniforms, [x, weight ?? gpu.none, bias ?? gpu.none, y, moments], grid, constants);
    return { output: y, saved: [x, weight, moments, bias && outline(bias)] };
  },
  backward(gpu, dy, [x, weight, moments, bias], attrs, needs) {
    const { kernel, uniforms, team, grid } = geometry(x.shape, attrs, gpu.capabilities);
    const constants = { ...team, AFFINE: weight !== undefined };
    const dx = needs[0] ? gpu.empty(x.shape, x.dtype) : undefined;
    if (dx) gpu.run(kernel, 'backward', uniforms, [x, weight ?? gpu.none, dy, dx, moments], grid, constants);
    if (!needs[1] && !needs[2]) return [dx];
    const shape = x.shape.slice(x.shape.length - (attrs.axes ?? 1));
    const partial = gpu.empty([2, uniforms.chunks, uniforms.count]);
    const [dweight, dbias] = [gpu.empty(shape, weight?.dtype), gpu.empty(shape, bias?.dtype)];
    const flat = { TEAM: 1, ROWS: 32 };
    gpu.run(
      kernel,
      'columns',
      uniforms,
      [x, dy, moments, partial],
      spread(Math.ceil((uniforms.chunks * uniforms.width) / 32)),
      flat,
    );
    gpu.run(kernel, 'finish', uniforms, [partial, dweight, dbias], [Math.ceil(uniforms.width / 32)], flat);
    partial.dispose();
    if (!needs[1]) dweight.dispose();
    if (!needs[2]) dbias.dispose();
    return [dx, needs[1] ? dweight : undefined, needs[2] ? dbias : undefined];
  },
  reference([x, weight, bias], { eps, axes = 1 }) {
    const width = sizeOf(x.shape.slice(x.shape.length - axes));
    const y = hostArray(x.shape);
    for (let row = 0; row < x.data.length; row += width) {
      const values = x.data.subarray(row, row + width);
      const mean = values.reduce((s, v) => s + v, 0) / width;
      const variance = values.reduce((s, v) => s + (v - mean) ** 2, 0) / width;
      values.forEach((v, i) => {
        y.data[row + i] = ((v - mean) / Math.sqrt(variance + eps)) * (weight?.data[i] ?? 1) + (bias?.data[i] ?? 0);
      });
    }
    return y;
  },
};

function check(x: Shape, weight: Shape | undefined, bias: Shape | undefined, { eps, axes = 1 }: LayerNormAttrs): void {
  wantWhole('layerNorm', 'axes', axes, 1, { x });
  if (axes > x.length) throw shapeError('layerNorm', `there are no ${axes} axes`, { x, weight, bias });
  if (!(eps >= 0)) throw shapeError('layerNorm', `eps is ${eps}, must be 0 or more`, { x });
  const shape = x.slice(x.length - axes);
  if (shape.includes(0)) throw shapeError('layerNorm', 'rows without numbers have no mean', { x });
  for (const p of [weight, bias]) {
    if (p && p.join() !== shape.join())
      throw shapeError('layerNorm', 'the normalised axes differ', { x, weight, bias });
  }
}
