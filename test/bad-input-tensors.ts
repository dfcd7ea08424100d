/** What functions of tensors do with wrong input. */
import {
  apply,
  checkpoint,
  compile,
  currentGpu,
  init,
  keep,
  noGrad,
  scope,
  Tensor,
  tensor,
  useGpu,
  zeros,
} from '../src/tensor/index.ts';
import * as f from '../src/tensor/index.ts';
import { add as addOp } from '../src/kernels/binary.ts';
import { f32, gives, i32, ids, moved, refuses, t } from './bad-input-rows.ts';
import type { Entry, Row } from './bad-input-rows.ts';

const { NaN: nan, POSITIVE_INFINITY: inf } = Number;
const huge = 2 ** 20;
const tooLarge = /an array of .* is more than this adapter binds at once/;

/** Functions of one number for each number. */
const unary = [
  'neg', 'abs', 'square', 'sqrt', 'rsqrt', 'reciprocal', 'exp', 'log', 'sin', 'cos', 'erf', 'sigmoid', 'tanh', 'relu',
  'leakyRelu', 'silu', 'quickGelu', 'gelu', 'softplus', 'mish', 'clamp',
] as const; // prettier-ignore

const more: Partial<Record<string, Row[]>> = {
  leakyRelu: [
    refuses(
      'a slope that is no number',
      () => f.leakyRelu(t(3), { slope: '1' as never }),
      /^leakyRelu: 1 is no number/,
    ),
  ],
  gelu: [
    refuses(
      'an unknown approximation',
      () => f.gelu(t(2), { approximate: 'sigmoid' as never }),
      /^gelu: there is no approximation 'sigmoid'\n {2}known: none tanh/,
    ),
  ],
  clamp: [
    refuses('min above max', () => f.clamp(t(3), { min: 2, max: 1 }), /^clamp: min is 2, max is 1\n {2}x {2}\[3\]/),
    refuses('NaN for a limit', () => f.clamp(t(3), { min: nan }), /^clamp: min is NaN/),
    gives('no limits leave infinities', () => f.clamp(tensor([inf, -inf, 1])), [3], [inf, -inf, 1]),
  ],
};

const unaryEntry = (name: (typeof unary)[number]): [string, Entry] => {
  const call = f[name] as (x: Tensor) => Tensor;
  const rows = [
    gives('no numbers', () => call(t(0, 3)), [0, 3]),
    refuses('a plain number', () => call(2 as never), new RegExp(`^${name}: an operand is number, not a Tensor`)),
    refuses('nothing', () => call(undefined as never), new RegExp(`^${name}: there is nothing to work on`)),
    ...(more[name] ?? []),
  ];
  return [name, { good: { operands: [f32(2, 3)], call }, rows }];
};

/** Functions of two numbers, which broadcast. */
const binaryEntry = (
  name: 'add' | 'sub' | 'mul' | 'div' | 'pow' | 'maximum' | 'minimum' | 'addScaled',
): [string, Entry] => {
  const call = (a: Tensor, b: Tensor) => (f[name] as (a: Tensor, b: Tensor, attrs: object) => Tensor)(a, b, { s: 1 });
  const rows = [
    refuses(
      'sizes that differ',
      () => call(t(2, 3), t(2, 4)),
      new RegExp(
        `^${name}: sizes differ \\(3 ≠ 4\\) on axis 1\\n {2}a {2}\\[2, 3\\]\\n {2}b {2}\\[2, 4\\]\\n {2}axes must be equal, or 1`,
      ),
    ),
    refuses('no numbers and three', () => call(t(0), t(3)), new RegExp(`^${name}: sizes differ \\(0 ≠ 3\\)`)),
    gives('no numbers and one', () => call(t(2, 0), t(2, 1)), [2, 0]),
    gives('no numbers twice', () => call(t(0, 3), t(3)), [0, 3]),
  ];
  return [name, { good: { operands: [f32(2, 3), f32(3)], call }, rows }];
};

const axis = (name: string, call: (axis: number) => unknown): Row[] => [
  refuses('an axis behind the last', () => call(2), new RegExp(`^${name}: there is no axis 2\\n {2}x {2}\\[2, 3\\]`)),
  refuses('an axis before the first', () => call(-3), new RegExp(`^${name}: there is no axis -3`)),
  refuses('half an axis', () => call(0.5), new RegExp(`^${name}: there is no axis 0.5`)),
  refuses('NaN for an axis', () => call(nan), new RegExp(`^${name}: there is no axis NaN`)),
];

const reduction = (
  name: 'sum' | 'mean' | 'max' | 'min' | 'variance' | 'std',
  op: string,
  empty?: number,
): [string, Entry] => {
  const call = (x: Tensor, attrs = {}) => f[name](x, attrs);
  const none = (shape: number[], attrs: object, of: number[]) =>
    empty === undefined
      ? refuses('no numbers', () => call(t(...shape), attrs), new RegExp(`^${op}: no numbers, so there is no ${op}`))
      : gives('no numbers', () => call(t(...shape), attrs), of, Array(of.reduce((n, d) => n * d, 1)).fill(empty));
  const rows = [
    ...axis(name === 'std' ? 'var' : op, (a) => call(t(2, 3), { axes: [a] })),
    refuses(
      'an axis twice',
      () => call(t(2, 3), { axes: [1, -1] }),
      /: axes 1, -1 name one axis twice\n {2}x {2}\[2, 3\]/,
    ),
    none([0], {}, []),
    none([2, 0], { axes: [1] }, [2]),
    gives('no rows', () => call(t(0, 3), { axes: [1] }), [0]),
  ];
  return [
    name,
    {
      good: { operands: [f32(2, 3)], call: (x: Tensor) => call(x) },
      op: name === 'variance' || name === 'std' ? 'mean' : name,
      rows,
    },
  ];
};

