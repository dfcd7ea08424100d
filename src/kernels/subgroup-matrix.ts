/**
 * Matrix units, as WebGPU has them: `chromium-experimental-subgroup-matrix`. The feature is not standard and may change its
 * names; this is the only file that knows them.
 */
import { unroll } from './unroll.ts';

export const FEATURE = 'chromium-experimental-subgroup-matrix' as GPUFeatureName;
/** Features that the kernels use beside it, without which it is not asked for. */
export const NEEDS = ['subgroups', 'shader-f16'] as readonly GPUFeatureName[];

/** One product that a subgroup makes at once: [M, K]·[K, N] + [M, N]. */
export interface MatrixUnit {
  M: number;
  N: number;
  K: number;
  /** Kinds of numbers as the adapter names them, 'f16': of what goes in, and of what comes out. */
  inputs: string;
  sums: string;
}

/** What the adapter says it has. */
export function matrixUnitsOf(info: GPUAdapterInfo): MatrixUnit[] {
  const { subgroupMatrixConfigs = [] } = info as GPUAdapterInfo & {
    subgroupMatrixConfigs?: Iterable<Record<'M' | 'N' | 'K', number> & Record<`${'' | 'result'}ComponentType`, string>>;
  };
  return [...subgroupMatrixConfigs].map((c: any) => ({
    M: c.M,
    N: c.N,
    K: c.K,
    inputs: c.componentType,
    sums: c.resultComponentType,
  }));
}

/** Orders in which a unit's elements lie in workgroup memory. */
export interface Orders {
  left: 'row_major' | 'col_major';
  right: 'row_major' | 'col_major';
}

const EMULATED = '// Emulated units';

/** The kernel with emulated units and all loops as loops, for a compiler's sake. */
export const withEmulatedUnits = (code: string): string =>
  code.replace(/(for \(var (\w+) = 0u; \2 < )(\w+);/g, '$1rolled($3);');

/**
 * The kernel with real units where it has emulated ones: types `Left`, `Right` and `Result`, functions `load_left`,
 * `load_right`, `multiply_add`, `store_result` on the array `stage`, and `team_of(thread)`. Offsets and pitches count elements
 * of `stage`. Loops up to `bounds` are written out, as units in an array want constant indices.
 */
export function withMatrixUnits(
  code: string,
  { M, N, K }: MatrixUnit,
  orders: Orders,
  bounds: Readonly<Record<string, number>>,
): string {
  let text = code.slice(0, code.indexOf(EMULATED));
  const replace = (from: string, to: string) => {
    if (!text.includes(from)) throw new Error(`kernel for matrix units has no "${from}"`);
    text = text.replaceAll(from, to);
  };
  replace('let team = team_of(thread);', '');
  replace('thread: u32)', 'thread: u32, @builtin(subgroup_id) team: u32)');
  replace('load_left(', `subgroupMatrixLoad<Left, ${orders.left}>(&stage, `);
  replace('load_right(', `subgroupMatrixLoad<Right, ${orders.right}>(&stage, `);
  replace('multiply_add(', 'subgroupMatrixMultiplyAccumulate(');
  replace('store_result(', 'subgroupMatrixStore<row_major>(&stage, ');
  const head = text.split('\n', 1)[0];
  return `${head}
enable f16, subgroups, chromium_experimental_subgroup_matrix;
alias Left = subgroup_matrix_left<f16, ${K}, ${M}>;
alias Right = subgroup_matrix_right<f16, ${N}, ${K}>;
alias Result = subgroup_matrix_result<f32, ${N}, ${M}>;
${unroll(text.slice(head.length + 1), bounds)}`;
}
