import code from './copy.wgsl';
import type { GpuArray, Shape } from './array.ts';
import { shapeError } from './errors.ts';
import { wantFloats } from './floats.ts';
import { spread } from './gpu.ts';
import type { Gpu } from './gpu.ts';

const kernels = new Map<string, string>();

/** The kernel that moves one `V` at a time. */
function kernelOf(V: string): string {
  let kernel = kernels.get(V);
  if (!kernel) kernels.set(V, (kernel = code.replace('alias V = vec4u;', `alias V = ${V};`)));
  return kernel;
}

/** How many numbers a `V` holds, the most first: words where bits can be copied, floats to convert or to reach single halves. */
const UNITS = {
  bits: { 4: 'vec4u', 1: 'u32' },
  halves: { 8: 'vec4u', 4: 'vec2u', 2: 'u32', 1: 'f32' },
  mixed: { 4: 'vec4f', 1: 'f32' },
} as const;

/** A walk through an array: where it starts, and what a step along each axis adds. In numbers; may be 0 or negative. */
export interface Walk {
  offset: number;
  strides: readonly number[];
}

/** Strides of a dense array, with each axis of size 1 standing still. */
export function denseStrides(shape: Shape): number[] {
  const strides = Array<number>(shape.length).fill(1);
  for (let i = shape.length - 2; i >= 0; i--) strides[i] = strides[i + 1] * shape[i + 1];
  return strides;
}

/** The walk through all of a dense array. */
export const dense = (shape: Shape): Walk => ({ offset: 0, strides: denseStrides(shape) });

/** to[…] = from[…] for every place of `sizes`, f16 and f32 converted. Writes nothing else. */
export function copyStrided(gpu: Gpu, sizes: Shape, from: GpuArray, fromWalk: Walk, to: GpuArray, toWalk: Walk): void {
  if (sizes.includes(0)) return;
  type Axis = { size: number; f: number; t: number };
  const axes: Axis[] = [];
  sizes.forEach((size, i) => {
    if (size === 1) return;
    const [f, t] = [fromWalk.strides[i], toWalk.strides[i]];
    const outer = axes.at(-1);
    if (outer && outer.f === f * size && outer.t === t * size)
      axes[axes.length - 1] = { size: outer.size * size, f, t };
    else axes.push({ size, f, t });
  });
  if (!axes.length) axes.push({ size: 1, f: 0, t: 0 });
  if (axes.length > 6) throw shapeError('copy', 'more than six groups of axes', { sizes }, 'reshape first');
  const last = axes.at(-1)!;
  const halves = [from, to].filter(({ dtype }) => dtype === 'f16').length;
  if (halves) wantFloats('copy', { from, to });
  const kinds: Record<number, string> = UNITS[halves === 2 ? 'halves' : halves === 1 ? 'mixed' : 'bits'];
  const steps = [last.size, fromWalk.offset, toWalk.offset, ...axes.slice(0, -1).flatMap((axis) => [axis.f, axis.t])];
  const fits = (unit: number) => last.f === 1 && last.t === 1 && steps.every((step) => step % unit === 0);
  const unit = [8, 4, 2].find((n) => kinds[n] && fits(n)) ?? 1;
  const uniforms: Record<string, number> = {
    from_offset: fromWalk.offset / unit,
    to_offset: toWalk.offset / unit,
    n: 1,
  };
  const padded: Axis[] = [...Array<Axis>(6 - axes.length).fill({ size: 1, f: 0, t: 0 }), ...axes];
  padded.forEach((axis, i) => {
    const step = i === 5 ? 1 : unit;
    const size = i === 5 ? axis.size / unit : axis.size;
    uniforms.n *= size;
    if (i > 0) uniforms[`d${i}`] = size;
    uniforms[`f${i}`] = axis.f / step;
    uniforms[`t${i}`] = axis.t / step;
  });
  const constants = { RANK: axes.length };
  gpu.run(kernelOf(kinds[unit]), 'copy', uniforms, [from, to], spread(Math.ceil(uniforms.n / 1024)), constants);
}

/** to[at + i] = from[start + i] for i < count, whatever parts the two lie in. */
export function copyRange(from: GpuArray, start: number, to: GpuArray, at: number, count: number): void {
  let f = 0;
  for (const source of from.parts ?? [from]) {
    let t = 0;
    for (const target of to.parts ?? [to]) {
      // The stretch of the copy that begins and ends in this pair of parts.
      const first = Math.max(0, f - start, t - at);
      const last = Math.min(count, f + source.size - start, t + target.size - at);
      const walk = (offset: number): Walk => ({ offset, strides: [1] });
      if (first < last)
        copyStrided(from.gpu, [last - first], source, walk(start + first - f), target, walk(at + first - t));
      t += target.size;
    }
    f += source.size;
  }
}
