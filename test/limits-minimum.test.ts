import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as attention from '../src/kernels/attention.ts';
import * as binary from '../src/kernels/binary.ts';
import * as conv2d from '../src/kernels/conv2d.ts';
import * as convTranspose2d from '../src/kernels/conv2d-transpose.ts';
import * as crossEntropy from '../src/kernels/cross-entropy.ts';
import * as embedding from '../src/kernels/embedding.ts';
import * as gather from '../src/kernels/gather.ts';
import * as geglu from '../src/kernels/geglu.ts';
import * as groupNorm from '../src/kernels/group-norm.ts';
import type { Op, Shape } from '../src/kernels/index.ts';
import * as layerNorm from '../src/kernels/layer-norm.ts';
import * as linear from '../src/kernels/linear.ts';
import * as loss from '../src/kernels/loss.ts';
import * as matmul from '../src/kernels/matmul.ts';
import * as pool2d from '../src/kernels/pool2d.ts';
import * as reduce from '../src/kernels/reduce.ts';
import * as scan from '../src/kernels/scan.ts';
import * as shape from '../src/kernels/shape.ts';
import * as softmax from '../src/kernels/softmax.ts';
import * as unary from '../src/kernels/unary.ts';
import * as upsample from '../src/kernels/upsample.ts';
import { AdamW, FeedForward } from '../src/nn/index.ts';
import { mean, scope, square, tensor, useGpu } from '../src/tensor/index.ts';
import { checkOp, testGpu } from './check-op.ts';
import { randoms } from './randoms.ts';
import type { CheckOptions } from './check-op.ts';

const test = suite('limits-minimum');
const device = { limits: 'minimum' } as const;
const gpu = await testGpu(device);

type Case = [shapes: (Shape | undefined)[], attrs?: object, options?: CheckOptions];

const tiles = ['naive', 'register-tile', 'workgroup-tile'];
const positive = { ranges: { 0: [0.3, 2], 1: [0.3, 2] } } as const;
const plain: Case = [[[3, 37]]];
const pair: Case = [
  [
    [3, 4, 8],
    [4, 8],
  ],
];
const lossCase: Case = [
  [
    [5, 19],
    [5, 19],
  ],
  { reduction: 'mean', delta: 0.5, beta: 0.5, c: 0.1 },
];

