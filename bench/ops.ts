/** A line for every function of tensors: what it moves, at a size that no cache holds. */
import type { HostArray, Op, Shape } from '../src/kernels/index.ts';
import * as T from '../src/tensor/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import type { Line } from './measure.ts';
import { numbers } from './work.ts';

/** Operands of a call and the call; `i32` operands hold indices below the number. */
interface Row {
  shapes: (Shape | { indices: Shape; below: number })[];
  run(...x: Tensor[]): Tensor | Tensor[];
}

const [ROWS, COLS] = [2048, 512];
const matrix: Shape = [ROWS, COLS];
const image: Shape = [1, 64, 64, 256];
const one = (run: Row['run']): Row => ({ shapes: [matrix], run });
const two = (run: Row['run']): Row => ({ shapes: [matrix, matrix], run });
const images = (run: Row['run'], ...more: Shape[]): Row => ({ shapes: [image, ...more], run });
const above = (x: Tensor) => T.add(T.abs(x), 0.5); // for functions of positive numbers

/** Functions by name. Matrix products, convolutions and attention have parts of their own. */
export const OPS: Record<string, Row> = {
  ...Object.fromEntries(
    (
      'neg abs square exp sin cos erf sigmoid tanh relu leakyRelu silu quickGelu gelu softplus mish softmax logSoftmax ' +
      'logsumexp sum mean max min argmax variance std norm l2Normalize cumsum tril layerNorm'
    )
      .split(' ')
      .map((name) => [name, one(T[name as 'exp'])]),
  ),
  ...Object.fromEntries(
    'add sub mul div maximum minimum mse l1 huber smoothL1 pseudoHuber'
      .split(' ')
      .map((name) => [name, two(T[name as 'add'])]),
  ),
  ...Object.fromEntries(
    'sqrt rsqrt reciprocal log'
      .split(' ')
      .map((name) => [`${name} of |x| + ½`, one((x) => T[name as 'log'](above(x)))]),
  ),
  'pow of |x| + ½': two((x, y) => T.pow(above(x), y)),
  clamp: one((x) => T.clamp(x, { min: -0.5, max: 0.5 })),
  addScaled: two((x, y) => T.addScaled(x, y, { s: 0.5 })),
  'add, a row to all': { shapes: [matrix, [COLS]], run: (x, y) => T.add(x, y) },
  'add, a column to all': { shapes: [matrix, [ROWS, 1]], run: (x, y) => T.add(x, y) },
  where: { shapes: [{ indices: matrix, below: 2 }, matrix, matrix], run: (c, x, y) => T.where(c, x, y) },
  bceWithLogits: two((x, y) => T.bceWithLogits(x, T.sigmoid(y))),
  crossEntropy: { shapes: [matrix, { indices: [ROWS], below: COLS }], run: (x, y) => T.crossEntropy(x, y) },
  'sum over rows': one((x) => T.sum(x, { axes: [0] })),
  'mean over columns': one((x) => T.mean(x, { axes: [1] })),
  'max over columns': one((x) => T.max(x, { axes: [1] })),
  transpose: one((x) => T.transpose(x)),
  'permute [2, 0, 1]': images((x) => T.permute(T.reshape(x, [64, 64, 256]), [2, 0, 1])),
  expand: { shapes: [[ROWS, 1]], run: (x) => T.expand(x, matrix) },
  concat: two((x, y) => T.concat([x, y])),
  stack: two((x, y) => T.stack([x, y])),
  slice: one((x) => T.slice(x, [[1, ROWS - 1], [0, COLS, 2]])), // prettier-ignore
  narrow: one((x) => T.narrow(x, { axis: 1, start: 8, length: COLS / 2 })),
  split: one((x) => T.split(x, [COLS / 4, (3 * COLS) / 4])),
  chunk: one((x) => T.chunk(x, 2)),
  flip: one((x) => T.flip(x, [1])),
  repeatInterleave: one((x) => T.repeatInterleave(x, 2)),
  pad: images((x) => T.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])), // prettier-ignore
  embedding: { shapes: [matrix, { indices: [4, 1024], below: ROWS }], run: (x, ids) => T.embedding(x, ids) },
  gather: { shapes: [matrix, { indices: matrix, below: COLS }], run: (x, ids) => T.gather(x, ids) },
  indexSelect: { shapes: [matrix, { indices: [1024], below: ROWS }], run: (x, ids) => T.indexSelect(x, ids) },
  'groupNorm + silu': images((x, w, b) => T.groupNorm(x, w, b, { groups: 32, silu: true }), [256], [256]),
  avgPool2d: images((x) => T.avgPool2d(x, { kernel: 2 })),
  maxPool2d: images((x) => T.maxPool2d(x, { kernel: 2 })),
  upsampleNearest: images((x) => T.upsampleNearest(x)),
  upsampleBilinear: images((x) => T.upsampleBilinear(x)),
  convTranspose2d: {
    shapes: [[1, 32, 32, 64], [64, 4, 4, 64]],
    run: (x, w) => T.convTranspose2d(x, w, undefined, { stride: 2, padding: 1 }),
  }, // prettier-ignore
  geglu: { shapes: [[512, 256], [1024, 256]], run: (x, w) => T.geglu(x, w) }, // prettier-ignore
};

