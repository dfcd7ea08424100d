/**
 * safetensors, on bytes: no files, no GPU, so that it runs anywhere.
 *
 *     8 bytes       u64, little-endian: length of the header
 *     header        JSON: { name: { dtype, shape, data_offsets: [begin, end] }, …, __metadata__?: { key: text } }
 *     data          the tensors, row-major, little-endian, without gaps; offsets count from here
 *
 * Reading is strict: whatever is wrong is named together with the place and the file.
 * @see https://github.com/huggingface/safetensors#format
 */
import { bfloatsToFloats, floatsToBfloats, floatsToHalves, halvesToFloats } from './half.ts';

/** Bytes of one element. */
export const dtypeBytes = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  I64: 8,
  U64: 8,
  F64: 8,
} as const;
export type Dtype = keyof typeof dtypeBytes;

export interface Kind {
  dtype: Dtype;
  shape: number[];
}

export interface Entry extends Kind {
  /** Bytes from the start of the file. */
  begin: number;
  end: number;
}

export interface Header {
  entries: Map<string, Entry>;
  metadata: Record<string, string>;
  /** Where the data begins, bytes from the start of the file. */
  dataStart: number;
}

/** A tensor on the host, in the layout of the file. */
export interface HostTensor {
  shape: number[];
  data: Float32Array;
  /** Kind in the file; when writing, F32 unless given. */
  dtype?: Dtype;
}

/** A file cannot have a longer header than this (the reference implementation's limit). */
const maxHeader = 100_000_000;

export class SafetensorsError extends Error {
  override name = 'SafetensorsError';
}

/** Length of the header in bytes, from the first 8 bytes of a file of `fileSize` bytes. */
export function headerLength(bytes: Uint8Array, fileSize: number, file = 'safetensors'): number {
  if (fileSize < 8 || bytes.length < 8) fail(file, `${fileSize} bytes are too short to be a safetensors file`);
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  if (length > maxHeader) {
    fail(file, `not a safetensors file: its first 8 bytes would mean a header of ${length} bytes`);
  }
  if (length < 2) fail(file, `header length ${length} is too short`);
  if (8 + length > fileSize) {
    fail(file, `truncated in the header: it ends at byte ${8 + length} and the file at ${fileSize}`);
  }
  return length;
}

/** Parse and check the header; `bytes` must hold at least 8 + its length. */
export function parseHeader(bytes: Uint8Array, fileSize = bytes.length, file = 'safetensors'): Header {
  const length = headerLength(bytes, fileSize, file);
  const dataStart = 8 + length;
  const json = parseJson(bytes.subarray(8, dataStart), file);
  const metadata: Record<string, string> = {};
  const entries = new Map<string, Entry>();
  for (const [name, value] of Object.entries(json)) {
    if (name === '__metadata__') Object.assign(metadata, checkMetadata(value, file));
    else entries.set(name, checkEntry(name, value, dataStart, file));
  }
  checkLayout(entries, dataStart, fileSize, file);
  return { entries, metadata, dataStart };
}

/** One tensor as f32. `data` are the bytes of the entry alone. */
export function decodeFloat32(name: string, { dtype, shape }: Kind, data: Uint8Array): HostTensor {
  const count = data.length / dtypeBytes[dtype];
  switch (dtype) {
    case 'F32':
      return { dtype, shape, data: new Float32Array(aligned(data, 4), 0, count) };
    case 'F16':
      return { dtype, shape, data: halvesToFloats(new Uint16Array(aligned(data, 2), 0, count)) };
    case 'BF16':
      return { dtype, shape, data: bfloatsToFloats(new Uint16Array(aligned(data, 2), 0, count)) };
    case 'F64':
      return { dtype, shape, data: Float32Array.from(new Float64Array(aligned(data, 8), 0, count)) };
    default:
      return { dtype, shape, data: exactFloats(name, decodeIntegers(dtype, data, count)) };
  }
}

