/** The names that a pickle of weights may use. Everything else is refused. */
import { Callable, Inert, type Value } from './pickle.ts';
import { elements } from './weights.ts';
import type { Dtype } from './safetensors.ts';

/** A storage's dtype, by the class that PyTorch names it with. */
export class StorageType extends Inert {
  constructor(
    name: string,
    readonly dtype: Dtype,
  ) {
    super(name);
  }
}

/** Numbers outside the pickle. */
export class Storage extends Inert {
  constructor(
    readonly key: string,
    readonly dtype: Dtype,
    /** How many. */
    readonly size: number,
  ) {
    super(`storage ${key}`);
  }
}

/** A view of a storage. */
export class StoredTensor extends Inert {
  constructor(
    readonly storage: Storage,
    /** Of the first number, in numbers. */
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {
    super('tensor');
  }
}

const storageTypes: Record<string, Dtype> = {
  FloatStorage: 'F32',
  DoubleStorage: 'F64',
  HalfStorage: 'F16',
  BFloat16Storage: 'BF16',
  LongStorage: 'I64',
  IntStorage: 'I32',
  ShortStorage: 'I16',
  CharStorage: 'I8',
  ByteStorage: 'U8',
  BoolStorage: 'BOOL',
};

/** Names that may stand in a checkpoint (keys of Lightning's callbacks, dtypes) and mean nothing to a reader of weights. */
const inert = [
  'pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint',
  ...['float32', 'float64', 'float16', 'bfloat16', 'int64', 'int32', 'int16', 'int8', 'uint8', 'bool'].map(
    (name) => `torch.${name}`,
  ),
];

/** Name → what it stands for. */
export const torchGlobals: ReadonlyMap<string, Inert> = new Map<string, Inert>([
  ...Object.entries(storageTypes).map(([name, dtype]) => entry(new StorageType(`torch.${name}`, dtype))),
  ...inert.map((name) => entry(new Inert(name))),
  entry(new Callable('collections.OrderedDict', orderedDict)),
  entry(new Callable('torch.Size', ([items = []]) => items)),
  entry(new Callable('torch._utils._rebuild_tensor', ([s, offset, shape, strides]) => view(s, offset, shape, strides))),
  entry(
    new Callable('torch._utils._rebuild_tensor_v2', ([s, offset, shape, strides]) => view(s, offset, shape, strides)),
  ),
  entry(new Callable('torch._utils._rebuild_parameter', ([data]) => data ?? null)),
  entry(new Callable('torch.device', () => new Inert('torch.device'))),
  entry(new Callable('_codecs.encode', latin1)),
  ...['numpy.dtype', 'numpy.core.multiarray.scalar', 'numpy._core.multiarray.scalar'].map((name) =>
    entry(new Callable(name, () => new Inert(name))),
  ),
  ...['builtins.set', '__builtin__.set'].map((name) =>
    entry(
      new Callable(name, ([items = []], spend) => {
        if (!Array.isArray(items)) throw new Error('not a list');
        spend(items.length);
        return new Set(items);
      }),
    ),
  ),
]);

function entry(value: Inert): [string, Inert] {
  return [value.name, value];
}

function orderedDict([pairs = []]: Value[], spend: (items: number) => void): Value {
  if (!Array.isArray(pairs)) throw new Error('not a list of pairs');
  spend(pairs.length);
  const dict = new Map<Value, Value>();
  for (const pair of pairs) {
    if (!Array.isArray(pair) || pair.length !== 2) throw new Error('not a list of pairs');
    dict.set(pair[0], pair[1]);
  }
  return dict;
}

/** Bytes as protocol 2 writes them: a text and the name of its encoding. */
function latin1([text, encoding]: Value[], spend: (items: number) => void): Value {
  if (typeof text !== 'string' || encoding !== 'latin1') throw new Error('not a text in latin1');
  spend(text.length);
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

const MAX_RANK = 32;

function view(storage: Value, offset: Value, shape: Value, strides: Value): StoredTensor {
  if (!(storage instanceof Storage)) throw new Error('its first argument is no storage');
  if (!isSizes(shape) || !isSizes(strides) || shape.length !== strides.length || shape.length > MAX_RANK) {
    throw new Error('shape and strides are not lists of whole numbers of equal length');
  }
  if (!isSize(offset)) throw new Error('the offset is no whole number');
  const count = elements(shape);
  const end = count && offset + 1 + shape.reduce((sum, n, i) => sum + (n - 1) * strides[i], 0);
  if (!Number.isSafeInteger(count) || !(end <= storage.size)) {
    throw new Error(
      `a tensor [${shape.join(', ')}] with strides [${strides.join(', ')}] from ${offset} on reaches beyond its storage of ${storage.size}`,
    );
  }
  return new StoredTensor(storage, offset, [...shape], [...strides]);
}

export const isSize = (value: Value | undefined): value is number =>
  Number.isSafeInteger(value) && (value as number) >= 0;
const isSizes = (value: Value): value is number[] =>
  Array.isArray(value) && value.length <= MAX_RANK && value.every(isSize);
