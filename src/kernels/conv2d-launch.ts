import type { DType, GpuArray } from './array.ts';
import type { Capabilities } from './device.ts';
import { shapeError } from './errors.ts';
import { spread } from './gpu.ts';
import type { Gpu } from './gpu.ts';
import naive from './conv2d.wgsl';
import naiveWeights from './conv2d-weights.wgsl';
import subgroupTile from './conv2d-subgroup.wgsl';
import subgroupWeights from './conv2d-weights-subgroup.wgsl';
import workgroupTile from './conv2d-workgroup.wgsl';
import workgroupWeights from './conv2d-weights-workgroup.wgsl';
import { unrolledOnce } from './unroll.ts';
import sumsCode from './conv2d-sums.wgsl';
import { convOnUnits, convWeightOnUnits } from './conv2d-units.ts';
import { canWinograd, winograd, winogradPays } from './conv2d-winograd.ts';
import type { Gathered } from './conv2d-winograd.ts';

/** What conv2d and convTranspose2d take. `padding` is one number or [left, right, top, bottom]. */
export interface ConvAttrs {
  stride?: number;
  padding?: number | readonly [left: number, right: number, top: number, bottom: number];
  dilation?: number;
  groups?: number;
}

/** A convolution with everything worked out: x [B, H, W, C] ⋆ w [O, kh, kw, C / groups] → y [B, Ho, Wo, O]. */
export interface Conv {
  B: number;
  H: number;
  W: number;
  C: number;
  Ho: number;
  Wo: number;
  O: number;
  kh: number;
  kw: number;
  stride: number;
  dilation: number;
  groups: number;
  top: number;
  left: number;
}

/** @returns the geometry of `x ⋆ weight` @throws when the shapes do not fit */
export function convOf(op: string, x: readonly number[], weight: readonly number[], attrs: ConvAttrs): Conv {
  const { stride = 1, padding = 0, dilation = 1, groups = 1 } = attrs;
  const say = (what: string, fix = '') => shapeError(op, what, { x, weight }, fix);
  if (x.length !== 4) throw say('x must be [B, H, W, C]');
  if (weight.length !== 4) throw say('weight must be [O, kh, kw, I]');
  const [left, right, top, bottom] = typeof padding === 'number' ? [padding, padding, padding, padding] : padding;
  const [B, H, W, C] = x;
  const [O, kh, kw, I] = weight;
  for (const [name, value] of Object.entries({ stride, dilation, groups })) {
    if (!Number.isInteger(value) || value < 1) throw say(`${name} is ${value}, must be 1 or more`);
  }
  for (const pad of [left, right, top, bottom]) {
    if (!Number.isInteger(pad) || pad < 0) throw say(`padding is ${pad}, must be 0 or more`);
  }
  if (H * W * C * O * kh * kw === 0) throw say('there is nothing to convolve', 'only the batch may be empty');
  if (O % groups) throw say(`${O} output channels do not fall into ${groups} groups`);
  if (C !== I * groups) {
    const fix = weight[1] === C ? 'is the weight [O, I, kh, kw]? The layout here is [O, kh, kw, I]' : '';
    throw say(`x has ${C} channels, weight wants ${I * groups}`, fix);
  }
  const Ho = Math.floor((H + top + bottom - dilation * (kh - 1) - 1) / stride) + 1;
  const Wo = Math.floor((W + left + right - dilation * (kw - 1) - 1) / stride) + 1;
  if (Ho < 1 || Wo < 1) throw say(`the kernel does not fit into the padded image`);
  return { B, H, W, C, Ho, Wo, O, kh, kw, stride, dilation, groups, top, left };
}

export type ConvVariant = 'naive' | 'subgroup-tile' | 'workgroup-tile' | 'winograd';

/**
 * The variant for this adapter, where matrix units do not take the convolution; `capabilities.force.conv2d` pins one where the adapter, the groups and the taps allow it.
 * `gathered` is what is to be made where Winograd's algorithm can make it.
 */
export function pickConv(groups: number, capabilities: Capabilities, gathered?: Gathered): ConvVariant {
  const { family, subgroups, subgroupSize, force } = capabilities;
  const forced = (force.conv2d ?? force.convTranspose2d) as ConvVariant | undefined;
  if (groups > 1) return 'naive';
  if (gathered && (forced === 'winograd' || (!forced && family === 'cpu' && winogradPays(gathered)))) return 'winograd';
  const lanes = subgroups && subgroupSize >= 4 && subgroupSize <= 64;
  if (forced === 'naive' || forced === 'workgroup-tile' || (forced === 'subgroup-tile' && lanes)) return forced;
  return family === 'gpu' ? 'workgroup-tile' : lanes ? 'subgroup-tile' : 'naive';
}

/** Columns per lane: as many as `cols` can use, fewer where the tiles would not occupy a few cores. */
function colsPerLane(rows: number, cols: number, lanes: number): number {
  if (cols <= lanes) return 1;
  if (cols <= 4 * lanes) return 4;
  const tiles = Math.ceil(cols / (8 * lanes));
  return Math.ceil(rows / 16) * tiles >= 4 ? Math.ceil(cols / (lanes * tiles)) : 4; // 48 columns: 6 a lane, not 8
}

