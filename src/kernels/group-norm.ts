import code from './group-norm.wgsl';
import type { GpuArray, Shape } from './array.ts';
import type { Capabilities } from './device.ts';
import { shapeError, wantWhole } from './errors.ts';
import { wantFloats } from './floats.ts';
import { spread } from './gpu.ts';
import type { Gpu } from './gpu.ts';
import { lanes } from './lanes.ts';
import { hostArray } from './op.ts';
import type { Op } from './op.ts';
import { outline } from './outline.ts';
import { joinRows } from './split-pieces.ts';

const THREADS = 32;

type Sums = ReturnType<typeof geometry>['sums'];

export interface GroupNormAttrs {
  groups: number;
  eps: number;
  /** Follow with z · sigmoid(z). */
  silu?: boolean;
}

/** 'whole': one thread for each group and image. 'staged': sums, finish, apply. */
export function pick(
  batch: number,
  groups: number,
  width: number,
  { family, force }: Pick<Capabilities, 'family' | 'force'>,
): 'whole' | 'staged' {
  if (width % groups !== 0) return 'staged';
  if (force.groupNorm === 'whole' || force.groupNorm === 'staged') return force.groupNorm;
  return family === 'cpu' && batch * groups >= 128 ? 'whole' : 'staged';
}

/** Pixels for each thread, so that there are enough threads, and a thread's own set-up is worth its while. */
const cut = (pixels: number, others: number, threads: number, least: number) => {
  const chunks = Math.max(1, Math.min(Math.ceil(threads / others), Math.floor(pixels / least)));
  const chunk = Math.ceil(pixels / chunks);
  return { chunks: Math.ceil(pixels / chunk), chunk };
};

function geometry(x: Shape, { groups, eps }: GroupNormAttrs, family: 'cpu' | 'gpu') {
  const channels = x.at(-1)!;
  const batch = x[0];
  const pixels = x.slice(1, -1).reduce((n, d) => n * d, 1);
  const [kernel, width] = lanes(code, channels);
  const base = { batch, pixels, width, groups, size: channels / groups, eps };
  const sums = { ...base, ...cut(pixels, batch * width, family === 'cpu' ? 512 : 32768, 16) };
  const walk = { ...base, ...cut(pixels, batch * width, family === 'cpu' ? 4096 : 131072, 8) };
  const grid = (n: number) => spread(Math.ceil(n / THREADS));
  return { channels, batch, pixels, width, kernel, sums, walk, grid };
}

/** An image that is larger than one binding is in bands. */
const partsOf = (x: GpuArray): readonly GpuArray[] => x.parts ?? [x];

/** The sums of all parts of x, one after the other: [B, chunks, 2, C]. `run` makes those of one part. */
function sumsOf(
  gpu: Gpu,
  x: GpuArray,
  attrs: GroupNormAttrs,
  run: (part: GpuArray, sums: Sums, out: GpuArray, threads: [number, number], i: number) => void,
): GpuArray {
  const partial = partsOf(x).map((part, i) => {
    const { batch, channels, width, sums, grid } = geometry(part.shape, attrs, gpu.capabilities.family);
    const out = gpu.empty([batch, sums.chunks, 2, channels]);
    run(part, sums, out, grid(batch * sums.chunks * width), i);
    return out;
  });
  const chunks = partial.reduce((n, { shape }) => n + shape[1], 0);
  return joinRows(gpu, [x.shape[0], chunks, 2, x.shape.at(-1)!], partial);
}

/**
 * Zero mean and unit variance for each group of channels of each image, then scale, shift, and if asked SiLU.
 *
 *     x̂ = (x − μ) · r,  r = 1 / √(σ² + ε)     z = x̂ · w + b     y = z, or z · sigmoid(z)
 *     x, y: [B, …, C]   w, b: [C]   μ, r: [B, groups]
 *     dz = dy · ∂y/∂z   dw = Σ dz · x̂   db = Σ dz   dx = r · (dz · w − mean(dz · w) − x̂ · mean(dz · w · x̂))
 *
 * @throws when the channels do not split into groups, w or b has another size, or a group has no numbers
 * @see Wu, He 2018, Group Normalization. https://arxiv.org/abs/1803.08494
 */
