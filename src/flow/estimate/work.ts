/** What ops cost, from the shapes of their operands. */
import { attentionSizes } from '../../kernels/attention-layout.ts';
import { bytesOf, sizeOf } from '../../kernels/array.ts';
import type { DType, Op, Shape } from '../../kernels/index.ts';

/** An operand by its shape. */
export interface Described {
  shape: Shape;
  dtype: DType;
}

/** One op on operands of certain shapes, and how often it is called. */
export interface OpCall {
  op: Op<any, any>;
  inputs: readonly (Described | undefined)[];
  attrs: object;
  output: Described;
  count: number;
}

type Flops = (inputs: readonly (Described | undefined)[], attrs: any, output: Described) => number;

/** A multiply-add counts two. What is not here is counted by its bytes alone. */
const flops: Record<string, Flops> = {
  linear: ([x], _, y) => 2 * sizeOf(y.shape) * x!.shape.at(-1)!,
  geglu: ([x, weight], _, y) => 2 * (sizeOf(y.shape) / y.shape.at(-1)!) * weight!.shape[0] * x!.shape.at(-1)!,
  matmul: ([a], { transposeA }, y) => 2 * sizeOf(y.shape) * a!.shape.at(transposeA ? -2 : -1)!,
  conv2d: ([, weight], _, y) => 2 * sizeOf(y.shape) * sizeOf(weight!.shape.slice(1)),
  convTranspose2d: ([x, weight]) => 2 * sizeOf(x!.shape) * sizeOf(weight!.shape.slice(1)),
  attention: ([q, k, v, bias], attrs) => {
    const s = attentionSizes(q!, k!, v!, bias, attrs);
    return 2 * s.batch * s.heads * s.queries * s.keys * (s.dim + s.vdim);
  },
};

/** Floating-point operations of one call. */
export const flopsOf = ({ op, inputs, attrs, output }: OpCall): number => flops[op.name]?.(inputs, attrs, output) ?? 0;

/** Bytes that one call reads and writes at least. */
export const bytesOfCall = ({ inputs, output }: OpCall): number =>
  [...inputs, output].reduce((n, x) => n + (x ? bytesOf(sizeOf(x.shape), x.dtype) : 0), 0);
