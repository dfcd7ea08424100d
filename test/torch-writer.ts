/** What `torch.save` writes: a zip archive of a protocol-2 pickle and the storages. For tests, which need such files to read. */
import type { Dtype } from '../src/tensor/io/safetensors.ts';
import { elements } from '../src/tensor/io/weights.ts';

export interface SavedTensor {
  dtype: Dtype;
  shape: readonly number[];
  /** Row-major, little-endian. */
  bytes: Uint8Array;
}

const storageTypes: Partial<Record<Dtype, string>> = {
  F32: 'FloatStorage',
  F64: 'DoubleStorage',
  F16: 'HalfStorage',
  BF16: 'BFloat16Storage',
  I64: 'LongStorage',
  I32: 'IntStorage',
  U8: 'ByteStorage',
  BOOL: 'BoolStorage',
};

/** The file that `torch.save(OrderedDict(tensors))` makes, or `torch.save({ under: OrderedDict(tensors) })`. */
export function torchFile(tensors: Record<string, SavedTensor>, { under = '' } = {}): Uint8Array {
  const rows = Object.entries(tensors);
  const dict = [...orderedDict, '(', ...rows.flatMap(([name, t], i) => [text(name), ...rebuild(t, String(i))]), 'u'];
  const pickle = join(['\x80\x02', ...(under ? ['}', text(under), ...dict, 's'] : dict), '.']);
  return zip([
    ['archive/data.pkl', pickle],
    ...rows.map(([, { bytes }], i): [string, Uint8Array] => [`archive/data/${i}`, bytes]),
    ['archive/version', join(['3\n'])],
  ]);
}

type Piece = string | Uint8Array;

const orderedDict: Piece[] = ['ccollections\nOrderedDict\n', ')', 'R'];

/** _rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict()) */
function rebuild({ dtype, shape }: SavedTensor, key: string): Piece[] {
  const strides = shape.map((_, i) => elements(shape.slice(i + 1)));
  const storage = [
    '(',
    text('storage'),
    `ctorch\n${storageTypes[dtype]}\n`,
    text(key),
    text('cpu'),
    int(elements(shape)),
    'tQ',
  ];
  const args = ['(', ...storage, int(0), ...tuple(shape), ...tuple(strides), '\x89', ...orderedDict, 't'];
  return ['ctorch._utils\n_rebuild_tensor_v2\n', ...args, 'R'];
}

const tuple = (numbers: readonly number[]): Piece[] => ['(', ...numbers.map(int), 't'];

function int(value: number): Uint8Array {
  const out = new Uint8Array(10);
  out.set([0x8a, 8]);
  new DataView(out.buffer).setBigInt64(2, BigInt(value), true);
  return out;
}

function text(value: string): Uint8Array {
  const letters = new TextEncoder().encode(value);
  const out = new Uint8Array(5 + letters.length);
  out[0] = 0x58;
  new DataView(out.buffer).setUint32(1, letters.length, true);
  out.set(letters, 5);
  return out;
}

/** Letters are bytes. */
function join(pieces: Piece[]): Uint8Array {
  const parts = pieces.map((piece) =>
    typeof piece === 'string' ? Uint8Array.from(piece, (c) => c.charCodeAt(0)) : piece,
  );
  const out = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  parts.reduce((at, part) => (out.set(part, at), at + part.length), 0);
  return out;
}

/** An archive of stored entries, whose data begin at multiples of 64 bytes as PyTorch's do. */
export function zip(entries: [name: string, data: Uint8Array][], { zip64 = false } = {}): Uint8Array {
  const pieces: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let at = 0;
  for (const [name, data] of entries) {
    const letters = new TextEncoder().encode(name);
    const padding = (64 - ((at + 30 + letters.length + 4) % 64)) % 64;
    const extra = join([le(2, 0x4246), le(2, padding), new Uint8Array(padding)]);
    const size = le(4, zip64 ? 0xffffffff : data.length);
    const common = (extraLength: number) => [
      le(2, 0),
      le(2, 0),
      le(4, 0),
      le(4, crc32(data)),
      size,
      size,
      le(2, letters.length),
      le(2, extraLength),
    ];
    const wide = join([le(2, 1), le(2, 24), le(8, data.length), le(8, data.length), le(8, at)]);
    directory.push(
      join(['PK\x01\x02', le(4, 0), ...common(zip64 ? wide.length : 0), le(2, 0), le(2, 0), le(2, 0), le(4, 0)]),
      le(4, zip64 ? 0xffffffff : at),
      letters,
      zip64 ? wide : new Uint8Array(0),
    );
    const head = join(['PK\x03\x04', le(2, 0), ...common(extra.length), letters, extra]);
    pieces.push(head, data);
    at += head.length + data.length;
  }
  const size = directory.reduce((sum, { length }) => sum + length, 0);
  const count = entries.length;
  const end64 = join(['PK\x06\x06', le(8, 44), le(4, 0), le(8, 0), le(8, count), le(8, count), le(8, size), le(8, at)]);
  const locator = join(['PK\x06\x07', le(4, 0), le(8, at + size), le(4, 1)]);
  const [n, s, b] = zip64 ? [0xffff, 0xffffffff, 0xffffffff] : [count, size, at];
  const end = join(['PK\x05\x06', le(4, 0), le(2, n), le(2, n), le(4, s), le(4, b), le(2, 0)]);
  return join([...pieces, ...directory, ...(zip64 ? [end64, locator] : []), end]);
}

function le(bytes: number, value: number): Uint8Array {
  let rest = BigInt(value);
  return Uint8Array.from({ length: bytes }, () => {
    const byte = Number(rest & 255n);
    rest >>= 8n;
    return byte;
  });
}

function crc32(data: Uint8Array): number {
  let crc = ~0;
  for (const byte of data) crc = table[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

const table = Int32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});