/** Numbers of the largest array that is computed again in JavaScript. */
const CHECKED = 2 ** 21;

/** Lines of `OPS`. */
export const opLines = (): Line[] => Object.entries(OPS).map(([name, row]) => opLine(name, row));

function opLine(name: string, { shapes, run }: Row): Line {
  const line: Line = {
    name: `${name} ${shapes.map((s) => `[${('below' in s ? s.indices : s).join(', ')}]`).join(' ')}`,
    prepare() {
      const operands = shapes.map((s, i) => operand(s, i + 1));
      const call = () => T.noGrad(() => [run(...operands)].flat());
      return {
        run: () => void call(),
        async check() {
          const made = await checkOps(call);
          line.bytes = 4 * (made + operands.reduce((n, { size }) => n + size, 0));
        },
        dispose: () => operands.forEach((tensor) => tensor.dispose()),
      };
    },
  };
  return line;
}

function operand(s: Row['shapes'][number], seed: number): Tensor {
  if (!('below' in s)) return T.keep(T.tensor(numbers(sizeOf(s), seed), s));
  const ids = numbers(sizeOf(s.indices), seed).map((v) => Math.floor((Math.abs(v) * 7919) % s.below));
  return T.keep(T.tensor(ids, s.indices, { dtype: 'i32' }));
}

const sizeOf = (shape: Shape): number => shape.reduce((n, d) => n * d, 1);

interface Seen {
  op: Op<any, any>;
  inputs: (HostArray | undefined)[];
  attrs: object;
  got: HostArray;
}

/** Every op of a call against its own reference. @returns how many numbers the call makes @throws when one differs */
async function checkOps(call: () => Tensor[]): Promise<number> {
  const gpu = T.currentGpu();
  const seen: Promise<Seen>[] = [];
  const host = async (array: { read(): Promise<ArrayLike<number>>; shape: Shape }): Promise<HostArray> => ({
    shape: array.shape,
    data: Float64Array.from(await array.read()),
  });
  gpu.witness = (op, inputs, attrs, output) => {
    const read = Promise.all([...inputs.map((x) => x && host(x)), host(output)]);
    seen.push(read.then((arrays) => ({ op, attrs, inputs: arrays.slice(0, -1), got: arrays.at(-1)! })));
  };
  let made = 0;
  try {
    T.scope(() => (made = call().reduce((n, { size }) => n + size, 0)));
  } finally {
    gpu.witness = undefined;
  }
  for (const { op, inputs, attrs, got } of await Promise.all(seen)) {
    if (got.data.length > CHECKED) continue;
    const want = op.reference(inputs as never, attrs);
    const largest = want.data.reduce((most, v) => Math.max(most, Math.abs(v)), 1e-6);
    want.data.forEach((v, i) => {
      if (!(Math.abs(got.data[i] - v) <= 1e-4 * largest))
        throw new Error(`${op.name}: element ${i} is ${got.data[i]}, its reference ${v}`);
    });
  }
  if (seen.length === 0) throw new Error('no op was seen');
  return made;
}