/** One case for every op of these modules: what is not named has its module's. */
const modules: [Record<string, unknown>, Record<string, Case>, usual?: Case][] = [
  [
    unary,
    {
      log: [[[3, 37]], {}, positive],
      sqrt: [[[3, 37]], {}, positive],
      rsqrt: [[[3, 37]], {}, positive],
      reciprocal: [[[3, 37]], {}, positive],
      clamp: [[[3, 37]], { min: -0.7, max: 1 }],
    },
    [[[3, 37]], { s: 0.3, slope: 0.2, exponent: 3 }],
  ],
  [
    binary,
    {
      pow: [pair[0], {}, positive],
      div: [pair[0], {}, positive],
      where: [[[3, 4], [3, 4], [4]], {}, { ints: { 0: [0, 2] } }],
    },
    [pair[0], { s: 0.7 }],
  ],
  [reduce, { argmax: [[[3, 7, 5]], { axis: 1 }] }, [[[4, 7, 24]], { axes: [1] }]],
  [
    shape,
    {
      reshape: [[[2, 6, 5]], { shape: [4, -1] }],
      permute: [[[2, 5, 3, 4]], { axes: [0, 2, 3, 1] }],
      slice: [[[3, 5, 8]], { ranges: [undefined, [1, 3], [4]] }],
      flip: [[[2, 5, 8]], { axes: [0, 2] }],
      expand: [[[4, 1]], { shape: [3, 4, 5] }],
      concat: [
        [
          [2, 3],
          [2, 1],
          [2, 4],
        ],
        { axis: -1 },
      ],
      pad: [
        [[3, 4]],
        {
          pads: [
            [1, 1],
            [0, 2],
          ],
          value: 1.5,
        },
      ],
    },
  ],
  [scan, { cumsum: [[[3, 4, 5]], { axis: 1 }], tril: [[[2, 5, 6]], { diagonal: 0 }] }],
  [softmax, {}, [[[5, 600]], { axis: -1 }, { samples: 20 }]],
  [loss, { bceWithLogits: [lossCase[0], lossCase[1], { ranges: { 1: [0, 1] } }] }, lossCase],
  [crossEntropy, { crossEntropy: [[[6, 9], [6]], { reduction: 'mean' }, { ints: { 1: [0, 9] } }] }],
  [
    embedding,
    {
      embedding: [
        [
          [7, 12],
          [2, 9],
        ],
        {},
        { ints: { 1: [0, 7] } },
      ],
    },
  ],
  [
    gather,
    {
      gather: [
        [
          [3, 6],
          [3, 4],
        ],
        { axis: 1 },
        { ints: { 1: [0, 6] } },
      ],
      indexSelect: [[[6, 4], [9]], { axis: 0 }, { ints: { 1: [0, 6] } }],
    },
  ],
  [
    matmul,
    {
      matmul: [
        [
          [2, 37, 50],
          [2, 50, 29],
        ],
        {},
        { variants: tiles, samples: 20 },
      ],
    },
  ],
  [linear, { linear: [[[75, 70], [90, 70], [90]], {}, { variants: tiles, samples: 20 }] }],
  [geglu, { geglu: [[[40, 24], [96, 24], [96]], {}, { samples: 20 }] }],
  [
    conv2d,
    {
      conv2d: [
        [[1, 6, 5, 66], [67, 3, 3, 66], [67]],
        { padding: 1 },
        { variants: ['naive', 'workgroup-tile'], gradTolerance: 1e-4, samples: 10 },
      ],
    },
  ],
  [
    convTranspose2d,
    {
      convTranspose2d: [
        [[2, 3, 4, 6], [6, 4, 4, 5], [5]],
        { stride: 2, padding: 1 },
        { gradTolerance: 1e-4, samples: 40 },
      ],
    },
  ],
  [pool2d, {}, [[[1, 7, 8, 3]], { kernel: 3, stride: 2, padding: 1 }]],
  [upsample, {}, [[[2, 5, 4, 3]], { factor: 2 }]],
  [groupNorm, { groupNorm: [[[1, 61, 10], [10], [10]], { groups: 2, eps: 1e-5, silu: true }, { samples: 60 }] }],
  [layerNorm, { layerNorm: [[[2, 1100], [1100], undefined], { eps: 1e-5 }, { samples: 20 }] }],
  [
    attention,
    {
      attention: [
        [
          [2, 33, 24],
          [2, 21, 24],
          [2, 21, 24],
        ],
        { heads: 3 },
        { variants: ['naive', 'fused'], samples: 20 },
      ],
    },
  ],
];

test('such a device has what WebGPU guarantees, and no more', () => {
  assert.equal(gpu.limits, {
    maxBufferSize: 256 * 2 ** 20,
    maxStorageBufferBindingSize: 128 * 2 ** 20,
    maxStorageBuffersPerShaderStage: 8,
    maxComputeWorkgroupStorageSize: 16384,
    maxComputeInvocationsPerWorkgroup: 256,
    maxComputeWorkgroupSizeX: 256,
  });
  const { subgroups, f16, timestamps } = gpu.capabilities;
  assert.equal([subgroups, f16, timestamps], [false, false, false]);
  assert.is(gpu.device.limits.maxStorageBuffersPerShaderStage, 8, 'and Dawn refuses what exceeds it');
});

const isOp = (value: unknown): value is Op<any, any> =>
  typeof value === 'object' && value !== null && 'forward' in value && 'reference' in value;

/** As this adapter would choose, and as one of the other family would. */
for (const family of ['cpu', 'gpu'] as const) {
  for (const [module, cases, usual = plain] of modules) {
    for (const [name, op] of Object.entries(module)) {
      if (!isOp(op)) continue;
      const [shapes, attrs, options] = cases[name] ?? usual;
      test(`${name} (${family})`, async () => {
        const before = gpu.capabilities.family;
        gpu.capabilities.family = family;
        try {
          await checkOp(op, shapes, attrs, { ...options, device });
        } finally {
          gpu.capabilities.family = before;
        }
      });
    }
  }
}

test('a layer trains: forward, backward, clipping and AdamW with an average', async () => {
  useGpu(gpu);
  using layer = new FeedForward(16).initialize(1).requiresGrad(true);
  const optimizer = new AdamW(layer.namedParameters(), { lr: 1e-2, maxGradNorm: 1 });
  using x = tensor(randoms(8 * 16, 1), [8, 16]);
  const losses: number[] = [];
  for (let i = 0; i < 5; i++) {
    using value = scope(() => {
      const loss = mean(square(layer.forward(x)));
      loss.backward();
      optimizer.step();
      return loss.detach();
    });
    losses.push(await value.item());
  }
  assert.ok(losses[4] < losses[0]);
  assert.is((await optimizer.report()).steps, 5);
  optimizer.dispose();
});

test.run();
