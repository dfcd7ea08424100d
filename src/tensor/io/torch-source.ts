/**
 * `.bin`, `.ckpt`, `.pt`, `.pth`: what `torch.save` writes, read by the restricted pickle reader. Tensors are read by ranges.
 *
 *     since 1.6    a zip archive: <name>/data.pkl, and <name>/data/<key> for each storage
 *     before       pickles of a magic number, protocol 1001, the system, the object, a list of storage keys; then for each
 *                  storage its count (i64) and its numbers
 *
 * @see torch/serialization.py in PyTorch. https://github.com/pytorch/pytorch
 */
import { shown, viewOf, type Bytes } from './bytes.ts';
import { maxPickle, PickleEnd, PickleError, unpickle, type PickleWorld, type Value } from './pickle.ts';
import { dtypeBytes } from './safetensors.ts';
import { readStrided } from './strided.ts';
import { isSize, Storage, StorageType, StoredTensor, torchGlobals } from './torch-globals.ts';
import { byteLength, locate, type Rows, type WeightInfo, type WeightSource } from './weights.ts';
import { dataStart, readZip } from './zip.ts';

/** The first bytes of a file from before PyTorch 1.6: protocol 2, and its magic number. */
export const legacyMagic = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

export class TorchFileError extends Error {
  override name = 'TorchFileError';
}

/** Where the numbers of a storage begin in the file. */
type Locate = (storage: Storage) => Promise<number>;

/**
 * The tensors of a checkpoint: of its dict of tensors, or of the `state_dict` in it.
 * @throws TorchFileError for a broken file, and for a pickle that would run something, with its name
 */
export async function torchSource(file: Bytes): Promise<WeightSource> {
  const first = await file.read(0, Math.min(4, file.size));
  const isZip = first[0] === 0x50 && first[1] === 0x4b;
  const { root, where } = await (isZip ? openZip(file) : openLegacy(file)).catch((error: Error) => {
    if (!(error instanceof PickleError)) throw error;
    throw new TorchFileError(`${file.name}: ${error.message}`, { cause: error });
  });
  const tensors = stateOf(file, root);
  const source: WeightSource = {
    name: file.name,
    entries: new Map([...tensors].map(([key, tensor]) => [key, infoOf(file, key, tensor)])),
    metadata: {},
    async read(key, rows) {
      locate(source, key, rows);
      const tensor = narrow(tensors.get(key)!, rows);
      const { dtype } = tensor.storage;
      return readStrided(file, await where(tensor.storage), dtypeBytes[dtype], tensor);
    },
    close: () => file.close(),
  };
  return source;
}

async function openZip(file: Bytes): Promise<{ root: Value; where: Locate }> {
  const entries = await readZip(file);
  const pickles = [...entries.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickles.length !== 1) fail(file, `a zip archive with ${pickles.length} data.pkl, so not made by torch.save`);
  const folder = pickles[0].slice(0, -'data.pkl'.length);
  const order = entries.get(`${folder}byteorder`);
  if (order && order.size === 3) fail(file, 'its numbers are big-endian'); // 'big', not 'little'
  const pickle = entries.get(pickles[0])!;
  if (pickle.size > maxPickle) fail(file, `a pickle of ${pickle.size} bytes is longer than any of weights`);
  const { value } = unpickle(await file.read(await dataStart(file, pickle), pickle.size), {
    find: (name) => torchGlobals.get(name),
    persistent(id) {
      const storage = storageOf(id);
      const entry = entries.get(`${folder}data/${storage.key}`);
      const bytes = storage.size * dtypeBytes[storage.dtype];
      if (!entry) throw new PickleError(`truncated: storage ${shown(storage.key)} is missing`);
      if (entry.size < bytes) {
        throw new PickleError(`storage ${shown(storage.key)} should have ${bytes} bytes and has ${entry.size}`);
      }
      return storage;
    },
  });
  return { root: value, where: ({ key }) => dataStart(file, entries.get(`${folder}data/${key}`)!) };
}

