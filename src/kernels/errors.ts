/** Errors for the person who meets them: the op, what is wrong, each operand on a line, the likely fix. */

/** A call that cannot be right: wrong shapes, dtypes, sizes. */
export class ShapeError extends Error {
  override name = 'ShapeError';
}

/** The adapter, its driver or its memory failed. */
export class GpuError extends Error {
  override name = 'GpuError';
}

/** An allocation failed, also after pooled memory was given back. The device goes on; what waited to be submitted is forgotten. */
export class OutOfMemoryError extends GpuError {
  override name = 'OutOfMemoryError';
}

/** The device is gone, and all arrays on it. */
export class DeviceLostError extends GpuError {
  override name = 'DeviceLostError';

  constructor(
    readonly reason: string,
    readonly details: string,
    op = '',
  ) {
    super(
      [
        `${op && `${op}: `}the GPU device was lost (${reason})`,
        ...(details ? [`  ${details}`] : []),
        '  init() opens another; make the tensors and models again there, and go on from the last checkpoint',
      ].join('\n'),
    );
  }

  /** The same for an op that came later. */
  at(op: string): DeviceLostError {
    return new DeviceLostError(this.reason, this.details, op);
  }
}

type Described = { shape: readonly number[]; dtype?: string } | readonly number[] | number | string | undefined;

/** `shapeError('matmul', 'inner sizes differ (768 ≠ 77)', { a, b }, 'did you mean matmul(a, transpose(b))?')` */
export function shapeError(op: string, what: string, operands: Record<string, Described> = {}, fix = ''): ShapeError {
  const width = Math.max(0, ...Object.keys(operands).map((name) => name.length));
  const lines = Object.entries(operands).map(([name, value]) => `  ${name.padEnd(width)}  ${describe(value)}`);
  return new ShapeError([`${op}: ${what}`, ...lines, ...(fix ? [`  ${fix}`] : [])].join('\n'));
}

/** @throws when `value`, called `name`, is no whole number or below `least` */
export function wantWhole(
  op: string,
  name: string,
  value: number,
  least: number,
  operands: Record<string, Described> = {},
): void {
  if (!Number.isSafeInteger(value) || value < least)
    throw shapeError(op, `${name} is ${value}, must be a whole number of at least ${least}`, operands);
}

function describe(value: Described): string {
  if (value === undefined) return '(none)';
  if (typeof value === 'number' || typeof value === 'string') return String(value);
  const shape = 'shape' in value ? value.shape : value;
  const dtype = 'dtype' in value && value.dtype && value.dtype !== 'f32' ? ` ${value.dtype}` : '';
  return `[${shape.join(', ')}]${dtype}`;
}

export const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 24 ? 2 : 0)} MiB`;
