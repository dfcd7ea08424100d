import code from './elementwise.wgsl';
import { sizeOf } from './array.ts';
import type { DType, GpuArray, Shape } from './array.ts';
import { shapeError } from './errors.ts';
import { widest } from './floats.ts';
import { spread } from './gpu.ts';
import type { Gpu } from './gpu.ts';

const THREADS = 256;
const PER_THREAD = 4;

/** The kernel file with `f` computing an expression of a, b, c, s and t. Also for other kernels that contain an `f`. */
export function withExpression(source: string, expression: string): string {
  const line = expression.replace(/\s+/g, ' ');
  return `// ${line}\n${source.replace(/^(fn f\([^{]*\{) return a; \}/m, (_, head: string) => `${head} return ${line}; }`)}`;
}

export interface MapOptions {
  s?: number;
  t?: number;
  shape?: Shape;
  /** Of y: f16 when all operands are, else f32. */
  dtype?: DType;
}

/** Kernel texts by expression. */
const maps = new Map<string, string>();

/**
 * y = f(a, b, c; s, t), element by element, with broadcasting. `expression` is WGSL in those names.
 * Up to three operands of up to four axes, after merging axes that broadcast alike.
 */
export function map(
  gpu: Gpu,
  expression: string,
  operands: readonly GpuArray[],
  { s = 0, t = 0, shape, dtype = widest(...operands) }: MapOptions = {},
): GpuArray {
  let kernel = maps.get(expression);
  if (!kernel) maps.set(expression, (kernel = withExpression(code, expression)));
  const shapes = operands.map((o) => o.shape);
  shape ??= shapes.length === 1 ? shapes[0] : broadcastShape('map', shapes);
  const y = gpu.empty(shape, dtype);
  const arrays = [operands[0], operands[1] ?? gpu.none, operands[2] ?? gpu.none, y];
  const arity = operands.length;
  const n = Math.ceil(y.size / 4);
  if (operands.every((o) => o.size === y.size)) {
    gpu.run(kernel, 'same', { n, s, t }, arrays, spread(Math.ceil(n / (THREADS * PER_THREAD))), { ARITY: arity });
    return y;
  }
  const axes = mergeAxes(shape, shapes);
  if (axes.length > 4)
    throw shapeError('broadcast', 'more than four groups of axes', { y: shape, ...named(shapes) }, 'reshape first');
  const last = axes.at(-1)!;
  const wide = last.size % 4 === 0;
  const splats = operands.map((_, k) => last.strides[k] === 0);
  const unit = wide ? 4 : 1;
  const padded = [
    ...Array<(typeof axes)[0]>(4 - axes.length).fill({ size: 1, strides: operands.map(() => 0) }),
    ...axes,
  ];
  const uniforms: Record<string, number> = { n, s, t };
  padded.forEach((axis, i) => {
    if (i > 0) uniforms[`d${i}`] = i === 3 ? axis.size / unit : axis.size;
    'abc'.split('').forEach((name, k) => {
      const stride = axis.strides[k] ?? 0;
      // A vec4 operand is stepped through in vec4s; the last axis is itself counted in vec4s already.
      uniforms[`${name}${i}`] = i === 3 || splats[k] ? stride : stride / unit;
    });
  });
  const constants: Record<string, number | boolean> = { ARITY: arity, RANK: axes.length };
  if (wide) 'ABC'.split('').forEach((name, k) => (constants[`${name}_SPLAT`] = splats[k] ?? false));
  gpu.run(
    kernel,
    wide ? 'broadcast' : 'gather',
    uniforms,
    arrays,
    spread(Math.ceil(n / (wide ? THREADS * PER_THREAD : THREADS))),
    constants,
  );
  return y;
}

/** The shape that all broadcast to. @throws naming `op` when there is none */
export function broadcastShape(op: string, shapes: readonly Shape[]): Shape {
  const rank = Math.max(...shapes.map((s) => s.length));
  return Array.from({ length: rank }, (_, i) => {
    const sizes = shapes.map((s) => s[s.length - rank + i] ?? 1);
    const size = sizes.find((d) => d !== 1) ?? 1;
    if (sizes.some((d) => d !== 1 && d !== size)) {
      throw shapeError(
        op,
        `sizes differ (${sizes.join(' ≠ ')}) on axis ${i}`,
        named(shapes),
        'axes must be equal, or 1 to be repeated',
      );
    }
    return size;
  });
}

const named = (shapes: readonly Shape[]) => Object.fromEntries(shapes.map((s, i) => ['abc'[i], s]));

/** Neighbouring axes along which every operand steps on evenly count as one. Strides in numbers; 0 where it broadcasts. */
function mergeAxes(shape: Shape, shapes: readonly Shape[]): { size: number; strides: number[] }[] {
  const axes: { size: number; strides: number[] }[] = [];
  const step = shapes.map(() => 1);
  for (let i = shape.length - 1; i >= 0; i--) {
    const size = shape[i];
    const strides = shapes.map((s, k) => {
      const d = s[s.length - shape.length + i] ?? 1;
      const stride = d === 1 ? 0 : step[k];
      step[k] *= d;
      return stride;
    });
    if (size === 1) continue;
    const inner = axes[0];
    if (inner && strides.every((stride, k) => stride === inner.strides[k] * inner.size)) inner.size *= size;
    else axes.unshift({ size, strides });
  }
  return axes.length ? axes : [{ size: Math.max(1, sizeOf(shape)), strides: shapes.map(() => 0) }];
}