export const groupNorm: Op<[x: GpuArray, weight: GpuArray | undefined, bias: GpuArray | undefined], GroupNormAttrs> = {
  name: 'groupNorm',
  forward(gpu, [x, weight, bias], attrs) {
    wantFloats('groupNorm', { x, weight, bias });
    check(x.shape, weight?.shape, bias?.shape, attrs);
    const { channels, batch, width, kernel, sums, grid } = geometry(x.shape, attrs, gpu.capabilities.family);
    const { groups } = attrs;
    const constants = { AFFINE: weight !== undefined, BIAS: bias !== undefined, SILU: attrs.silu ?? false };
    const [w, b] = [weight ?? gpu.none, bias ?? gpu.none];
    const y = gpu.empty(x.shape, x.dtype);
    const moments = gpu.empty([2, batch, groups]);
    const [scale, shift] = [gpu.empty([batch, channels]), gpu.empty([batch, channels])];
    if (!x.parts && pick(batch, groups, width, gpu.capabilities) === 'whole') {
      gpu.run(kernel, 'whole', sums, [x, w, b, y, moments, scale, shift], grid(batch * groups), constants);
    } else {
      const [first] = partsOf(x);
      const partial = sumsOf(gpu, x, attrs, (part, own, out, threads) =>
        gpu.run(kernel, 'sums', own, [part, first, out], threads, constants),
      );
      const all = { ...sums, chunks: partial.shape[1] };
      gpu.run(kernel, 'finish', all, [first, w, b, partial, moments, scale, shift], grid(batch * groups), constants);
      for (const [i, part] of partsOf(x).entries()) {
        const { walk, grid } = geometry(part.shape, attrs, gpu.capabilities.family);
        const threads = grid(batch * walk.chunks * width);
        gpu.run(kernel, 'apply', walk, [part, scale, shift, partsOf(y)[i]], threads, constants);
      }
      partial.dispose();
    }
    return { output: y, saved: [x, weight, moments, scale, shift, bias && outline(bias)] };
  },
  backward(gpu, dy, [x, weight, moments, scale, shift, bias], attrs, needs) {
    const { channels, batch, width, kernel, sums, grid } = geometry(x.shape, attrs, gpu.capabilities.family);
    const constants = { AFFINE: weight !== undefined, SILU: attrs.silu ?? false };
    const [first] = partsOf(x);
    const slices = partsOf(dy);
    const partial = sumsOf(gpu, x, attrs, (part, own, out, threads, i) =>
      gpu.run(kernel, 'backward_sums', own, [part, first, slices[i], scale, shift, out], threads, constants),
    );
    const pq = gpu.empty([2, batch, channels]);
    const [dweight, dbias] = [gpu.empty([channels], weight?.dtype), gpu.empty([channels], bias?.dtype)];
    gpu.run(
      kernel,
      'backward_finish',
      { ...sums, chunks: partial.shape[1] },
      [first, weight ?? gpu.none, moments, partial, pq, dweight, dbias],
      grid(batch * attrs.groups + channels),
      constants,
    );
    const dx = needs[0] ? gpu.empty(x.shape, x.dtype) : undefined;
    for (const [i, part] of (dx ? partsOf(x) : []).entries()) {
      const { walk, grid } = geometry(part.shape, attrs, gpu.capabilities.family);
      const arrays = [part, pq, slices[i], scale, shift, partsOf(dx!)[i]];
      gpu.run(kernel, 'backward_apply', walk, arrays, grid(batch * walk.chunks * width), constants);
    }
    partial.dispose();
    pq.dispose();
    if (!needs[1]) dweight.dispose();
    if (!needs[2]) dbias.dispose();
    return [dx, needs[1] ? dweight : undefined, needs[2] ? dbias : undefined];
  },
  reference([x, weight, bias], { groups, eps, silu = false }) {
    const channels = x.shape.at(-1)!;
    const size = channels / groups;
    const pixels = x.data.length / x.shape[0] / channels;
    const y = hostArray(x.shape);
    for (let image = 0; image < x.shape[0]; image++) {
      for (let g = 0; g < groups; g++) {
        const places: number[] = [];
        for (let p = 0; p < pixels; p++)
          for (let k = 0; k < size; k++) places.push((image * pixels + p) * channels + g * size + k);
        const mean = places.reduce((s, i) => s + x.data[i], 0) / places.length;
        const variance = places.reduce((s, i) => s + (x.data[i] - mean) ** 2, 0) / places.length;
        for (const i of places) {
          const c = i % channels;
          const z = ((x.data[i] - mean) / Math.sqrt(variance + eps)) * (weight?.data[c] ?? 1) + (bias?.data[c] ?? 0);
          y.data[i] = silu ? z / (1 + Math.exp(-z)) : z;
        }
      }
    }
    return y;
  },
};

function check(x: Shape, weight: Shape | undefined, bias: Shape | undefined, { groups, eps }: GroupNormAttrs): void {
  const channels = x.at(-1) ?? 0;
  if (x.length < 2) throw shapeError('groupNorm', 'wants [B, …, C]', { x });
  wantWhole('groupNorm', 'groups', groups, 1, { x });
  if (!(eps >= 0)) throw shapeError('groupNorm', `eps is ${eps}, must be 0 or more`, { x });
  if (x.slice(1).includes(0)) throw shapeError('groupNorm', 'groups without numbers have no mean', { x });
  if (channels % groups !== 0)
    throw shapeError('groupNorm', `${channels} channels do not split into ${groups} groups`, { x });
  for (const p of [weight, bias]) {
    if (p && (p.length !== 1 || p[0] !== channels))
      throw shapeError('groupNorm', 'channels differ', { x, weight, bias }, 'x is channels-last: [B, …, C]');
  }
}