/** All tensors of a file in memory, as f32. */
export function readSafetensors(
  bytes: Uint8Array,
  file = 'safetensors',
): { tensors: Record<string, HostTensor>; metadata: Record<string, string> } {
  const { entries, metadata } = parseHeader(bytes, bytes.length, file);
  const tensors: Record<string, HostTensor> = {};
  for (const [name, entry] of entries) {
    tensors[name] = decodeFloat32(name, entry, bytes.subarray(entry.begin, entry.end));
  }
  return { tensors, metadata };
}

/** The parts of a file in order: header, then one array per tensor. */
export function* safetensorsChunks(
  tensors: Record<string, HostTensor>,
  metadata: Record<string, string> = {},
): Generator<Uint8Array> {
  for (const [name, { shape, data }] of Object.entries(tensors)) {
    if (size(shape) !== data.length) {
      throw new SafetensorsError(
        `cannot write ${name}: shape [${shape}] has ${size(shape)} elements, data ${data.length}`,
      );
    }
  }
  const kinds = Object.entries(tensors).map(([name, { shape, dtype = 'F32' }]) => [name, { shape, dtype }] as const);
  const { head, order } = safetensorsHead(kinds, metadata);
  yield head;
  for (const name of order) yield encodeFloat32(name, tensors[name].data, tensors[name].dtype ?? 'F32');
}

/** The header of a file, and the order of its tensors: largest elements first, so that all is aligned. */
export function safetensorsHead(
  tensors: Iterable<readonly [string, { dtype: Dtype; shape: readonly number[] }]>,
  metadata: Readonly<Record<string, string>> = {},
): { head: Uint8Array; order: string[] } {
  const sorted = [...tensors].sort(
    ([a, { dtype: x }], [b, { dtype: y }]) => dtypeBytes[y] - dtypeBytes[x] || (a < b ? -1 : a > b ? 1 : 0),
  );
  const rows: [string, unknown][] = Object.keys(metadata).length ? [['__metadata__', metadata]] : [];
  let offset = 0;
  for (const [name, { dtype, shape }] of sorted) {
    const end = offset + size(shape) * dtypeBytes[dtype];
    rows.push([name, { dtype, shape, data_offsets: [offset, end] }]);
    offset = end;
  }
  const text = new TextEncoder().encode(JSON.stringify(Object.fromEntries(rows)));
  const padded = Math.ceil(text.length / 8) * 8;
  const head = new Uint8Array(8 + padded).fill(0x20);
  new DataView(head.buffer).setBigUint64(0, BigInt(padded), true);
  head.set(text, 8);
  return { head, order: sorted.map(([name]) => name) };
}

/** A whole file in memory. */
export function writeSafetensors(
  tensors: Record<string, HostTensor>,
  metadata: Record<string, string> = {},
): Uint8Array {
  const chunks = [...safetensorsChunks(tensors, metadata)];
  const out = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    out.set(chunk, at);
    at += chunk.length;
  }
  return out;
}

/** Numbers as the bytes of a dtype. @throws for the dtypes that we do not write */
export function encodeFloat32(name: string, data: Float32Array, dtype: Dtype): Uint8Array {
  const view = (array: ArrayBufferView) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  switch (dtype) {
    case 'F32':
      return view(data);
    case 'F16':
      return view(floatsToHalves(data));
    case 'BF16':
      return view(floatsToBfloats(data));
    case 'I32':
      return view(Int32Array.from(data));
    case 'I64':
      return view(BigInt64Array.from(data, BigInt));
    case 'U8':
      return view(Uint8Array.from(data));
    default:
      throw new SafetensorsError(`cannot write ${name}: writing ${dtype} is not supported`);
  }
}

function decodeIntegers(dtype: Dtype, data: Uint8Array, count: number): ArrayLike<number | bigint> {
  switch (dtype) {
    case 'I64':
      return new BigInt64Array(aligned(data, 8), 0, count);
    case 'U64':
      return new BigUint64Array(aligned(data, 8), 0, count);
    case 'I32':
      return new Int32Array(aligned(data, 4), 0, count);
    case 'U32':
      return new Uint32Array(aligned(data, 4), 0, count);
    case 'I16':
      return new Int16Array(aligned(data, 2), 0, count);
    case 'U16':
      return new Uint16Array(aligned(data, 2), 0, count);
    case 'I8':
      return new Int8Array(aligned(data, 1), 0, count);
    default:
      return data;
  }
}