const lossEntry = (
  name: 'mse' | 'l1' | 'huber' | 'smoothL1' | 'pseudoHuber' | 'bceWithLogits',
  attribute?: string,
): [string, Entry] => {
  const call = (x: Tensor, y: Tensor, attrs: object = {}) => f[name](x, y, attrs);
  const rows = [
    refuses(
      'shapes that only broadcast',
      () => call(t(2, 3), t(3)),
      new RegExp(`^${name}: shapes differ\\n {2}x {7}\\[2, 3\\]\\n {2}target {2}\\[3\\]`),
    ),
    refuses(
      'an unknown reduction',
      () => call(t(3), t(3), { reduction: 'average' }),
      new RegExp(`^${name}: there is no reduction 'average'\\n {2}known: none mean sum`),
    ),
    gives('the mean of nothing', () => call(t(0), t(0)), [], [nan]),
    gives('the sum of nothing', () => call(t(0), t(0), { reduction: 'sum' }), [], [0]),
    gives('each of nothing', () => call(t(0, 2), t(0, 2), { reduction: 'none' }), [0, 2]),
    ...[0, -1, nan].flatMap((v) =>
      attribute
        ? [
            refuses(
              `${attribute} ${v}`,
              () => call(t(3), t(3), { [attribute]: v }),
              new RegExp(`^${name}: ${attribute} is ${v}, must be above 0`),
            ),
          ]
        : [],
    ),
  ];
  return [name, { good: { operands: [f32(2, 3), f32(2, 3)], call: (x: Tensor, y: Tensor) => call(x, y) }, rows }];
};

const conv = (name: 'conv2d' | 'convTranspose2d', x: Tensor, attrs: object) =>
  name === 'conv2d'
    ? f.conv2d(x, t(2, 3, 3, 4), undefined, attrs)
    : f.convTranspose2d(x, t(4, 3, 3, 2), undefined, attrs);
const convRows = (name: 'conv2d' | 'convTranspose2d'): Row[] => [
  ...(['stride', 'dilation', 'groups'] as const).flatMap((field) =>
    [0, -1, 1.5, nan, inf].map((v) =>
      refuses(`${field} ${v}`, () => conv(name, t(1, 5, 5, 4), { [field]: v }), new RegExp(`^${name}: ${field} is ${v}, must be`)),
    ),
  ),
  ...[-1, 0.5, nan].map((v) => refuses(`padding ${v}`, () => conv(name, t(1, 5, 5, 4), { padding: v }), new RegExp(`^${name}: padding is ${v}, must be 0 or more`))),
  refuses('two paddings', () => conv(name, t(1, 5, 5, 4), { padding: [1, 1] }), new RegExp(`^${name}: padding is undefined, must be 0 or more`)),
  refuses('three axes', () => conv(name, t(5, 5, 4), {}), new RegExp(`^${name}: x must be \\[B, H, W, `)),
  refuses('an image without pixels', () => conv(name, t(1, 0, 5, 4), { padding: 2 }), new RegExp(`^${name}: (there is nothing to convolve|x has no pixels)`)),
  refuses('padding beyond memory', () => conv(name, t(1, 5, 5, 4), name === 'conv2d' ? { padding: huge } : { stride: huge }), tooLarge),
]; // prettier-ignore

const poolEntry = (name: 'avgPool2d' | 'maxPool2d'): [string, Entry] => {
  const call = (x: Tensor, attrs: Parameters<typeof f.avgPool2d>[1]) => f[name](x, attrs);
  const rows = [
    ...[0, -2, 1.5, nan].map((v) =>
      refuses(
        `kernel ${v}`,
        () => call(t(1, 4, 4, 2), { kernel: v }),
        new RegExp(`^${name}: kernel is ${v}, must be a whole number of at least 1`),
      ),
    ),
    ...[0, -1, 0.5].map((v) =>
      refuses(
        `stride ${v}`,
        () => call(t(1, 4, 4, 2), { kernel: 2, stride: v }),
        new RegExp(`^${name}: stride is ${v}, must be`),
      ),
    ),
    ...[-1, 0.5].map((v) =>
      refuses(
        `padding ${v}`,
        () => call(t(1, 4, 4, 2), { kernel: 2, padding: v }),
        new RegExp(`^${name}: padding is ${v}, must be`),
      ),
    ),
    refuses(
      'much padding',
      () => call(t(1, 4, 4, 2), { kernel: 2, padding: 2 }),
      new RegExp(`^${name}: padding 2 is more than half the kernel 2`),
    ),
    refuses(
      'a window larger than the image',
      () => call(t(1, 4, 2, 2), { kernel: 3 }),
      new RegExp(`^${name}: a 3×3 window does not fit\\n {2}x {2}\\[1, 4, 2, 2\\]`),
    ),
    refuses('a huge window', () => call(t(1, 4, 4, 2), { kernel: huge }), /window does not fit/),
    refuses('two axes', () => call(t(4, 4), { kernel: 2 }), new RegExp(`^${name}: x must be \\[B, H, W, C\\]`)),
    refuses('no pixels', () => call(t(1, 0, 4, 2), { kernel: 2, padding: 1 }), new RegExp(`^${name}: x has no pixels`)),
    gives('no images', () => call(t(0, 4, 4, 2), { kernel: 2 }), [0, 2, 2, 2]),
  ];
  return [name, { good: { operands: [f32(1, 4, 4, 2)], call: (x: Tensor) => call(x, { kernel: 2 }) }, rows }];
};

const upsampleEntry = (name: 'upsampleNearest' | 'upsampleBilinear'): [string, Entry] => {
  const call = (x: Tensor, attrs: object) => f[name](x, attrs);
  const rows = [
    ...[0, -1, nan].map((v) =>
      refuses(
        `factor ${v}`,
        () => call(t(1, 2, 2, 1), { factor: v }),
        new RegExp(`^${name}: cannot make -?(0|2|NaN)×`),
      ),
    ),
    refuses(
      'half a pixel',
      () => call(t(1, 2, 2, 1), { size: [1.5, 2] }),
      new RegExp(`^${name}: cannot make 1.5×2 pixels`),
    ),
    refuses(
      'negative sizes',
      () => call(t(1, 2, 2, 1), { size: [-2, -2] }),
      new RegExp(`^${name}: cannot make -2×-2 pixels`),
    ),
    refuses('no pixels', () => call(t(1, 0, 2, 1), { size: [2, 2] }), new RegExp(`^${name}: x has no pixels`)),
    refuses('three axes', () => call(t(2, 2, 1), {}), new RegExp(`^${name}: x must be \\[B, H, W, C\\]`)),
    refuses('beyond memory', () => call(t(1, 2, 2, 1), { factor: huge }), tooLarge),
    gives('no images', () => call(t(0, 2, 2, 1), {}), [0, 4, 4, 1]),
  ];
  return [name, { good: { operands: [f32(1, 2, 2, 1)], call: (x: Tensor) => call(x, {}) }, rows }];
};