async function openLegacy(file: Bytes): Promise<{ root: Value; where: Locate }> {
  const storages = new Map<string, Storage>();
  const world: PickleWorld = {
    find: (name) => torchGlobals.get(name),
    persistent(id) {
      const storage = storageOf(id);
      const before = storages.get(storage.key) ?? storage;
      if (before.dtype !== storage.dtype || before.size !== storage.size) {
        throw new PickleError(`storage ${shown(storage.key)} is described in two ways`);
      }
      storages.set(storage.key, before);
      return before;
    },
  };
  const { values, end } = await pickles(file, world, 5);
  const [, , , root, keys] = values;
  if (!Array.isArray(keys)) fail(file, 'its list of storages is no list');
  const starts = new Map<Storage, number>();
  let at = end;
  for (const key of keys) {
    const storage = typeof key === 'string' ? storages.get(key) : undefined;
    if (!storage || starts.has(storage)) fail(file, `storage ${nameOf(key)} belongs to no tensor`);
    if (at + 8 > file.size) fail(file, `truncated in storage ${shown(storage.key)}`);
    const count = viewOf(await file.read(at, 8)).getBigInt64(0, true);
    if (count !== BigInt(storage.size)) {
      fail(file, `storage ${shown(storage.key)} should have ${storage.size} numbers and has ${count}`);
    }
    starts.set(storage, at + 8);
    at += 8 + storage.size * dtypeBytes[storage.dtype];
    if (at > file.size)
      fail(file, `truncated: storage ${shown(storage.key)} ends at byte ${at} and the file at ${file.size}`);
  }
  for (const storage of storages.values()) {
    if (!starts.has(storage)) fail(file, `truncated: storage ${shown(storage.key)} is missing`);
  }
  return { root, where: async (storage) => starts.get(storage)! };
}

/** `count` pickles from the start of the file; their length shows only when they are read, so a window grows. */
async function pickles(file: Bytes, world: PickleWorld, count: number): Promise<{ values: Value[]; end: number }> {
  for (let window = 1 << 20; ; window *= 4) {
    const bytes = await file.read(0, Math.min(window, maxPickle, file.size));
    const values: Value[] = [];
    let end = 0;
    try {
      for (let value: Value; values.length < count; values.push(value)) ({ value, end } = unpickle(bytes, world, end));
      return { values, end };
    } catch (error) {
      if (!(error instanceof PickleEnd) || bytes.length < window) throw error;
    }
  }
}

/** ('storage', FloatStorage, '17', 'cpu', 1024), and of old a view, which is None. */
function storageOf(id: Value): Storage {
  const [kind, type, key, , size, part = null] = Array.isArray(id) ? id : [];
  if (kind !== 'storage' || !(type instanceof StorageType) || typeof key !== 'string' || !isSize(size)) {
    throw new PickleError('what lies outside the pickle is no storage of numbers');
  }
  if (part !== null) throw new PickleError(`storage ${shown(key)} is part of another, as before PyTorch 0.4`);
  return new Storage(key, type.dtype, size);
}

/** Names under which training programs keep the weights. */
const holders = ['state_dict', 'model', 'module', 'params_ema', 'params', 'generator'];

function stateOf(file: Bytes, root: Value): Map<string, StoredTensor> {
  if (!(root instanceof Map)) fail(file, 'holds no dict of tensors');
  for (const dict of [root, ...holders.map((name) => root.get(name))]) {
    if (!(dict instanceof Map)) continue;
    const tensors = new Map<string, StoredTensor>();
    for (const [key, value] of dict) {
      if (typeof key === 'string' && value instanceof StoredTensor) tensors.set(key, value);
    }
    if (tensors.size) return tensors;
  }
  const keys = [...root.keys()].slice(0, 12).map(nameOf);
  fail(file, `holds no tensors by name\n  its keys: ${keys.join(', ') || 'none'}`);
}

/** A value as errors show it; lists may hold themselves. */
const nameOf = (value: Value): string =>
  typeof value === 'string' || typeof value === 'number' ? shown(String(value)) : '(no text)';

/** Views of a storage may show a number many times; a tensor that is larger than the file is refused. */
function infoOf(file: Bytes, key: string, { storage, shape }: StoredTensor): WeightInfo {
  const info = { dtype: storage.dtype, shape };
  if (byteLength(info) > file.size) {
    fail(
      file,
      `${shown(key)} [${shape.join(', ')}] takes ${byteLength(info)} bytes, more than the file has (${file.size})`,
    );
  }
  return info;
}

/** Some rows of the first axis. */
function narrow(tensor: StoredTensor, rows?: Rows): StoredTensor {
  if (!rows || !tensor.shape.length) return tensor;
  const [from, to] = rows;
  const { storage, offset, shape, strides } = tensor;
  return new StoredTensor(storage, offset + from * strides[0], [to - from, ...shape.slice(1)], strides);
}

function fail(file: Bytes, message: string): never {
  throw new TorchFileError(`${file.name}: ${message}`);
}
