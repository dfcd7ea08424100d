import * as assert from 'uvu/assert';
import { randoms } from './randoms.ts';
import { Gpu, GpuArray, hostArray, sizeOf } from '../src/kernels/index.ts';
import type { DeviceOptions, DType, HostArray, Op, Shape } from '../src/kernels/index.ts';
import { floatToHalf, halfToFloat } from '../src/kernels/half.ts';

export interface CheckOptions {
  /** Range of the random numbers of each input, by position; [-2, 2] when not given. */
  ranges?: Record<number, readonly [number, number]>;
  /** Inputs that are i32, by position, with the range [from, below). They have no gradient. */
  ints?: Record<number, readonly [number, number]>;
  /** Given numbers instead of random ones, by position. */
  data?: Record<number, ArrayLike<number>>;
  /**
   * 'f16': floats are halves, stored natively where the adapter can and packed, with the same bits; then tolerances are
   * for |got − want| / |want| as vectors, 2e-3 when not given.
   */
  dtype?: 'f16';
  /** Inputs of another dtype than that, by position. */
  dtypes?: Record<number, DType>;
  /** Dtype of the output, when it is not `dtype`. */
  makes?: DType;
  /** Largest |got − want| over the largest |want|. 2e-5 when not given. */
  tolerance?: number;
  gradTolerance?: number;
  /** Names for `capabilities.force[op.name]`; each is checked. */
  variants?: readonly string[];
  /** Inputs without a gradient, by position. */
  constant?: readonly number[];
  /** Check a core-only device too (no subgroups). */
  core?: boolean;
  /** Largest number of elements whose derivative is checked, for each input. */
  samples?: number;
  /** The device to check on, if not the usual one. */
  device?: DeviceOptions;
}

const devices = new Map<string, Promise<Gpu>>();

/** RECTIFLOW_TEST_LIMITS=minimum runs any op's tests on a device that has no more than every adapter has. */
const usual: DeviceOptions = process.env.RECTIFLOW_TEST_LIMITS === 'minimum' ? { limits: 'minimum' } : {};

/** One device for each set of options, shared by the tests of a file. */
export function testGpu(options: DeviceOptions = usual): Promise<Gpu> {
  const key = JSON.stringify(options);
  if (!devices.has(key)) devices.set(key, Gpu.create(options));
  return devices.get(key)!;
}

/** |got − want| as a vector is at most `tolerance` · |want|. */
export function assertNear(got: ArrayLike<number>, want: ArrayLike<number>, tolerance: number, what: string): void {
  assert.is(got.length, want.length, `${what}: sizes`);
  let [error, size] = [0, 0];
  for (let i = 0; i < want.length; i++) {
    error += (got[i] - want[i]) ** 2;
    size += want[i] ** 2;
  }
  const relative = Math.sqrt(error / Math.max(size, 1e-30));
  assert.ok(relative <= tolerance, `${what}: relative L2 ${relative.toExponential(2)} > ${tolerance}`);
}

/** The nearest numbers that an array of `dtype` holds. */
const rounded = <T extends Float32Array | Float64Array>(numbers: T, dtype: DType): T =>
  dtype === 'f16' ? (numbers.map((v) => halfToFloat(floatToHalf(v))) as T) : numbers;

export function assertClose(got: ArrayLike<number>, want: ArrayLike<number>, tolerance: number, what: string): void {
  assert.is(got.length, want.length, `${what}: sizes`);
  let largest = 0;
  let error = 0;
  let at = 0;
  for (let i = 0; i < want.length; i++) {
    if (Number.isFinite(want[i])) largest = Math.max(largest, Math.abs(want[i]));
    const e = Object.is(got[i], want[i]) ? 0 : Math.abs(got[i] - want[i]);
    if (!(e <= error)) [error, at] = [Number.isNaN(e) ? Infinity : e, i];
  }
  if (error <= tolerance * Math.max(largest, 1e-30)) return;
  const relative = (error / largest).toExponential(2);
  assert.unreachable(`${what}: relative error ${relative} > ${tolerance} at ${at}: got ${got[at]}, want ${want[at]}`);
}

/**
 * Forward against the reference, backward against central differences of the float64 reference for a random cotangent,
 * and no array left behind. `undefined` in `shapes` is an absent optional input.
 */
export async function checkOp(
  op: Op<any, any>,
  shapes: readonly (Shape | undefined)[],
  attrs: object = {},
  options: CheckOptions = {},
) {
  const halves = options.dtype === 'f16';
  const gpus = halves
    ? await halfGpus()
    : [await testGpu(options.device), ...(options.core ? [await testGpu({ coreOnly: true })] : [])];
  for (const variant of options.variants ?? [undefined]) {
    const made: Float32Array[][] = [];
    for (const gpu of gpus) {
      const { force } = gpu.capabilities;
      if (variant !== undefined) force[op.name] = variant;
      const device = halves ? ` (${force.f16})` : gpu === gpus[0] ? '' : ' (core)';
      const label = `${op.name}${variant ? `/${variant}` : ''}${device} ${JSON.stringify(shapes)}`;
      try {
        made.push(await checkOn(gpu, label, op, shapes, attrs, options));
      } finally {
        delete force[op.name];
      }
    }
    if (halves && made.length > 1)
      assert.equal(made[0], made[1], `${op.name} ${JSON.stringify(shapes)}: packed and native halves differ`);
  }
}

/** Both ways of storing halves; the native one where the adapter has it. */
async function halfGpus(): Promise<Gpu[]> {
  const packed = await testGpu({ force: { f16: 'packed' } });
  return packed.capabilities.f16 ? [packed, await testGpu({ force: { f16: 'native' } })] : [packed];
}

