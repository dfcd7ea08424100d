/**
 * Every variant of the heavy kernels on this adapter: results against the plain JavaScript references, gradients against
 * those of the plainest variant; in f32, and in halves both natively and packed, with robust access and without it.
 */
import { attention } from '../../src/kernels/attention.ts';
import { conv2d } from '../../src/kernels/conv2d.ts';
import { groupNorm } from '../../src/kernels/group-norm.ts';
import { layerNorm } from '../../src/kernels/layer-norm.ts';
import { linear } from '../../src/kernels/linear.ts';
import { matmul } from '../../src/kernels/matmul.ts';
import type { DType, Gpu, HostArray } from '../../src/kernels/index.ts';
import { currentGpu, init, mul, scope, sum, tensor, useGpu } from '../../src/tensor/index.ts';
import type { Tensor } from '../../src/tensor/index.ts';
import { apply } from '../../src/tensor/tensor.ts';
import { numbers } from '../work.ts';

/** A variant that was held against its reference. */
export interface VariantCheck {
  op: string;
  variant: string;
  dtype: string;
  robust: boolean;
  /** Largest difference over the largest number: of the result, and of all gradients. */
  forward?: number;
  backward?: number;
  /** Why it is not right, or did not run. */
  error?: string;
}

interface Case {
  op: string;
  /** The first is what gradients are held against. */
  variants: string[];
  shapes: number[][];
  attrs?: object;
  /** What of it the reference is asked for. */
  kernel: { reference(inputs: any, attrs: any): HostArray };
}

/** Shapes with tails in every direction; products long enough for splits. */
function cases(small: boolean): Case[] {
  const n = small ? 1 : 4;
  const gemm = ['naive', 'register-tile', 'subgroup-tile', 'workgroup-tile', 'subgroup-matrix'];
  const conv = ['naive', 'subgroup-tile', 'workgroup-tile', 'winograd', 'subgroup-matrix'];
  const padding = { padding: 1 };
  return [
    { op: 'matmul', variants: gemm, kernel: matmul, shapes: [[2, 33 * n, 72], [2, 72, 41 * n]] }, // prettier-ignore
    { op: 'linear', variants: gemm, kernel: linear, shapes: [[65 * n, 96], [130, 96], [130]] }, // prettier-ignore
    { op: 'linear', variants: gemm, kernel: linear, shapes: [[5, 640 * n], [64, 640 * n], [64]] }, // prettier-ignore
    { op: 'conv2d', variants: conv, kernel: conv2d, attrs: padding, shapes: [[1, 9 * n, 11, 32], [48, 3, 3, 32], [48]] }, // prettier-ignore
    { op: 'conv2d', variants: conv, kernel: conv2d, attrs: { ...padding, stride: 2 }, shapes: [[2, 9, 8 * n, 5], [7, 3, 3, 5], [7]] }, // prettier-ignore
    { op: 'attention', variants: ['naive', 'workgroup', 'subgroup'], kernel: attention, attrs: { heads: 2 }, shapes: [[1, 37 * n, 80], [1, 77, 80], [1, 77, 80]] }, // prettier-ignore
    { op: 'groupNorm', variants: ['staged', 'whole'], kernel: groupNorm, attrs: { groups: 8, eps: 1e-5, silu: true }, shapes: [[2, 7 * n, 9, 40], [40], [40]] }, // prettier-ignore
    {
      op: 'layerNorm',
      variants: ['only'],
      kernel: layerNorm,
      attrs: { eps: 1e-5 },
      shapes: [[33 * n, 96], [96], [96]],
    },
  ];
}

/** Sums of f32 in another order; numbers of eleven bits. */
const TOLERANCE = { f32: 3e-5, f16: 4e-3 };

