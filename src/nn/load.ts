/** Weights from a file onto the GPU, a piece at a time. */
import type { GpuArray } from '../kernels/index.ts';
import { currentGpu } from '../tensor/index.ts';
import { floatsToHalves } from '../tensor/io/half.ts';
import { byteLength, readFloat32, type Rows, type WeightSource } from '../tensor/io/weights.ts';
import { fromCheckpoint } from './layout.ts';
import type { Module, Parameter } from './module.ts';
import { compareKeys } from './state-dict.ts';

/** Numbers on the host at a time, unless one row has more. */
const PIECE = 4 << 20;

export interface LoadOptions {
  /** Refuse keys that are missing or unexpected (default). */
  strict?: boolean;
  /** Told of each tensor that was loaded, with its bytes in the file. */
  progress?: (key: string, bytes: number) => void;
}

/**
 * Fill the parameters of a module from a source of weights. Keys and shapes are compared before anything is read; then each
 * tensor comes in rows of about 16 MiB, so the host holds little whatever the size of the model. F16 tensors go into f16
 * parameters without a change of bits.
 * @throws StateDictError with all missing, unexpected and wrong-shaped keys; nothing is loaded then
 */
export async function loadWeights(
  module: Module,
  source: WeightSource,
  { strict = true, progress }: LoadOptions = {},
): Promise<{ missing: string[]; unexpected: string[] }> {
  const parameters = module.namedParameters();
  const result = compareKeys(module.constructor.name, parameters, source.entries, strict);
  const gpu = currentGpu();
  await gpu.idle(); // parameters begin as zeros: those commands must not wait for arrays that are filled
  let waiting = 0;
  for (const [key, p] of parameters) {
    const info = source.entries.get(key);
    if (!info) continue;
    for (const { array, at, rows } of pieces(p)) {
      const numbers = await readPiece(source, key, p, rows);
      gpu.fill(array, at, numbers);
      if ((waiting += numbers.length) < PIECE) continue;
      await gpu.idle(); // what is written waits on the host until it is on the GPU
      waiting = 0;
    }
    progress?.(key, byteLength(info));
  }
  await gpu.idle();
  return result;
}

/** Which rows go where: parts of arrays that are larger than one binding are arrays of their own. */
function* pieces({ shape, array }: Parameter): Generator<{ array: GpuArray; at: number; rows?: Rows }> {
  const row = shape.slice(1).reduce((n, d) => n * d, 1);
  const step = Math.max(2, 2 * Math.floor(PIECE / row / 2)); // even, as halves are written in pairs
  let from = 0;
  for (const part of array.parts ?? [array]) {
    const count = part.size / row;
    for (let at = 0; at < count; at += step) {
      const to = Math.min(at + step, count);
      yield { array: part, at: at * row, rows: shape.length ? [from + at, from + to] : undefined };
    }
    from += count;
  }
}

async function readPiece(
  source: WeightSource,
  key: string,
  { shape, layout, array }: Parameter,
  rows?: Rows,
): Promise<Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>> {
  const info = source.entries.get(key)!;
  const ours = rows ? [rows[1] - rows[0], ...shape.slice(1)] : shape;
  if (array.dtype === 'f16' && info.dtype === 'F16') {
    const data = new Uint16Array((await source.read(key, rows)).buffer);
    const theirs = rows ? [rows[1] - rows[0], ...info.shape.slice(1)] : info.shape;
    return fromCheckpoint({ shape: theirs, data }, ours, layout)!;
  }
  const host = await readFloat32(source, key, rows);
  const data = fromCheckpoint(host, ours, layout) as Float32Array<ArrayBuffer>;
  return array.dtype === 'f16' ? floatsToHalves(data) : data;
}