interface Extras {
  bias?: GpuArray;
  temb?: GpuArray;
  residual?: GpuArray;
}

/** y = x ⋆ w (+ bias + temb + residual): every output pixel gathers its taps. */
export function convForward(gpu: Gpu, c: Conv, x: GpuArray, w: GpuArray, y: GpuArray, extras: Extras = {}): void {
  const I = c.C / c.groups;
  const K = c.kh * c.kw * I;
  // prettier-ignore
  gather(gpu, c.groups, x, w, y, extras, {
    rows: c.B * c.Ho * c.Wo, height: c.Ho, width: c.Wo, cols: c.O,
    inHeight: c.H, inWidth: c.W, inChannels: c.C,
    tapsY: c.kh, tapsX: c.kw, stride: c.stride,
    dilationY: c.dilation, dilationX: c.dilation, originY: -c.top, originX: -c.left,
    outHeight: c.Ho, outWidth: c.Wo, outStep: 1, outY: 0, outX: 0,
    weightBase: 0, weightCol: K, weightTapY: c.kw * I, weightTapX: I, weightChannel: 1,
    groupCols: c.O / c.groups, depth: I, weightGroup: (c.O / c.groups) * K,
  });
}

/**
 * dx of `x ⋆ w`. The pixels of x fall into stride² phases by their remainder; those of one phase meet the same taps
 *
 *     dx[s·q + p] = Σ_t dy[(s·q + p + pad − dilation·k) / s] · w[k]      over the k = k0 + t·period that divide
 *
 * so each phase is a convolution of dy without holes, and no product is made in vain.
 */
export function convInput(gpu: Gpu, c: Conv, dy: GpuArray, w: GpuArray, dx: GpuArray, extras: Extras = {}): void {
  const I = c.C / c.groups;
  const K = c.kh * c.kw * I;
  for (let py = 0; py < Math.min(c.stride, c.H); py++) {
    const v = phase(py + c.top, c.kh, c);
    for (let px = 0; px < Math.min(c.stride, c.W); px++) {
      const h = phase(px + c.left, c.kw, c);
      const height = Math.ceil((c.H - py) / c.stride);
      const width = Math.ceil((c.W - px) / c.stride);
      // prettier-ignore
      gather(gpu, c.groups, dy, w, dx, extras, {
        rows: c.B * height * width, height, width, cols: c.C,
        inHeight: c.Ho, inWidth: c.Wo, inChannels: c.O,
        tapsY: v.taps, tapsX: h.taps, stride: 1,
        dilationY: -v.dilation, dilationX: -h.dilation, originY: v.origin, originX: h.origin,
        outHeight: c.H, outWidth: c.W, outStep: c.stride, outY: py, outX: px,
        weightBase: (v.first * c.kw + h.first) * I, weightCol: 1, weightChannel: K,
        weightTapY: v.period * c.kw * I, weightTapX: h.period * I,
        groupCols: I, depth: c.O / c.groups, weightGroup: (c.O / c.groups) * K,
      });
    }
  }
}

/** Which taps k < size meet the positions p + stride·q: first, first + period, …; and where in dy they look. */
function phase(p: number, size: number, { stride, dilation }: Conv) {
  let first = 0;
  while (first < stride && (p - first * dilation) % stride !== 0) first++;
  const period = stride / gcd(stride, dilation);
  const taps = first < stride ? Math.max(0, Math.ceil((size - first) / period)) : 0;
  return {
    first,
    period,
    taps,
    dilation: (dilation * period) / stride,
    origin: taps ? (p - first * dilation) / stride : 0,
  };
}
const gcd = (a: number, b: number): number => (b ? gcd(b, a % b) : a);

function gather(
  gpu: Gpu,
  groups: number,
  x: GpuArray,
  w: GpuArray,
  y: GpuArray,
  extras: Extras,
  shape: Gathered & Record<string, number>,
): void {
  if (groups === 1 && convOnUnits(gpu, x, w, y, extras, shape)) return;
  const { bias = gpu.none, temb = gpu.none, residual = gpu.none } = extras;
  const { rows, cols } = shape;
  const uniforms = { ...shape, biased: extras.bias ? 1 : 0 };
  const flags = { TEMB: extras.temb !== undefined, RESIDUAL: extras.residual !== undefined };
  const arrays = [x, w, bias, temb, residual, y];
  switch (pickConv(groups, gpu.capabilities, canWinograd(shape, gpu.arrayLimit) ? shape : undefined)) {
    case 'winograd':
      return winograd(gpu, x, w, y, { bias, temb, residual }, uniforms, flags);
    case 'naive':
      return gpu.run(naive, 'forward', uniforms, arrays, spread(Math.ceil((rows * cols) / 64)), flags);
    case 'subgroup-tile': {
      const LANES = gpu.capabilities.subgroupSize;
      const ROWS = rows <= 4 ? 4 : 16;
      const COLS = colsPerLane(rows, cols, LANES);
      const [gx, gz] = spread(Math.ceil(rows / ROWS));
      const grid = [gx, Math.ceil(cols / (LANES * COLS)), gz];
      const code = unrolledOnce(subgroupTile, { ROWS, COLS, HELD: Math.ceil(ROWS / LANES) });
      return gpu.run(code, 'forward', uniforms, arrays, grid, { LANES, ROWS, COLS, ...flags });
    }
    case 'workgroup-tile': {
      const [gx, gz] = spread(Math.ceil(rows / 64));
      return gpu.run(workgroupTile, 'forward', uniforms, arrays, [gx, Math.ceil(cols / 64), gz], flags);
    }
  }
}