/** Integers as f32, refusing to round one. */
function exactFloats(name: string, integers: ArrayLike<number | bigint>): Float32Array {
  const out = new Float32Array(integers.length);
  for (let i = 0; i < out.length; i++) {
    const value = Number(integers[i]);
    out[i] = value;
    if (out[i] !== value) throw new SafetensorsError(`${name}[${i}] = ${integers[i]} does not fit an f32 exactly`);
  }
  return out;
}

/** The bytes in a buffer that begins where they do, copied only when they are not aligned or not alone. */
function aligned(data: Uint8Array, alignment: number): ArrayBuffer {
  const alone =
    data.byteOffset % alignment === 0 && data.byteOffset === 0 && data.byteLength === data.buffer.byteLength;
  return (alone ? data.buffer : new Uint8Array(data).buffer) as ArrayBuffer;
}

function parseJson(bytes: Uint8Array, file: string): Record<string, unknown> {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    fail(file, `the header is not JSON (${(error as Error).message})`);
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) fail(file, 'the header is not a JSON object');
  return json as Record<string, unknown>;
}

function checkMetadata(value: unknown, file: string): Record<string, string> {
  const bad =
    typeof value !== 'object' || value === null || Object.values(value).some((text) => typeof text !== 'string');
  if (bad) fail(file, '__metadata__ must map names to texts');
  return value as Record<string, string>;
}

function checkEntry(name: string, value: unknown, dataStart: number, file: string): Entry {
  const { dtype, shape, data_offsets: offsets } = (value ?? {}) as Record<string, unknown>;
  if (typeof dtype !== 'string' || !Object.hasOwn(dtypeBytes, dtype)) {
    fail(file, `${name}: dtype ${JSON.stringify(dtype)} is not one of ${Object.keys(dtypeBytes).join(' ')}`);
  }
  const whole = (x: unknown) => Number.isSafeInteger(x) && (x as number) >= 0;
  if (!Array.isArray(shape) || !shape.every(whole)) fail(file, `${name}: bad shape ${JSON.stringify(shape)}`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(whole) || offsets[0] > offsets[1]) {
    fail(file, `${name}: bad data_offsets ${JSON.stringify(offsets)}`);
  }
  const want = size(shape) * dtypeBytes[dtype as Dtype];
  if (offsets[1] - offsets[0] !== want) {
    fail(
      file,
      `${name}: ${dtype} [${shape}] takes ${want} bytes, data_offsets ${offsets[0]}…${offsets[1]} hold ` +
        `${offsets[1] - offsets[0]}`,
    );
  }
  return { dtype: dtype as Dtype, shape, begin: dataStart + offsets[0], end: dataStart + offsets[1] };
}

/** Tensors must fill the data exactly: no overlap, no hole, nothing missing, nothing left over. */
function checkLayout(entries: Map<string, Entry>, dataStart: number, fileSize: number, file: string): void {
  const sorted = [...entries].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  let end = dataStart,
    before = 'the header';
  for (const [name, entry] of sorted) {
    if (entry.begin < end) fail(file, `${name} overlaps ${before} (bytes ${entry.begin}…${end})`);
    if (entry.begin > end) fail(file, `hole of ${entry.begin - end} bytes between ${before} and ${name}`);
    if (entry.end > fileSize) {
      fail(file, `truncated: ${name} ends at byte ${entry.end} and the file at ${fileSize}`);
    }
    end = entry.end;
    before = name;
  }
  if (end !== fileSize) fail(file, `${fileSize - end} bytes are left over after ${before}`);
}

function size(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1);
}

function fail(file: string, message: string): never {
  throw new SafetensorsError(`${file}: ${message}`);
}
