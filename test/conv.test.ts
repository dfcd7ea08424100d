import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { conv2d } from '../src/kernels/conv2d.ts';
import { pickConv } from '../src/kernels/conv2d-launch.ts';
import { convTranspose2d } from '../src/kernels/conv2d-transpose.ts';
import { avgPool2d, maxPool2d } from '../src/kernels/pool2d.ts';
import { upsampleBilinear, upsampleNearest } from '../src/kernels/upsample.ts';
import { checkOp } from './check-op.ts';

const test = suite('conv');
const variants = ['naive', 'subgroup-tile', 'workgroup-tile', 'winograd'];

for (const variant of variants) {
  const options = { variants: [variant], gradTolerance: 1e-4, samples: 60 };
  test(`conv2d/${variant}: odd sizes, with and without bias`, async () => {
    await checkOp(conv2d, [[2, 5, 7, 3], [11, 3, 3, 3], [11]], { padding: 1 }, options);
    await checkOp(
      conv2d,
      [
        [1, 3, 9, 10],
        [5, 3, 3, 10],
      ],
      {},
      options,
    );
    await checkOp(conv2d, [[3, 3, 5, 19], [37, 1, 1, 19], [37]], {}, options);
    await checkOp(conv2d, [[1, 1, 2, 9], [70, 3, 3, 9], [70]], { padding: 1 }, options);
    await checkOp(conv2d, [[1, 6, 5, 66], [67, 3, 3, 66], [67]], { padding: 1 }, { ...options, samples: 20 });
  });
  test(`conv2d/${variant}: strides, dilation, uneven padding`, async () => {
    await checkOp(conv2d, [[2, 6, 5, 4], [6, 3, 3, 4], [6]], { stride: 2, padding: 1 }, options);
    await checkOp(conv2d, [[1, 6, 8, 3], [5, 3, 3, 3], [5]], { stride: 2, padding: [0, 1, 0, 1] }, options);
    await checkOp(
      conv2d,
      [
        [1, 7, 8, 3],
        [4, 5, 5, 3],
      ],
      { stride: 3, padding: 2 },
      options,
    );
    await checkOp(
      conv2d,
      [
        [1, 9, 7, 3],
        [4, 3, 3, 3],
      ],
      { dilation: 2, padding: 2 },
      options,
    );
    await checkOp(
      conv2d,
      [
        [1, 9, 8, 2],
        [3, 3, 2, 2],
      ],
      { dilation: 2, stride: 2, padding: 1 },
      options,
    );
    await checkOp(
      conv2d,
      [
        [1, 9, 8, 2],
        [3, 3, 2, 2],
      ],
      { dilation: 3, stride: 2, padding: 3 },
      options,
    );
    await checkOp(
      conv2d,
      [
        [1, 5, 5, 3],
        [4, 1, 1, 3],
      ],
      { stride: 2 },
      options,
    );
  });
  test(`conv2d/${variant}: adds a residual and a time embedding`, () =>
    checkOp(conv2d, [[3, 3, 4, 5], [9, 3, 3, 5], [9], [3, 3, 4, 9], [3, 9]], { padding: 1 }, options));
}
test('conv2d/winograd: by bands of lines and of channels, where an array holds no more', () =>
  checkOp(
    conv2d,
    [[1, 9, 10, 12], [130, 3, 3, 12], [130], [1, 9, 10, 130], [1, 130]],
    { padding: 1 },
    {
      variants: ['winograd'],
      device: { limits: { maxStorageBufferBindingSize: 64 * 1024 } },
      gradTolerance: 1e-4,
      samples: 30,
    },
  ));
test('Winograd is for 3 × 3 convolutions of many channels on software adapters', () => {
  const capabilities = { family: 'cpu', subgroups: true, subgroupSize: 8, force: {} } as any;
  const gathered = (side: number, channels: number) =>
    ({ rows: side * side, height: side, width: side, cols: channels, inChannels: channels }) as any;
  assert.is(pickConv(1, capabilities, gathered(64, 320)), 'winograd');
  assert.is(pickConv(1, capabilities, gathered(8, 1280)), 'winograd');
  assert.is(pickConv(1, capabilities, gathered(24, 128)), 'subgroup-tile', 'a few milliseconds');
  assert.is(pickConv(1, capabilities, gathered(64, 3)), 'subgroup-tile');
  assert.is(pickConv(1, capabilities, gathered(2, 1280)), 'subgroup-tile');
  assert.is(pickConv(1, capabilities), 'subgroup-tile');
  assert.is(pickConv(1, { ...capabilities, family: 'gpu' }, gathered(64, 320)), 'workgroup-tile');
});
test('conv2d: groups, without subgroups too', async () => {
  const options = { core: true, gradTolerance: 1e-4 };
  await checkOp(conv2d, [[2, 4, 5, 6], [4, 3, 3, 3], [4]], { padding: 1, groups: 2 }, options);
  await checkOp(conv2d, [[1, 5, 4, 6], [6, 3, 3, 1], [6]], { padding: 1, groups: 6, stride: 2 }, options);
});
for (const variant of variants) {
  test(`convTranspose2d/${variant}: strides, output padding, bias, groups`, async () => {
    const options = { variants: [variant], gradTolerance: 1e-4, samples: 80 };
    await checkOp(convTranspose2d, [[2, 3, 4, 6], [6, 4, 4, 5], [5]], { stride: 2, padding: 1 }, options);
    await checkOp(
      convTranspose2d,
      [
        [1, 5, 3, 4],
        [4, 3, 3, 3],
      ],
      { stride: 2, padding: 1, outputPadding: 1 },
      options,
    );
    await checkOp(convTranspose2d, [[1, 2, 3, 4], [4, 3, 2, 3], [6]], { stride: 3, groups: 2 }, options);
  });
}
test('pools: windows that overlap, leave gaps, or reach into the padding', async () => {
  for (const op of [avgPool2d, maxPool2d]) {
    await checkOp(op, [[2, 6, 8, 3]], { kernel: 2 }, { core: true });
    await checkOp(op, [[1, 7, 8, 3]], { kernel: 3, stride: 2, padding: 1 }, { core: true });
    await checkOp(op, [[1, 7, 9, 2]], { kernel: 2, stride: 3 }, { core: true });
  }
});
test('upsampling: twice, to odd sizes, to smaller sizes', async () => {
  for (const attrs of [{}, { size: [9, 7] }, { size: [3, 2] }, { size: [1, 11] }, { factor: 3 }] as const) {
    await checkOp(upsampleNearest, [[2, 5, 4, 3]], attrs, { core: true });
    await checkOp(upsampleBilinear, [[2, 5, 4, 3]], attrs, { core: true });
    await checkOp(upsampleBilinear, [[2, 5, 4, 3]], { ...attrs, alignCorners: true }, { core: true });
    await checkOp(upsampleBilinear, [[2, 1, 2, 3]], { ...attrs, alignCorners: true }, { core: true });
  }
});
test.run();
