/** Weights wherever they lie: what is there, without reading it, and one tensor at a time. */
import { decodeFloat32, dtypeBytes, encodeFloat32, type Dtype, type HostTensor } from './safetensors.ts';

/** What a file says of a tensor. */
export interface WeightInfo {
  dtype: Dtype;
  shape: readonly number[];
}

/** Rows [from, to) of the first axis. */
export type Rows = readonly [from: number, to: number];

/** A file of weights, a set of shards, or another way to look at one. */
export interface WeightSource {
  /** Where they lie, for errors. */
  readonly name: string;
  /** Key → dtype and shape, in the order of the file. */
  readonly entries: ReadonlyMap<string, WeightInfo>;
  readonly metadata: Readonly<Record<string, string>>;
  /** The bytes of one tensor or of some of its rows: row-major, little-endian, in a buffer of their own. */
  read(key: string, rows?: Rows): Promise<Uint8Array<ArrayBuffer>>;
  close(): Promise<void>;
}

/** Weights cannot be had: a key that is not there, a file that is none of weights. */
export class WeightsError extends Error {
  override name = 'WeightsError';
}

export const elements = (shape: readonly number[]): number => shape.reduce((product, n) => product * n, 1);

/** Bytes of a tensor in its file. */
export const byteLength = ({ dtype, shape }: WeightInfo): number => elements(shape) * dtypeBytes[dtype];

/** What a source says of a key, and which bytes of the tensor its `rows` are. */
export function locate(
  source: WeightSource,
  key: string,
  rows?: Rows,
): { info: WeightInfo; begin: number; end: number } {
  const info = source.entries.get(key);
  if (!info) throw new WeightsError(`${source.name}: no tensor ${key}`);
  const [count = 1] = info.shape;
  const [from, to] = rows ?? [0, count];
  if (from < 0 || to > count || from > to) {
    throw new WeightsError(`${source.name}: ${key} [${info.shape.join(', ')}] has no rows ${from}…${to}`);
  }
  const row = count && byteLength(info) / count;
  return { info, begin: from * row, end: to * row };
}

/** One tensor as f32, in the layout of the file. */
export async function readFloat32(source: WeightSource, key: string, rows?: Rows): Promise<HostTensor> {
  const { info } = locate(source, key, rows);
  const shape = rows ? [rows[1] - rows[0], ...info.shape.slice(1)] : [...info.shape];
  return decodeFloat32(key, { ...info, shape }, await source.read(key, rows));
}

/** Kinds of floating-point numbers that weights may be kept as. */
export type FloatDtype = 'F32' | 'F16' | 'BF16';

const isFloat = (dtype: Dtype): boolean => ['F64', 'F32', 'F16', 'BF16'].includes(dtype);

/**
 * Bytes of one dtype as another, rounded to the nearest, ties to even; the same bytes where the dtypes agree. Integers
 * stay what they are.
 */
export function castBytes(key: string, info: WeightInfo, to: FloatDtype, bytes: Uint8Array<ArrayBuffer>): Uint8Array {
  if (info.dtype === to || !isFloat(info.dtype)) return bytes;
  return encodeFloat32(key, decodeFloat32(key, { ...info, shape: [...info.shape] }, bytes).data, to);
}

/** The dtype that `castBytes` gives. */
export const castDtype = (from: Dtype, to: FloatDtype): Dtype => (isFloat(from) ? to : from);

/** Fewer or renamed keys of a source: each new key with its old one. */
export function renamed(source: WeightSource, keys: ReadonlyMap<string, string>): WeightSource {
  return {
    ...source,
    entries: new Map([...keys].map(([key, old]) => [key, locate(source, old).info])),
    read: (key, rows) => source.read(keys.get(key)!, rows),
    close: () => source.close(),
  };
}
