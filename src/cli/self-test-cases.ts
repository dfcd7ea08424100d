import { attention } from '../kernels/attention.ts';
import { add, mul } from '../kernels/binary.ts';
import { conv2d } from '../kernels/conv2d.ts';
import { geglu } from '../kernels/geglu.ts';
import { groupNorm } from '../kernels/group-norm.ts';
import { layerNorm } from '../kernels/layer-norm.ts';
import { linear } from '../kernels/linear.ts';
import { matmul } from '../kernels/matmul.ts';
import { softmax } from '../kernels/softmax.ts';
import { gelu, silu } from '../kernels/unary.ts';
import { upsampleNearest } from '../kernels/upsample.ts';
import type { SelfTestCase } from './self-test.ts';

/** What the networks are made of, at small odd shapes. */
export const selfTestCases: SelfTestCase[] = [
  { op: add, shapes: [[5, 7, 9], [9]], attrs: {} },
  {
    op: mul,
    shapes: [
      [33, 17],
      [33, 17],
    ],
    attrs: {},
  },
  { op: silu, shapes: [[1001]], attrs: {} },
  { op: gelu, shapes: [[1001]], attrs: {} },
  { op: softmax, shapes: [[13, 77]], attrs: { axis: -1 } },
  {
    op: matmul,
    shapes: [
      [3, 37, 50],
      [3, 50, 29],
    ],
    attrs: {},
  },
  { op: linear, shapes: [[75, 70], [90, 70], [90]], attrs: {} },
  { op: geglu, shapes: [[40, 24], [96, 24], [96]], attrs: {} },
  { op: conv2d, shapes: [[2, 9, 11, 20], [36, 3, 3, 20], [36]], attrs: { padding: 1 } },
  { op: upsampleNearest, shapes: [[2, 5, 3, 7]], attrs: { factor: 2 } },
  { op: groupNorm, shapes: [[2, 5, 5, 24], [24], [24]], attrs: { groups: 4, eps: 1e-5, silu: true } },
  { op: layerNorm, shapes: [[30, 96], [96], [96]], attrs: { eps: 1e-5 } },
  {
    op: attention,
    shapes: [
      [2, 33, 40],
      [2, 21, 40],
      [2, 21, 40],
    ],
    attrs: { heads: 4 },
  },
];

/** What matrix units take, where the adapter has some. */
export const unitsTestCases: SelfTestCase[] = [
  { op: linear, shapes: [[75, 72], [96, 72], [96]], attrs: {}, dtype: 'f16' },
  { op: linear, shapes: [[75, 70], [90, 70], [90]], attrs: {}, dtype: 'f16' },
  { op: conv2d, shapes: [[2, 9, 11, 16], [40, 3, 3, 16], [40]], attrs: { padding: 1 }, dtype: 'f16' },
];