const softmaxEntry = (name: 'softmax' | 'logSoftmax'): [string, Entry] => [
  name,
  {
    good: { operands: [f32(2, 3)], call: (x: Tensor) => f[name](x) },
    rows: [
      ...axis(name, (a) => f[name](t(2, 3), { axis: a })),
      refuses('a scalar', () => f[name](t()), new RegExp(`^${name}: there is no axis -1`)),
      gives('empty rows', () => f[name](t(2, 0)), [2, 0]),
      gives('no rows', () => f[name](t(0, 3)), [0, 3]),
    ],
  },
];

const movedEntry = (name: string, call: (x: Tensor) => unknown, op: string, rows: Row[]): [string, Entry] => [
  name,
  { good: { operands: [moved(2, 3)], call }, op, rows },
];

const pads = (...p: [number, number][]) => p;
const attend = (q: Tensor, k: Tensor, v: Tensor, attrs: object = {}) => f.attention(q, k, v, attrs);

// prettier-ignore
export const tensorEntries: Record<string, Entry> = Object.fromEntries([
  ...unary.map(unaryEntry),
  ...(['add', 'sub', 'mul', 'div', 'pow', 'maximum', 'minimum', 'addScaled'] as const).map(binaryEntry),
  ['where', {
    good: { operands: [moved(2, 3), f32(3), f32(2, 1)], call: f.where },
    rows: [
      refuses('sizes that differ', () => f.where(ids(2), t(3), t(3)), /^where: sizes differ \(2 ≠ 3 ≠ 3\) on axis 0/),
      gives('NaN is not 0, −0 is', () => f.where(tensor([nan, -0, 0, 1e-40]), t(4), tensor([5, 6, 7, 8])), [4], [1, 6, 7, 4]),
      gives('no numbers', () => f.where(ids(0), t(0), t(1)), [0]),
    ],
  }],

  ...(['sum', 'mean', 'max', 'min'] as const).map((name) => reduction(name, name, name === 'sum' ? 0 : name === 'mean' ? nan : undefined)),
  reduction('variance', 'var', nan),
  reduction('std', 'var', nan),
  ['argmax', {
    good: { operands: [f32(2, 3)], call: f.argmax },
    rows: [
      ...axis('argmax', (a) => f.argmax(t(2, 3), { axis: a })),
      refuses('an empty axis', () => f.argmax(t(2, 0)), /^argmax: no numbers, so none is the largest\n {2}x {2}\[2, 0\]/),
      gives('no rows', () => f.argmax(t(0, 3)), [0]),
    ],
  }],
  ['norm', {
    good: { operands: [f32(2, 3)], call: f.norm },
    op: 'square',
    rows: [
      ...axis('sum', (a) => f.norm(t(2, 3), { axes: [a] })),
      ...[0, -1, nan].map((ord) => refuses(`ord ${ord}`, () => f.norm(t(3), { ord }), new RegExp(`^norm: ord is ${ord}, must be above 0`))),
      gives('ord ∞', () => f.norm(tensor([1, -7, 3]), { ord: inf }), [], [7]),
      gives('no numbers', () => f.norm(t(0)), [], [0]),
    ],
  }],
  ['l2Normalize', {
    good: { operands: [f32(2, 3)], call: f.l2Normalize },
    op: 'square',
    rows: [
      ...axis('sum', (a) => f.l2Normalize(t(2, 3), { axis: a })),
      gives('zeros', () => f.l2Normalize(zeros([3])), [3], [0, 0, 0]),
      gives('no numbers', () => f.l2Normalize(t(2, 0)), [2, 0]),
    ],
  }],
  softmaxEntry('softmax'),
  softmaxEntry('logSoftmax'),
  ['logsumexp', {
    good: { operands: [f32(2, 3)], call: f.logsumexp },
    rows: [
      ...axis('logsumexp', (a) => f.logsumexp(t(2, 3), { axis: a })),
      refuses('empty rows', () => f.logsumexp(t(2, 0)), /^logsumexp: no numbers to add up/),
      gives('no rows', () => f.logsumexp(t(0, 3)), [0]),
    ],
  }],

  movedEntry('reshape', (x) => f.reshape(x, [3, 2]), 'reshape', [
    refuses('another size', () => f.reshape(t(2, 3), [4, 2]), /^reshape: 6 numbers do not fill \[4, 2\]/),
    refuses('two sizes open', () => f.reshape(t(2, 3), [-1, -1]), /^reshape: only one size may be −1/),
    refuses('negative sizes', () => f.reshape(t(2, 3), [-2, -3]), /^reshape: a size is -2, must be a whole number of at least 0/),
    refuses('half a size', () => f.reshape(t(2, 3), [0.5, 12]), /^reshape: a size is 0.5/),
    refuses('no number that fits', () => f.reshape(t(2, 3), [4, -1]), /^reshape: 6 numbers do not fill \[4, -1\]/),
    refuses('an open size beside 0', () => f.reshape(t(0, 3), [0, -1]), /^reshape: 0 numbers do not fill \[0, -1\]/),
    gives('no numbers', () => f.reshape(t(0, 3), [3, -1]), [3, 0]),
  ]),
  movedEntry('permute', (x) => f.permute(x, [1, 0]), 'permute', [
    ...axis('permute', (a) => f.permute(t(2, 3), [0, a])),
    refuses('an axis twice', () => f.permute(t(2, 3), [0, 0]), /^permute: axes 0,0 are not an order of 2 axes/),
    refuses('an axis too few', () => f.permute(t(2, 3), [0]), /^permute: axes 0 are not an order of 2 axes/),
    gives('no numbers', () => f.permute(t(0, 3), [1, 0]), [3, 0]),
  ]),
  movedEntry('transpose', (x) => f.transpose(x), 'permute', [
    ...axis('transpose', (a) => f.transpose(t(2, 3), 0, a)),
    refuses('one axis only', () => f.transpose(t(3)), /^transpose: there is no axis -2\n {2}x {2}\[3\]/),
  ]),
  movedEntry('expand', (x) => f.expand(x, [4, 2, 3]), 'expand', [
    refuses('a size that is not 1', () => f.expand(t(2, 3), [2, 6]), /^expand: sizes differ \(3 ≠ 6\) on axis 1/),
    refuses('to less', () => f.expand(t(3), [1]), /^expand: x does not repeat to \[1\]\n {2}x {2}\[3\]/),
    refuses('to fewer axes', () => f.expand(t(2, 3), [3]), /^expand: x does not repeat to \[3\]/),
    refuses('a negative size', () => f.expand(t(1), [-1]), /^expand: a size is -1, must be a whole number of at least 0/),
    refuses('beyond memory', () => f.expand(t(1), [huge, huge]), tooLarge),
    gives('to nothing', () => f.expand(t(1), [0]), [0]),
    gives('integers', () => f.expand(ids(2, 1), [2, 2]), [2, 2], [0, 0, 1, 1]),
  ]),
  ['concat', {
    good: { operands: [moved(2, 3), moved(2, 1)], call: (a: Tensor, b: Tensor) => f.concat([a, b]) },
    rows: [
      ...axis('concat', (a) => f.concat([t(2, 3), t(2, 3)], { axis: a })).map((row) => ({ ...row, wants: /^concat: there is no axis/ })),
      refuses('nothing', () => f.concat([]), /^concat: there is nothing to work on/),
      refuses('another size beside the axis', () => f.concat([t(2, 3), t(4, 3)]), /^concat: only axis 1 may differ\n {2}input 0 {2}\[2, 3\]\n {2}input 1 {2}\[4, 3\]/),
      refuses('another number of axes', () => f.concat([t(2, 3), t(3)], { axis: 0 }), /^concat: only axis 0 may differ/),
      refuses('another dtype', () => f.concat([t(2), ids(2)]), /^concat: input 1 must be f32 or f16, not i32\n {2}input 0 {2}\[2\]\n {2}input 1 {2}\[2\] i32/),
      gives('something and nothing', () => f.concat([t(2), t(0)]), [2], [1, 2]),
      gives('nothing twice', () => f.concat([t(0, 2), t(0, 2)]), [0, 4]),
    ],
  }],
  ['stack', {
    good: { operands: [moved(2, 3), moved(2, 3)], call: (a: Tensor, b: Tensor) => f.stack([a, b]) },
    op: 'reshape|concat',
    rows: [
      refuses('nothing', () => f.stack([]), /^concat: there is nothing to work on/),
      refuses('shapes that differ', () => f.stack([t(2), t(3)]), /^stack: shapes differ\n {2}input 0 {2}\[2\]\n {2}input 1 {2}\[3\]/),
      refuses('an axis behind the new last', () => f.stack([t(2), t(2)], { axis: 2 }), /^stack: there is no axis 2/),
      refuses('half an axis', () => f.stack([t(2)], { axis: 0.5 }), /^stack: there is no axis 0.5/),
      gives('no numbers', () => f.stack([t(0), t(0)], { axis: -1 }), [0, 2]),
    ],
  }],
  movedEntry('slice', (x) => f.slice(x, [[1]]), 'slice', [
    refuses('more ranges than axes', () => f.slice(t(3), [[0], [1]]), /^slice: 2 ranges for 1 axes/),
    refuses('step 0', () => f.slice(t(3), [[0, 3, 0]]), /^slice: step 0 on axis 0/),
    refuses('backwards', () => f.slice(t(3), [[3, 0, -1]]), /^slice: step -1 on axis 0\n {2}x {2}\[3\]\n {2}use flip\(\)/),
    refuses('half a step', () => f.slice(t(3), [[0, 3, 1.5]]), /^slice: step 1.5/),
    refuses('half a place', () => f.slice(t(3), [[0.5, 2]]), /^slice: 0.5 on axis 0 is no whole number/),
    refuses('NaN for a place', () => f.slice(t(3), [[0, nan]]), /^slice: NaN on axis 0/),
    gives('from behind the end', () => f.slice(t(3), [[7]]), [0]),
    gives('to before the start', () => f.slice(t(3), [[2, 1]]), [0]),
    gives('beyond both ends', () => f.slice(t(3), [[-9, 9]]), [3], [1, 2, 3]),
    gives('no numbers', () => f.slice(t(0, 2), [[0, 1]]), [0, 2]),
  ]),
  movedEntry('narrow', (x) => f.narrow(x, { axis: 1, start: 1, length: 2 }), 'slice', [
    ...axis('narrow', (a) => f.narrow(t(2, 3), { axis: a, start: 0, length: 1 })),
    refuses('a negative start', () => f.narrow(t(3), { axis: 0, start: -1, length: 1 }), /^narrow: start is -1, must be a whole number of at least 0/),
    refuses('a negative length', () => f.narrow(t(3), { axis: 0, start: 0, length: -1 }), /^narrow: length is -1/),
    refuses('more than there is', () => f.narrow(t(3), { axis: 0, start: 2, length: 2 }), /^narrow: 2 places from 2 do not fit into 3 on axis 0/),
    gives('nothing', () => f.narrow(t(3), { axis: 0, start: 3, length: 0 }), [0]),
  ]),
  movedEntry('split', (x) => f.split(x, [1, 2]), 'slice', [
    ...axis('split', (a) => f.split(t(2, 3), [3], { axis: a })),
    refuses('sizes that do not add up', () => f.split(t(3), [1, 1]), /^split: 1 \+ 1 is not 3/),
    refuses('a negative size', () => f.split(t(3), [4, -1]), /^split: a size is -1/),
    refuses('half a size', () => f.split(t(3), [1.5, 1.5]), /^split: a size is 1.5/),
    gives('a piece of nothing', () => f.split(t(3), [0, 3]), [0]),
  ]),
  movedEntry('chunk', (x) => f.chunk(x, 2), 'slice', [
    ...axis('chunk', (a) => f.chunk(t(2, 3), 2, { axis: a })),
    ...[0, -1, 1.5, nan].map((n) => refuses(`${n} pieces`, () => f.chunk(t(4), n), new RegExp(`^chunk: n is ${n}, must be a whole number of at least 1`))),
    gives('more pieces than places', () => f.chunk(t(2), 1e9), [1], [1]),
  ]),
  movedEntry('flip', (x) => f.flip(x, [0]), 'flip', [
    ...axis('flip', (a) => f.flip(t(2, 3), [a])),
    refuses('an axis twice', () => f.flip(t(2, 3), [0, -2]), /^flip: axes 0, -2 name one axis twice/),
    gives('no numbers', () => f.flip(t(0, 3), [0]), [0, 3]),
    gives('no axes', () => f.flip(t(2), []), [2], [1, 2]),
  ]),
  movedEntry('repeatInterleave', (x) => f.repeatInterleave(x, 2), 'reshape', [
    ...axis('repeatInterleave', (a) => f.repeatInterleave(t(2, 3), 2, { axis: a })),
    ...[-1, 1.5, nan, inf].map((n) => refuses(`${n} times`, () => f.repeatInterleave(t(3), n), new RegExp(`^repeatInterleave: repeats is ${n}, must be a whole number of at least 0`))),
    refuses('beyond memory', () => f.repeatInterleave(t(3), huge * huge), tooLarge),
    gives('not at all', () => f.repeatInterleave(t(3), 0), [0]),
  ]),
  movedEntry('pad', (x) => f.pad(x, pads([1, 0], [0, 1])), 'pad', [
    refuses('a pair too few', () => f.pad(t(2, 3), pads([1, 1])), /^pad: 1 pairs of widths for 2 axes\n {2}x {2}\[2, 3\]\n {2}one \[before, after\] for each axis/),
    refuses('a pair too few to mirror', () => f.pad(t(2, 3), pads([1, 1]), { mode: 'reflect' }), /^pad: 1 pairs of widths for 2 axes/),
    refuses('a negative width', () => f.pad(t(3), pads([-1, 0])), /^pad: a width is -1, must be a whole number of at least 0/),
    refuses('a negative width to mirror', () => f.pad(t(3), pads([0, -1]), { mode: 'reflect' }), /^pad: a width is -1/),
    refuses('half a width', () => f.pad(t(3), pads([0.5, 0.5])), /^pad: a width is 0.5/),
    refuses('a mirror longer than x', () => f.pad(t(3), pads([3, 0]), { mode: 'reflect' }), /^pad: cannot reflect 3 of 3 on axis 0/),
    refuses('an unknown mode', () => f.pad(t(3), pads([1, 0]), { mode: 'wrap' as never }), /^pad: there is no mode 'wrap'\n {2}known: constant reflect/),
    refuses('a number around integers', () => f.pad(ids(3), pads([1, 0]), { value: 7 }), /^pad: x must be f32/),
    refuses('beyond memory', () => f.pad(t(3), pads([huge * huge, 0])), tooLarge),
    gives('nothing, padded', () => f.pad(t(0), pads([1, 1]), { value: 4 }), [2], [4, 4]),
    gives('integers, with zeros', () => f.pad(ids(2), pads([1, 0])), [3], [0, 0, 1]),
  ]),
  ['cumsum', {
    good: { operands: [f32(2, 3)], call: f.cumsum },
    rows: [...axis('cumsum', (a) => f.cumsum(t(2, 3), { axis: a })), gives('no numbers', () => f.cumsum(t(2, 0)), [2, 0])],
  }],
  ['tril', {
    good: { operands: [f32(3, 3)], call: f.tril },
    rows: [
      refuses('one axis', () => f.tril(t(3)), /^tril: wants two axes or more\n {2}x {2}\[3\]/),
      refuses('half a diagonal', () => f.tril(t(2, 2), { diagonal: 0.5 }), /^tril: diagonal 0.5 is no whole number/),
      gives('far off', () => f.tril(t(2, 2), { diagonal: -9 }), [2, 2], [0, 0, 0, 0]),
      gives('no numbers', () => f.tril(t(0, 0)), [0, 0]),
    ],
  }],
  ['embedding', {
    good: { operands: [f32(4, 2), i32(3)], call: f.embedding },
    rows: [
      refuses('a table with one axis', () => f.embedding(t(4), ids(2)), /^embedding: the table must be \[rows, width\]\n {2}table {2}\[4\]\n {2}ids {4}\[2\] i32/),
      refuses('ids that are floats', () => f.embedding(t(4, 2), t(2)), /^embedding: ids must be i32/),
      refuses('a table without rows', () => f.embedding(t(0, 2), ids(2)), /^embedding: the table has no rows/),
      gives('rows that are not there', () => f.embedding(t(2, 2), tensor([1, 2, -1], [3], { dtype: 'i32' })), [3, 2], [3, 4, nan, nan, nan, nan]),
      gives('no ids', () => f.embedding(t(2, 2), ids(0)), [0, 2]),
    ],
  }],
  ['gather', {
    good: { operands: [f32(2, 3), i32(2, 2)], call: f.gather },
    rows: [
      ...axis('gather', (a) => f.gather(t(2, 3), ids(2, 1), { axis: a })),
      refuses('an index with other axes', () => f.gather(t(2, 3), ids(3, 1)), /^gather: only axis 1 may differ\n {2}x {6}\[2, 3\]\n {2}index {2}\[3, 1\]/),
      refuses('an index of floats', () => f.gather(t(2, 3), t(2, 1)), /^gather: the index must be i32/),
      refuses('an empty axis', () => f.gather(t(2, 0), ids(2, 1)), /^gather: axis 1 is empty/),
      gives('places that are not there', () => f.gather(t(3), tensor([2, 3, -1], [3], { dtype: 'i32' })), [3], [3, nan, nan]),
      gives('no index', () => f.gather(t(2, 3), ids(2, 0)), [2, 0]),
    ],
  }],
  ['indexSelect', {
    good: { operands: [f32(3, 2), i32(2)], call: f.indexSelect },
    rows: [
      ...axis('indexSelect', (a) => f.indexSelect(t(2, 3), ids(1), { axis: a })),
      refuses('an index with two axes', () => f.indexSelect(t(2, 3), ids(1, 1)), /^indexSelect: the index must have one axis/),
      refuses('an index of floats', () => f.indexSelect(t(2, 3), t(1)), /^indexSelect: the index must be i32/),
      gives('rows that are not there', () => f.indexSelect(t(2, 1), tensor([1, 2, -1], [3], { dtype: 'i32' })), [3, 1], [2, nan, nan]),
      gives('no index', () => f.indexSelect(t(2, 3), ids(0)), [0, 3]),
    ],
  }],

  ['groupNorm', {
    good: { operands: [f32(2, 3, 4), f32(4), f32(4)], call: (x: Tensor, w: Tensor, b: Tensor) => f.groupNorm(x, w, b, { groups: 2 }) },
    rows: [
      ...[0, -2, 1.5, nan].map((groups) => refuses(`${groups} groups`, () => f.groupNorm(t(1, 3, 6), undefined, undefined, { groups }), new RegExp(`^groupNorm: groups is ${groups}, must be a whole number of at least 1`))),
      refuses('groups that do not divide', () => f.groupNorm(t(1, 3, 6), undefined, undefined, { groups: 4 }), /^groupNorm: 6 channels do not split into 4 groups\n {2}x {2}\[1, 3, 6\]/),
      refuses('other channels', () => f.groupNorm(t(1, 3, 6), t(3), undefined, { groups: 2 }), /^groupNorm: channels differ\n.*\n {2}weight {2}\[3\]\n.*\n {2}x is channels-last/),
      refuses('one axis', () => f.groupNorm(t(6), undefined, undefined, { groups: 2 }), /^groupNorm: wants \[B, …, C\]/),
      refuses('negative eps', () => f.groupNorm(t(1, 6), undefined, undefined, { groups: 2, eps: -1 }), /^groupNorm: eps is -1, must be 0 or more/),
      refuses('no pixels', () => f.groupNorm(t(1, 0, 6), undefined, undefined, { groups: 2 }), /^groupNorm: groups without numbers have no mean/),
      gives('no images', () => f.groupNorm(t(0, 3, 6), t(6), t(6), { groups: 2, silu: true }), [0, 3, 6]),
    ],
  }],
  ['layerNorm', {
    good: { operands: [f32(2, 4), f32(4), f32(4)], call: f.layerNorm },
    rows: [
      refuses('other sizes', () => f.layerNorm(t(2, 4), t(2)), /^layerNorm: the normalised axes differ\n {2}x {7}\[2, 4\]\n {2}weight {2}\[2\]/),
      refuses('no axes', () => f.layerNorm(t(2, 4), undefined, undefined, { axes: 0 }), /^layerNorm: axes is 0, must be a whole number of at least 1/),
      refuses('a scalar weight', () => f.layerNorm(t(2, 4), t()), /^layerNorm: axes is 0/),
      refuses('more axes than there are', () => f.layerNorm(t(2, 4), undefined, undefined, { axes: 3 }), /^layerNorm: there are no 3 axes/),
      refuses('NaN for eps', () => f.layerNorm(t(2, 4), undefined, undefined, { eps: nan }), /^layerNorm: eps is NaN, must be 0 or more/),
      refuses('empty rows', () => f.layerNorm(t(2, 0)), /^layerNorm: rows without numbers have no mean/),
      gives('no rows', () => f.layerNorm(t(0, 4), t(4), t(4)), [0, 4]),
    ],
  }],

  lossEntry('mse'),
  lossEntry('l1'),
  lossEntry('huber', 'delta'),
  lossEntry('smoothL1', 'beta'),
  lossEntry('pseudoHuber', 'c'),
  lossEntry('bceWithLogits'),
  ['crossEntropy', {
    good: { operands: [f32(2, 3), i32(2)], call: f.crossEntropy },
    rows: [
      refuses('labels of another shape', () => f.crossEntropy(t(2, 3), ids(3)), /^crossEntropy: one label for each row of x is wanted\n {2}x {7}\[2, 3\]\n {2}labels {2}\[3\] i32/),
      refuses('labels that are floats', () => f.crossEntropy(t(2, 3), t(2)), /^crossEntropy: labels must be i32/),
      refuses('no classes', () => f.crossEntropy(t(2, 0), ids(2)), /^crossEntropy: there are no classes/),
      refuses('an unknown reduction', () => f.crossEntropy(t(2, 3), ids(2), { reduction: 'max' as never }), /^crossEntropy: there is no reduction 'max'/),
      refuses('much smoothing', () => f.crossEntropy(t(2, 3), ids(2), { labelSmoothing: 1.5 }), /^crossEntropy: labelSmoothing is 1.5, must be from 0 to 1/),
      refuses('half an index', () => f.crossEntropy(t(2, 3), ids(2), { ignoreIndex: 0.5 }), /^crossEntropy: ignoreIndex 0.5/),
      gives('a label that is no class', () => f.crossEntropy(zeros([2, 2]), tensor([0, 2], [2], { dtype: 'i32' }), { reduction: 'none' }), [2], [Math.log(2), nan]),
      gives('a negative label', () => f.crossEntropy(zeros([1, 2]), tensor([-1], [1], { dtype: 'i32' })), [], [nan]),
      gives('labels that do not count', () => f.crossEntropy(zeros([2, 2]), tensor([-100, 1], [2], { dtype: 'i32' })), [], [Math.log(2)]),
      gives('no labels that count', () => f.crossEntropy(zeros([1, 2]), tensor([-100], [1], { dtype: 'i32' })), [], [nan]),
      gives('no rows', () => f.crossEntropy(t(0, 3), ids(0), { reduction: 'sum' }), [], [0]),
    ],
  }],

  ['matmul', {
    good: { operands: [f32(2, 3), f32(3, 4)], call: (a: Tensor, b: Tensor) => f.matmul(a, b) },
    rows: [
      refuses('inner sizes that differ', () => f.matmul(t(2, 3), t(4, 3)), /^matmul: inner sizes differ \(3 ≠ 4\)\n {2}a {2}\[2, 3\]\n {2}b {2}\[4, 3\]\n {2}did you mean matmul\(a, b, { transposeB: true }\)\?/),
      refuses('batches that differ', () => f.matmul(t(2, 1, 3), t(3, 3, 1)), /^matmul: batches do not broadcast/),
      refuses('a scalar', () => f.matmul(t(), t(2)), /^matmul: a scalar is no matrix/),
      gives('no rows', () => f.matmul(t(0, 3), t(3, 4)), [0, 4]),
      gives('sums of nothing', () => f.matmul(t(2, 0), t(0, 2)), [2, 2], [0, 0, 0, 0]),
      gives('no batch', () => f.matmul(t(0, 2, 3), t(3, 1)), [0, 2, 1]),
    ],
  }],
  ['linear', {
    good: { operands: [f32(2, 3), f32(4, 3), f32(4), f32(2, 4)], call: (x: Tensor, w: Tensor, b: Tensor, residual: Tensor) => f.linear(x, w, b, { residual }) },
    rows: [
      refuses('inner sizes that differ', () => f.linear(t(2, 3), t(3, 4)), /^linear: inner sizes differ \(3 ≠ 4\)\n.*x .*\n.*weight(.*\n)*.*weight is \[outputs, inputs\]/),
      refuses('a weight that is no matrix', () => f.linear(t(2, 3), t(3)), /^linear: weight is not a matrix \[N, K\]/),
      refuses('another bias', () => f.linear(t(2, 3), t(4, 3), t(3)), /^linear: bias is not \[4\]/),
      refuses('another residual', () => f.linear(t(2, 3), t(4, 3), undefined, { residual: t(4) }), /^linear: residual is not \[2, 4\]/),
      refuses('a scalar', () => f.linear(t(), t(4, 3)), /^linear: inner sizes differ/),
      gives('no rows', () => f.linear(t(0, 3), t(4, 3), t(4)), [0, 4]),
      gives('no inputs', () => f.linear(t(2, 0), t(2, 0), t(2)), [2, 2], [1, 2, 1, 2]),
    ],
  }],
  ['geglu', {
    good: { operands: [f32(2, 3), f32(4, 3), f32(4)], call: f.geglu },
    rows: [
      refuses('an odd weight', () => f.geglu(t(2, 3), t(5, 3)), /^geglu: weight has an odd number of rows/),
      refuses('inner sizes that differ', () => f.geglu(t(2, 3), t(4, 2)), /^geglu: inner sizes differ \(3 ≠ 2\)/),
      gives('no rows', () => f.geglu(t(0, 3), t(4, 3)), [0, 2]),
    ],
  }],
  ...(['attention', 'scaledDotProductAttention'] as const).map((name) => [name, {
    good: { operands: [f32(1, 2, 3, 4), f32(1, 2, 5, 4), f32(1, 2, 5, 3), f32(3, 5)], call: (q: Tensor, k: Tensor, v: Tensor, bias: Tensor) => f[name](q, k, v, { bias }) },
    op: 'attention',
    rows: [
      ...[0, -2, 1.5, nan].map((heads) => refuses(`${heads} heads`, () => attend(t(1, 3, 6), t(1, 3, 6), t(1, 3, 6), { heads }), new RegExp(`^attention: heads is ${heads}, must be a whole number of at least 1`))),
      refuses('heads that do not divide', () => attend(t(1, 3, 6), t(1, 3, 6), t(1, 3, 6), { heads: 4 }), /^attention: 4 heads do not divide the last axis\n {2}q {5}\[1, 3, 6\]/),
      refuses('other heads than there are', () => attend(t(1, 2, 3, 4), t(1, 2, 3, 4), t(1, 2, 3, 4), { heads: 4 }), /^attention: heads is 4, but the operands have 2/),
      refuses('two axes', () => attend(t(3, 4), t(3, 4), t(3, 4)), /^attention: q, k and v are not all/),
      refuses('heads that differ in size', () => attend(t(1, 3, 4), t(1, 3, 6), t(1, 3, 4)), /^attention: sizes of a head of q and k differ \(4 ≠ 6\)/),
      refuses('other values than keys', () => attend(t(1, 3, 4), t(1, 2, 4), t(1, 3, 4)), /^attention: numbers of keys and values differ \(2 ≠ 3\)/),
      refuses('batches that differ', () => attend(t(2, 3, 4), t(1, 3, 4), t(1, 3, 4)), /^attention: batches differ/),
      refuses('a bias that does not broadcast', () => attend(t(1, 3, 4), t(1, 3, 4), t(1, 3, 4), { bias: t(2, 3) }), /^attention: bias does not broadcast to \[1, 1, 3, 3\]/),
      refuses('no keys', () => attend(t(1, 3, 4), t(1, 0, 4), t(1, 0, 4)), /^attention: there are no keys to look at/),
      refuses('empty heads', () => attend(t(1, 3, 0), t(1, 3, 0), t(1, 3, 4)), /^attention: a head of q has no numbers/),
      gives('no queries', () => attend(t(1, 0, 4), t(1, 3, 4), t(1, 3, 4)), [1, 0, 4]),
      gives('no batch', () => attend(t(0, 2, 4), t(0, 3, 4), t(0, 3, 4)), [0, 2, 4]),
    ],
  }] as [string, Entry]),

  ['conv2d', {
    good: { operands: [f32(1, 4, 4, 2), f32(3, 3, 3, 2), f32(3), f32(1, 2, 2, 3), f32(1, 3)], call: (x: Tensor, w: Tensor, b: Tensor, residual: Tensor, temb: Tensor) => f.conv2d(x, w, b, { residual, temb }) },
    rows: [
      ...convRows('conv2d'),
      refuses('other channels', () => f.conv2d(t(1, 4, 4, 3), t(2, 3, 3, 4)), /^conv2d: x has 3 channels, weight wants 4\n {2}x {7}\[1, 4, 4, 3\]\n {2}weight {2}\[2, 3, 3, 4\]/),
      refuses("PyTorch's layout", () => f.conv2d(t(1, 8, 8, 4), t(2, 4, 3, 3)), /is the weight \[O, I, kh, kw\]\? The layout here is \[O, kh, kw, I\]/),
      refuses('a kernel larger than the image', () => f.conv2d(t(1, 2, 2, 4), t(2, 3, 3, 4)), /^conv2d: the kernel does not fit into the padded image/),
      refuses('groups that do not divide', () => f.conv2d(t(1, 4, 4, 6), t(2, 3, 3, 2), undefined, { groups: 3 }), /^conv2d: 2 output channels do not fall into 3 groups/),
      refuses('another bias', () => f.conv2d(t(1, 4, 4, 4), t(2, 3, 3, 4), t(3)), /^conv2d: bias must be \[2\]/),
      refuses('another residual', () => f.conv2d(t(1, 4, 4, 4), t(2, 3, 3, 4), undefined, { residual: t(1, 4, 4, 2) }), /^conv2d: residual must be like y, \[1, 2, 2, 2\]/),
      refuses('another time embedding', () => f.conv2d(t(1, 4, 4, 4), t(2, 3, 3, 4), undefined, { temb: t(2, 2) }), /^conv2d: temb must be \[1, 2\]/),
      refuses('an empty kernel', () => f.conv2d(t(1, 4, 4, 4), t(2, 0, 3, 4)), /^conv2d: there is nothing to convolve/),
      gives('no images', () => f.conv2d(t(0, 4, 4, 4), t(2, 3, 3, 4), t(2)), [0, 2, 2, 2]),
    ],
  }],
  ['convTranspose2d', {
    good: { operands: [f32(1, 2, 2, 2), f32(2, 3, 3, 3), f32(3)], call: (x: Tensor, w: Tensor, b: Tensor) => f.convTranspose2d(x, w, b) },
    rows: [
      ...convRows('convTranspose2d'),
      ...[-1, 0.5, nan].map((v) => refuses(`outputPadding ${v}`, () => f.convTranspose2d(t(1, 2, 2, 4), t(4, 3, 3, 2), undefined, { outputPadding: v }), new RegExp(`^convTranspose2d: outputPadding is ${v}, must be`))),
      refuses('much output padding', () => f.convTranspose2d(t(1, 2, 2, 4), t(4, 3, 3, 2), undefined, { outputPadding: 2 }), /^convTranspose2d: outputPadding 2 must be below the stride or dilation/),
      refuses('other channels', () => f.convTranspose2d(t(1, 2, 2, 3), t(4, 3, 3, 2)), /^convTranspose2d: channels differ \(3 ≠ 4\)/),
      refuses('all padded away', () => f.convTranspose2d(t(1, 2, 2, 4), t(4, 3, 3, 2), undefined, { padding: 2 }), /^convTranspose2d: the padding leaves nothing/),
      refuses('another bias', () => f.convTranspose2d(t(1, 2, 2, 4), t(4, 3, 3, 2), t(4)), /^convTranspose2d: bias must be \[2\]/),
      gives('no images', () => f.convTranspose2d(t(0, 2, 2, 4), t(4, 3, 3, 2)), [0, 4, 4, 2]),
    ],
  }],
  poolEntry('avgPool2d'),
  poolEntry('maxPool2d'),
  upsampleEntry('upsampleNearest'),
  upsampleEntry('upsampleBilinear'),

  ['tensor', {
    rows: [
      refuses('numbers that do not fill it', () => tensor([1, 2, 3], [2, 2]), /^tensor: 3 numbers do not fill 4 places\n {2}shape {2}\[2, 2\]/),
      refuses('a negative size', () => tensor([1, 2], [-1, -2]), /^array: -1 is not a size\n {2}shape {2}\[-1, -2\]/),
      refuses('half a size', () => tensor([1, 2], [0.5, 4]), /^array: 0.5 is not a size/),
      refuses('fractions as integers', () => tensor([1, 2.5], [2], { dtype: 'i32' }), /^tensor: number 1 is 2.5, which no i32 is/),
      refuses('NaN as an integer', () => tensor([nan], [1], { dtype: 'i32' }), /^tensor: number 0 is NaN, which no i32 is/),
      refuses('integers that are too large', () => tensor([2 ** 31], [1], { dtype: 'i32' }), /^tensor: number 0 is 2147483648, which no i32 is/),
      refuses('negative numbers as u32', () => tensor([-1], [1], { dtype: 'u32' }), /^tensor: number 0 is -1, which no u32 is/),
      refuses('gradients of integers', () => tensor([1], [1], { dtype: 'i32', requiresGrad: true }), /^requiresGrad: i32 has no gradients/),
      gives('no numbers', () => tensor([]), [0]),
      gives('what f32 cannot hold', () => tensor([1e40, nan, -inf]), [3], [inf, nan, -inf]),
    ],
  }],
  ['zeros', {
    rows: [
      refuses('a negative size', () => zeros([2, -1]), /^array: -1 is not a size/),
      refuses('NaN for a size', () => zeros([nan]), /^array: NaN is not a size/),
      refuses('beyond memory', () => zeros([huge, huge]), tooLarge),
      gives('no numbers', () => zeros([0, 4]), [0, 4]),
    ],
  }],
  ['Tensor', {
    rows: [
      refuses('item() of two', () => t(2).item(), /^item: wants one element, has 2/),
      refuses('item() of none', () => t(0).item(), /^item: wants one element, has 0/),
      refuses('backward() from two', () => t(2).backward(), /^backward: wants a scalar loss, has 2 elements\n.*\n {2}take sum\(\) or mean\(\) first/),
      refuses('backward() without gradients', () => t().backward(), /^backward: nothing here requires a gradient/),
      refuses('read() once freed', () => freed().read(), /^read: an operand was already freed/),
      refuses('detach() once freed', () => freed().detach(), /^view: an operand was already freed/),
    ],
  }],
  ['apply', {
    rows: [
      refuses('operands that are no tensors', () => apply(addOp, [1 as never, t(1)], {}), /^add: an operand is number, not a Tensor\n {2}make one with tensor\(…\)/),
      refuses('null', () => apply(addOp, [t(1), null as never], {}), /^add: an operand is object, not a Tensor/),
    ],
  }],
  ['scope', { rows: [refuses('a function that throws', () => scope(() => f.add(t(2), t(3))), /^add: sizes differ/)] }],
  ['noGrad', { rows: [refuses('a function that throws', () => noGrad(() => f.add(t(2), t(3))), /^add: sizes differ/)] }],
  ['checkpoint', { rows: [refuses('a function that throws', () => checkpoint((x) => f.add(x, t(3)), t(2)), /^add: sizes differ/)] }],
  ['compile', {
    good: { operands: [f32(2, 3)], call: (x) => compile((y: Tensor) => f.mul(y, 2))(x) },
    op: 'compile|mulScalar',
    rows: [
      refuses('a function that throws', () => compile((x: Tensor) => f.add(x, t(3)))(t(2)), /^add: sizes differ/),
      refuses('no tensor', () => compile((x: Tensor) => x)(3 as never), /^compile: input 0 is not a Tensor/),
      refuses('a number for a result', () => compile((() => 3) as never)(), /^compile: the function returned number/),
    ],
  }],
  ['keep', { rows: [gives('a tensor of no scope', () => keep(t(1)), [1], [1])] }],
  ['init', { rows: [refuses('an adapter that is not there', () => init({ adapter: 'no such adapter' } as never), /adapter/)] }],
  ['useGpu', { rows: [refuses('no device', withoutDevice, /^no device yet\n {2}await init\(\) first/)] }],
  ['currentGpu', { rows: [refuses('no device', withoutDevice, /^no device yet\n {2}await init\(\) first/)] }],
] as [string, Entry][]);

function freed(): Tensor {
  const x = t(2);
  x.dispose();
  return x;
}

/** Ask for the device while there is none. */
function withoutDevice(): void {
  const gpu = currentGpu();
  useGpu(undefined as never);
  try {
    tensor([1]);
  } finally {
    useGpu(gpu);
  }
}