/** @returns all that was computed: the output and the gradients */
async function checkOn(
  gpu: Gpu,
  label: string,
  op: Op<any, any>,
  shapes: readonly (Shape | undefined)[],
  attrs: object,
  o: CheckOptions,
): Promise<Float32Array[]> {
  const {
    ranges = {},
    ints = {},
    data = {},
    constant = [],
    tolerance = o.dtype === 'f16' ? 2e-3 : 2e-5,
    gradTolerance = tolerance,
    samples = 300,
    dtype = 'f32',
    dtypes = {},
    makes = dtype,
  } = o;
  const check = dtype === 'f16' ? assertNear : assertClose;
  const dtypeOf = (i: number): DType => (ints[i] ? 'i32' : (dtypes[i] ?? dtype));
  const made: Float32Array[] = [];
  const hosts = shapes.map((shape, i): HostArray | undefined => {
    if (!shape) return undefined;
    const n = sizeOf(shape);
    if (data[i]) return hostArray(shape, rounded(Float64Array.from(data[i]), dtypeOf(i)));
    if (ints[i]) return hostArray(shape, randoms(n, i + 1, ints[i]).map(Math.floor));
    return hostArray(shape, rounded(randoms(n, i + 1, ranges[i]), dtypeOf(i)));
  });
  poison(gpu, shapes);
  void gpu.none; // made on first use, and kept
  const before = gpu.memory().arrays;
  const inputs = hosts.map((h, i) => h && gpu.array(h.shape, h.data, dtypeOf(i)));
  const want = op.reference(hosts, attrs);
  const { output, saved = [] } = op.forward(gpu, inputs, attrs);
  assert.equal([...output.shape], [...want.shape], `${label}: shape of the output`);
  if (o.dtype || o.makes) assert.is(output.dtype, makes, `${label}: dtype of the output`);
  made.push((await output.read()) as Float32Array);
  check(made[0], want.data, tolerance, `${label} forward`);

  const grads: (GpuArray | undefined)[] = [];
  let cotangent: GpuArray | undefined;
  if (op.backward) {
    const ct = rounded(randoms(sizeOf(want.shape), 99, [-1, 1]), makes);
    cotangent = gpu.array(want.shape, ct, makes);
    const needs = hosts.map((h, i) => h !== undefined && !ints[i] && !constant.includes(i));
    grads.push(...op.backward(gpu, cotangent, saved as readonly GpuArray[], attrs, needs));
    for (const [i, host] of hosts.entries()) {
      if (!host || !needs[i]) continue;
      assert.ok(grads[i], `${label}: no gradient for input ${i}`);
      assert.equal([...grads[i]!.shape], [...host.shape], `${label}: shape of gradient ${i}`);
      assert.is(grads[i]!.dtype, dtypeOf(i), `${label}: dtype of gradient ${i}`);
      const got = await grads[i]!.read();
      made.push(got as Float32Array);
      const places = sample(host.data.length, samples);
      const slopes = places.map((p) => slope(op, hosts as HostArray[], attrs, host, p, ct));
      check(
        places.map((p) => got[p]),
        slopes,
        gradTolerance,
        `${label} gradient ${i} [${places.length} of ${got.length}]`,
      );
    }
  }
  for (const [i, host] of hosts.entries()) {
    if (host) assertClose(await inputs[i]!.read(), Float32Array.from(host.data), 0, `${label}: input ${i} was changed`);
  }
  for (const array of new Set([...inputs, output, ...saved, ...grads, cotangent])) array?.dispose();
  const left = gpu.memory().arrays - before; // negative when earlier tests' garbage was collected meanwhile
  assert.ok(left <= 0, `${label}: ${left} arrays left behind`);
  return made;
}

/** ∂(ct · op(…))/∂host[p] by central differences in float64. */
function slope(
  op: Op<any, any>,
  hosts: HostArray[],
  attrs: object,
  host: HostArray,
  p: number,
  ct: Float32Array,
): number {
  const x = host.data[p];
  const h = 1e-5 * Math.max(1, Math.abs(x));
  host.data[p] = x + h;
  const up = op.reference(hosts, attrs).data;
  host.data[p] = x - h;
  const down = op.reference(hosts, attrs).data;
  host.data[p] = x;
  let sum = 0;
  for (let i = 0; i < ct.length; i++) sum += ct[i] * (up[i] - down[i]);
  return sum / (2 * h);
}

/** Fill the pool's next arrays with nonsense: an element that a kernel forgets to write shows. */
function poison(gpu: Gpu, shapes: readonly (Shape | undefined)[]): void {
  const total = Math.max(...shapes.map((s) => (s ? sizeOf(s) : 0)));
  const sizes = new Set([1, 16, 100, 300, 1000, total, 2 * total, ...shapes.map((s) => (s ? sizeOf(s) : 1))]);
  const halves = [...sizes].map((n) => Math.ceil(n / 2));
  const lengths = [...sizes, ...halves].filter((n) => n > 0 && n < 2e6).flatMap((n) => [n, n, n]);
  const filled = lengths.map((n) => gpu.array([n], new Float32Array(n).fill(1e30)));
  for (const array of filled) array.dispose();
}

/** All places when few, else `most` of them spread over the array with an uneven step. */
const sample = (n: number, most: number): number[] =>
  Array.from({ length: Math.min(n, most) }, (_, i) =>
    n <= most ? i : Math.min(n - 1, Math.floor((i * n) / most) + (i % 7)),
  );