/** dw of `x ⋆ w`, like `w`: a sum over all pixels, in parts where the weights alone would leave cores idle. */
export function convWeight(gpu: Gpu, c: Conv, x: GpuArray, dy: GpuArray, weight: GpuArray): GpuArray {
  const onUnits = c.groups === 1 ? convWeightOnUnits(gpu, c, x, dy, weight) : undefined;
  if (onUnits) return onUnits;
  const { shape, dtype } = weight;
  const depth = c.C / c.groups;
  const pixels = c.B * c.Ho * c.Wo;
  const taps = c.kh * c.kw;
  const size = c.O * taps * depth;
  const { variant, code, tiles, wanted, constants } = weightLaunch(gpu, c, taps, depth);
  const most = Math.max(1, Math.min(wanted, Math.floor(pixels / 256)));
  const chunk = Math.max(1, Math.ceil(pixels / most / 64)) * 64;
  const parts = Math.max(1, Math.ceil(pixels / chunk));

  const dw = parts === 1 ? gpu.empty(shape, dtype) : gpu.empty([parts, ...shape]);
  // prettier-ignore
  const uniforms = {
    height: c.Ho, width: c.Wo, pixels, cols: c.O,
    inHeight: c.H, inWidth: c.W, inChannels: c.C,
    tapsY: c.kh, tapsX: c.kw, stride: c.stride, dilation: c.dilation, originY: -c.top, originX: -c.left,
    groupCols: c.O / c.groups, depth, parts, chunk,
  };
  const grid = variant === 'naive' ? spread(Math.ceil((size * parts) / 64)) : [...tiles, parts];
  gpu.run(code, 'weights', uniforms, [x, dy, dw], grid, constants);
  if (parts === 1) return dw;
  const folded = sums(gpu, dw, 1, parts, size, dtype);
  const result = folded.view(shape);
  dw.dispose();
  folded.dispose();
  return result;
}

interface WeightLaunch {
  variant: ConvVariant;
  code: string;
  tiles: number[];
  /** Parts of the sum over pixels. */
  wanted: number;
  constants?: Record<string, number>;
}

/** How the weights divide into tiles, and into how many parts the pixels, to keep a few cores or a GPU busy. */
function weightLaunch(gpu: Gpu, c: Conv, taps: number, depth: number): WeightLaunch {
  const variant = pickConv(c.groups, gpu.capabilities);
  if (variant === 'naive')
    return { variant, code: naiveWeights, tiles: [], wanted: Math.ceil(4096 / (c.O * taps * depth)) };
  if (variant === 'workgroup-tile') {
    const tiles = [Math.ceil((taps * depth) / 64), Math.ceil(c.O / 64)];
    return { variant, code: workgroupWeights, tiles, wanted: Math.ceil(256 / (tiles[0] * tiles[1])) };
  }
  const LANES = gpu.capabilities.subgroupSize;
  const ROWS = depth <= 4 ? 4 : 16;
  const COLS = c.O <= LANES ? 1 : c.O <= 4 * LANES ? 4 : Math.ceil(c.O / (LANES * Math.ceil(c.O / (8 * LANES))));
  const tiles = [taps * Math.ceil(depth / ROWS), Math.ceil(c.O / (LANES * COLS))];
  const code = unrolledOnce(subgroupWeights, { ROWS, COLS });
  return { variant, code, tiles, wanted: Math.ceil(32 / (tiles[0] * tiles[1])), constants: { LANES, ROWS, COLS } };
}

/** Σ over the middle axis, in fixed order: x [outer, n, cols] → [outer, cols]. */
export function sums(gpu: Gpu, x: GpuArray, outer: number, n: number, cols: number, dtype: DType = 'f32'): GpuArray {
  const parts = Math.max(1, Math.min(Math.ceil(n / 32), Math.ceil(4096 / (outer * cols))));
  const fold = (from: GpuArray, count: number, into: number) => {
    const to = gpu.empty([outer, into, cols], into === 1 ? dtype : 'f32');
    const uniforms = { outer, n: count, cols, parts: into, chunk: Math.ceil(count / into) };
    gpu.run(sumsCode, 'sums', uniforms, [from, to], spread(Math.ceil((outer * into * cols) / 64)));
    return to;
  };
  const partial = fold(x, n, parts);
  const total = parts === 1 ? partial : fold(partial, parts, 1);
  const result = total.view([outer, cols]);
  if (partial !== total) partial.dispose();
  total.dispose();
  return result;
}