export async function checkVariants({ small, say }: { small: boolean; say(line: string): void }) {
  const before = currentGpu();
  const found: VariantCheck[] = [];
  const bare = ['disable_robustness', 'disable_workgroup_init', 'disable_polyfills_on_integer_div_and_mod'];
  for (const robust of [true, false]) {
    const gpu = await init({ enable: robust ? [] : bare, force: {} });
    for (const [dtype, halves] of [['f32'], ['f16', 'native'], ['f16', 'packed']] as [DType, string?][]) {
      if (halves === 'native' && !gpu.capabilities.f16) continue;
      gpu.capabilities.force.f16 = halves ?? 'packed';
      for (const c of cases(small)) found.push(...(await checkCase(gpu, c, dtype, halves, robust)));
    }
    gpu.destroy();
  }
  useGpu(before);
  const wrong = found.filter(({ error }) => error);
  for (const { op, variant, dtype, robust, error } of wrong)
    say(`  ${op} ${variant} ${dtype}${robust ? '' : ', not robust'}: ${error}`);
  say(`  ${found.length - wrong.length} of ${found.length} are right`);
  return found;
}

async function checkCase(gpu: Gpu, c: Case, dtype: DType, halves: string | undefined, robust: boolean) {
  const found: VariantCheck[] = [];
  const { force } = gpu.capabilities;
  let plain: Float32Array[] | undefined;
  for (const variant of c.variants) {
    if (variant === 'subgroup-matrix' && (dtype !== 'f16' || !gpu.capabilities.matrixUnits.length)) continue;
    const check: VariantCheck = { op: c.op, variant, dtype: halves ? `f16 ${halves}` : dtype, robust };
    force[c.op] = variant;
    try {
      const { inputs, y, gradients } = await run(c, dtype);
      check.forward = difference(y, c.kernel.reference(inputs, c.attrs ?? {}).data);
      plain ??= gradients;
      check.backward = Math.max(...gradients.map((g, i) => difference(g, plain![i])));
      const limit = TOLERANCE[dtype as 'f32' | 'f16'];
      if (!(check.forward <= limit)) check.error = `wrong by ${check.forward.toExponential(1)}`;
      else if (!(check.backward <= 4 * limit)) check.error = `gradients wrong by ${check.backward.toExponential(1)}`;
    } catch (error) {
      check.error = (error as Error).message.split('\n')[0];
    }
    delete force[c.op];
    found.push(check);
  }
  return found;
}

/** What goes in, as it is in `dtype`, what comes out, and the gradients of Σ y·w. */
async function run({ op, kernel, shapes, attrs = {} }: Case, dtype: DType) {
  const size = (shape: number[]) => shape.reduce((a, b) => a * b);
  const tensors: Tensor[] = shapes.map((shape, i) =>
    tensor(numbers(size(shape), i + 1), shape, { dtype, requiresGrad: true }),
  );
  const y = scope(() => {
    const y = apply(kernel as never, tensors as never, attrs);
    const weights = tensor(numbers(y.size, 9), y.shape, { dtype });
    sum(mul(y, weights)).backward();
    return y;
  });
  const read = async (x: Tensor) => Float32Array.from(await x.read());
  const inputs = await Promise.all(tensors.map(async (x) => ({ shape: x.shape, data: await read(x) })));
  const gradients = await Promise.all(
    tensors.map(async (x) => {
      if (!x.grad) throw new Error(`${op}: an operand has no gradient`);
      return read(x.grad);
    }),
  );
  const out = await read(y);
  for (const x of [...tensors.map(({ grad }) => grad!), ...tensors, y]) x.dispose();
  return { inputs, y: out, gradients };
}

function difference(got: ArrayLike<number>, want: ArrayLike<number>): number {
  let [error, largest] = [0, 0];
  for (let i = 0; i < want.length; i++) {
    largest = Math.max(largest, Math.abs(want[i]));
    error = Math.max(error, Number.isNaN(got[i]) ? Infinity : Math.abs(got[i] - want[i]));
  }
  return error / largest;
}
