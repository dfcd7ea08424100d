import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { controlResiduals, repeatControl, type Control } from '../src/flow/control.ts';
import { outlineOf, UNet2DConditionModel, type UNetConfig } from '../src/nn/index.ts';
import { ControlNetModel, residualScales } from '../src/nn/models/controlnet.ts';
import type { ControlNetConfig } from '../src/nn/models/controlnet-config.ts';
import type { ControlResiduals } from '../src/nn/models/unet.ts';
import { observe } from '../src/nn/observe.ts';
import {
  add,
  concat,
  currentGpu,
  mse,
  narrow,
  noGrad,
  scope,
  silu,
  tensor,
  useGpu,
  type Tensor,
} from '../src/tensor/index.ts';
import { assertClose, assertNear, testGpu } from './check-op.ts';
import { randoms } from './randoms.ts';
import { tinyUNet } from './tiny-unet.ts';

const test = suite('controlnet');
test.before(async () => void useGpu(await testGpu()));

const small: Partial<ControlNetConfig> = { conditioning_embedding_out_channels: [4, 8] }; // images twice as large as latents
const noise = (shape: number[], seed: number): Tensor =>
  tensor(
    randoms(
      shape.reduce((n, d) => n * d, 1),
      seed,
    ),
    shape,
  );

/** Of B pictures. */
const inputs = (B: number) => ({
  z: noise([B, 8, 8, 4], 1),
  text: noise([B, 3, 12], 2),
  image: noise([B, 16, 16, 3], 3),
});

/** A ControlNet whose zero convolutions have learnt something. */
function trained(unet: UNet2DConditionModel, seed: number, config = small): ControlNetModel {
  const control = ControlNetModel.fromUNet(unet, { seed, ...config });
  for (const [key, p] of control.namedParameters())
    if (/^controlnet/.test(key)) p.array.write(randoms(p.size, seed + p.size, [-0.2, 0.2]));
  return control;
}

const flatten = ({ downBlockAdditionalResiduals: down = [], midBlockAdditionalResidual: mid }: ControlResiduals) =>
  Promise.all(
    [...down, ...(mid ? [mid] : [])].map(async (x) => ({ shape: x.shape, data: Float32Array.from(await x.read()) })),
  );

const run = <T>(fn: () => T): T => scope(() => noGrad(fn));

test('the ControlNet of Stable Diffusion 1.5 has 361,279,120 parameters in diffusers’ keys and shapes', () => {
  const control = outlineOf(() => new ControlNetModel());
  assert.is(control.parameterCount, 361_279_120);
  const shapes = new Map([...control.namedParameters()].map(([key, p]) => [key, p.checkpointShape]));
  assert.is(shapes.size, 340);
  for (const [key, shape] of [
    ['controlnet_cond_embedding.conv_in.weight', [16, 3, 3, 3]],
    ['controlnet_cond_embedding.blocks.0.weight', [16, 16, 3, 3]],
    ['controlnet_cond_embedding.blocks.5.weight', [256, 96, 3, 3]],
    ['controlnet_cond_embedding.conv_out.weight', [320, 256, 3, 3]],
    ['controlnet_down_blocks.0.weight', [320, 320, 1, 1]],
    ['controlnet_down_blocks.3.weight', [320, 320, 1, 1]],
    ['controlnet_down_blocks.4.weight', [640, 640, 1, 1]],
    ['controlnet_down_blocks.11.bias', [1280]],
    ['controlnet_mid_block.weight', [1280, 1280, 1, 1]],
    ['mid_block.attentions.0.proj_in.weight', [1280, 1280, 1, 1]],
    ['time_embedding.linear_1.weight', [1280, 320]],
  ] as const)
    assert.equal(shapes.get(key), shape, key);
  assert.not.ok(shapes.has('controlnet_down_blocks.12.weight'));
  // What it shares with the U-Net has the U-Net's keys and shapes.
  const unet = outlineOf(() => new UNet2DConditionModel()).namedParameters();
  const shared = [...shapes].filter(([key]) => !key.startsWith('controlnet'));
  for (const [key, shape] of shared) assert.equal(unet.get(key)?.checkpointShape, shape, key);
  assert.is(shared.length, [...unet.keys()].filter((key) => /^(conv_in|time_|down_|mid_)/.test(key)).length);
});

test('a new ControlNet leaves the output of its U-Net as it is, to the bit', async () => {
  using unet = tinyUNet().initialize(2);
  using control = ControlNetModel.fromUNet(unet, small);
  const { z, text, image } = inputs(2);
  const plain = run(() => unet.forward(z, [900, 20], text));
  const controlled = run(() => {
    const residuals = control.forward(z, [900, 20], text, image);
    return unet.forward(z, [900, 20], text, undefined, residuals);
  });
  assert.equal(await controlled.read(), await plain.read());
});

test('on nothing to see, what goes into its zero convolutions is what the U-Net has on its way down', async () => {
  using unet = tinyUNet().initialize(2);
  using control = ControlNetModel.fromUNet(unet, small);
  for (const conv of [...control.controlnet_down_blocks, control.controlnet_mid_block]) {
    const O = conv.weight.shape[0];
    conv.weight.array.write(Float32Array.from({ length: O * O }, (_, i) => (i % (O + 1) ? 0 : 1))); // the identity
  }
  const { z, text, image } = inputs(2);
  const seen = new Map<string, Tensor>();
  const made = await scope(async () => {
    observe(
      unet,
      (key, output) => seen.set(key, output),
      () => noGrad(() => unet.forward(z, 500, text)),
    );
    const keys = [
      'conv_in',
      'down_blocks.0.attentions.0',
      'down_blocks.0.downsamplers.0',
      'down_blocks.1.resnets.0',
      'mid_block',
    ];
    const want = await Promise.all(keys.map((key) => seen.get(key)!.read()));
    return { want, got: await flatten(noGrad(() => control.forward(z, 500, text, image))) };
  });
  assert.is(made.got.length, made.want.length);
  made.got.forEach(({ data }, i) => assertClose(data, made.want[i], 1e-6, `residual ${i}`));
});

test('residuals are added to the skips and to what the middle makes, and the middle does not see them', async () => {
  using unet = tinyUNet().initialize(2);
  const { z, text } = inputs(2);
  const shapes = [
    [2, 8, 8, 16],
    [2, 8, 8, 16],
    [2, 4, 4, 16],
    [2, 4, 4, 24],
  ];
  const down = shapes.map((shape, i) => noise(shape, 10 + i));
  const mid = noise([2, 4, 4, 24], 20);
  const got = run(() =>
    unet.forward(z, 500, text, undefined, { downBlockAdditionalResiduals: down, midBlockAdditionalResidual: mid }),
  );
  // The same by hand, from the parts of the network.
  const want = run(() => {
    const temb = silu(unet.time_embedding.forward(unet.timeWaves([500, 500])));
    let x = unet.conv_in.forward(z);
    const skips = [x];
    for (const block of unet.down_blocks) x = block.forward(x, temb, text, skips);
    x = add(unet.mid_block.forward(x, temb, text), mid);
    const all = skips.map((skip, i) => add(skip, down[i]));
    for (const block of unet.up_blocks) x = block.forward(x, temb, text, all);
    return unet.conv_out.forward(unet.conv_norm_out.forward(x));
  });
  assert.equal(await got.read(), await want.read());
  const only = run(() => unet.forward(z, 500, text, undefined, { midBlockAdditionalResidual: mid }));
  assert.not.equal(await only.read(), await got.read());
});

test('the scale multiplies every residual; guess mode goes from a tenth to one', async () => {
  using unet = tinyUNet().initialize(2);
  using control = trained(unet, 3);
  const { z, text, image } = inputs(2);
  const made = async (options: object) => flatten(run(() => control.forward(z, 500, text, image, options)));
  const plain = await made({});
  const half = await made({ conditioningScale: 0.5 });
  const guess = await made({ conditioningScale: 2, guessMode: true });
  const factors = [0.1, 10 ** -0.75, 10 ** -0.5, 10 ** -0.25, 1]; // logspace(−1, 0, 5)
  plain.forEach(({ data }, i) => {
    assert.ok(Math.max(...data.map(Math.abs)) > 0.05, `residual ${i} is nearly nothing`);
    assertClose(
      half[i].data,
      data.map((v) => v * 0.5),
      1e-6,
      `half of residual ${i}`,
    );
    assertClose(
      guess[i].data,
      data.map((v) => v * 2 * factors[i]),
      1e-6,
      `guess of residual ${i}`,
    );
  });
  assertClose(
    residualScales(13, 1, true),
    Array.from({ length: 13 }, (_, i) => 10 ** (i / 12 - 1)),
    1e-12,
    'of SD 1.5',
  );
});

test('colours in the other order, and means over the image', async () => {
  using unet = tinyUNet().initialize(2);
  using rgb = trained(unet, 3);
  using bgr = trained(unet, 3, { ...small, controlnet_conditioning_channel_order: 'bgr' });
  using pooled = trained(unet, 3, { ...small, global_pool_conditions: true });
  const { z, text, image } = inputs(1);
  const swapped = tensor(
    (await image.read()).map((_, i, all) => all[i - (i % 3) + 2 - (i % 3)]),
    image.shape,
  );
  const [a, b, c] = await Promise.all([
    flatten(run(() => rgb.forward(z, 500, text, image))),
    flatten(run(() => bgr.forward(z, 500, text, swapped))),
    flatten(run(() => pooled.forward(z, 500, text, image, { guessMode: true }))),
  ]);
  assert.equal(b, a);
  a.forEach(({ shape, data }, i) => {
    const C = shape[3];
    const mean = (k: number) => data.reduce((sum, v, at) => sum + (at % C === k ? v : 0), 0) / (data.length / C);
    const means = Array.from({ length: C }, (_, k) => mean(k));
    assert.equal(c[i].shape, shape);
    assertClose(
      c[i].data,
      Array.from(data, (_, at) => means[at % C]),
      1e-5,
      `mean of residual ${i}`,
    );
  });
});

test('with guidance and several prompts, every picture gets what it gets alone', async () => {
  using unet = tinyUNet().initialize(2);
  using net = trained(unet, 3);
  const { z, image } = inputs(4);
  const text = noise([8, 3, 12], 4); // four without texts, then four with
  const two = narrow(image, { axis: 0, start: 0, length: 2 }); // two prompts, two pictures each
  const both = run(() => concat([z, z], { axis: 0 }));
  const call = { z: both, times: 500, text, guidance: true, step: 0, steps: 1 };
  const together = run(() => unet.forward(both, 500, text, undefined, controlResiduals([{ net, image: two }], call)));
  const data = await together.read();
  for (const i of [0, 3, 5, 6]) {
    const one = (x: Tensor, at: number) => narrow(x, { axis: 0, start: at, length: 1 });
    const alone = run(() => {
      const [zi, texti] = [one(both, i), one(text, i)];
      const residuals = net.forward(zi, 500, texti, one(two, Math.floor((i % 4) / 2)));
      return unet.forward(zi, 500, texti, undefined, residuals);
    });
    assertNear(data.subarray(i * 256, (i + 1) * 256), await alone.read(), 1e-5, `picture ${i}`);
  }
});

test('control images are repeated next to each other, then as a whole for guidance', async () => {
  const image = tensor([1, 2], [2, 1, 1, 1]);
  const copies = async (batch: number, guidance: boolean) => [...(await repeatControl(image, batch, guidance).read())];
  assert.equal(await copies(2, false), [1, 2]);
  assert.equal(await copies(4, false), [1, 1, 2, 2]);
  assert.equal(await copies(8, true), [1, 1, 2, 2, 1, 1, 2, 2]);
  assert.throws(
    () => repeatControl(image, 3, false),
    /2 control images do not go into a batch of 3\n {2}image.*\[2, 1, 1, 1\]/,
  );
  assert.throws(() => repeatControl(image, 2, true), /2 control images do not go into a batch of 2/);
});

test('in guess mode with guidance the half without texts gets nothing', async () => {
  using unet = tinyUNet().initialize(2);
  using net = trained(unet, 3);
  const { z, text, image } = inputs(2);
  const call = { z, times: [500, 500], text, guidance: true, guessMode: true, step: 0, steps: 1 };
  const one = narrow(image, { axis: 0, start: 0, length: 1 });
  const got = await flatten(run(() => controlResiduals([{ net, image: one }], call)));
  const later = (x: Tensor) => narrow(x, { axis: 0, start: 1, length: 1 });
  const want = await flatten(run(() => net.forward(later(z), [500], later(text), one, { guessMode: true })));
  got.forEach(({ shape, data }, i) => {
    assert.is(shape[0], 2);
    const half = data.length / 2;
    assert.ok(data.subarray(0, half).every((v) => v === 0));
    assert.equal(data.slice(half), want[i].data);
  });
});

test('several ControlNets add up, each during its part of the steps', async () => {
  using unet = tinyUNet().initialize(2);
  using one = trained(unet, 3);
  using two = trained(unet, 4);
  const { z, text, image } = inputs(1);
  const other = noise([1, 16, 16, 3], 9);
  const controls: Control[] = [
    { net: one, image, conditioningScale: 0.5, end: 0.5 },
    { net: two, image: other, start: 0.25 },
  ];
  const at = async (step: number) =>
    flatten(run(() => controlResiduals(controls, { z, times: 500, text, guidance: false, step, steps: 4 })));
  const a = await flatten(run(() => one.forward(z, 500, text, image, { conditioningScale: 0.5 })));
  const b = await flatten(run(() => two.forward(z, 500, text, other)));
  assert.equal(await at(0), a);
  assert.equal(await at(2), b);
  const both = await at(1);
  both.forEach(({ data }, i) =>
    assertClose(
      data,
      a[i].data.map((v, k) => v + b[i].data[k]),
      1e-6,
      `sum ${i}`,
    ),
  );
  controls.pop();
  assert.equal(await at(3), []);
  assert.throws(
    () =>
      controlResiduals([{ net: one, image, start: 0.8, end: 0.2 }], {
        z,
        times: 1,
        text,
        guidance: false,
        step: 0,
        steps: 1,
      }),
    /from 0\.8 to 0\.2 is no part of the steps/,
  );
});

test('a ControlNet learns: gradients reach it through a frozen U-Net, and it begins with its zero convolutions', async () => {
  using unet = tinyUNet().initialize(2);
  using control = ControlNetModel.fromUNet(unet, small).requiresGrad(true);
  control.gradientCheckpointing = true;
  const { z, text, image } = inputs(2);
  scope(() => {
    const residuals = control.forward(z, 500, text, image);
    mse(unet.forward(z, 500, text, undefined, residuals), noise([2, 8, 8, 4], 8)).backward();
  });
  const size = async (key: string) =>
    Math.max(...(await control.namedParameters().get(key)!.grad!.read()).map(Math.abs));
  assert.ok((await size('controlnet_mid_block.weight')) > 0);
  assert.ok((await size('controlnet_down_blocks.0.weight')) > 0);
  assert.is(await size('down_blocks.0.resnets.0.conv1.weight'), 0); // until those are no longer zero
  for (const [key, p] of unet.namedParameters()) assert.not.ok(p.grad, key);
});

test('what does not fit is refused with both sides', () => {
  using unet = tinyUNet();
  using control = ControlNetModel.fromUNet(unet, small);
  const { z, text, image } = inputs(2);
  const one = narrow(image, { axis: 0, start: 0, length: 1 });
  assert.throws(
    () => control.forward(z, 500, text, one),
    /ControlNetModel: 1 control images for 2 samples\n {2}sample.*\[2, 8, 8, 4\]\n {2}image \[B, 2H, 2W, 3\] +\[1, 16, 16, 3\]\n {2}repeat/,
  );
  assert.throws(() => control.forward(z, 500, text, z), /wants control images 2 times as large as the sample/);
  assert.throws(() => control.forward(image, 500, text, image), /ControlNetModel: wants images with 4 channels/);
  assert.throws(() => control.forward(z, 500, narrow(text, { axis: 0, start: 0, length: 1 }), image), /wants one text/);
  assert.throws(() => control.forward(z, [1], text, image), /wants one time per image/);
  assert.throws(() => control.forward(z, 1, text, image, { conditioningScale: NaN }), /conditioningScale is NaN/);
  const residuals = control.forward(z, 500, text, image);
  const two = residuals.downBlockAdditionalResiduals.slice(0, 2);
  assert.throws(
    () => unet.forward(z, 500, text, undefined, { downBlockAdditionalResiduals: two }),
    /UNet2DConditionModel: 2 residuals for 4 places/,
  );
  assert.throws(
    () => unet.forward(z, 500, text, undefined, { midBlockAdditionalResidual: two[0] }),
    /residual 0 has another shape than what it is added to\n {2}place 0 +\[2, 4, 4, 24\]\n {2}residual 0 +\[2, 8, 8, 16\]/,
  );
  for (const [config, words] of [
    [{ controlnet_conditioning_channel_order: 'gbr' }, /ControlNetModel: controlnet_conditioning_channel_order gbr/],
    [{ conditioning_embedding_out_channels: [] }, /conditioning_embedding_out_channels is empty/],
    [{ act_fn: 'relu' }, /ControlNetModel: act_fn/],
    [{ block_out_channels: [8, 16] }, /ControlNetModel: the configuration lacks down_block_types/],
  ] as [Partial<ControlNetConfig & UNetConfig>, RegExp][])
    assert.throws(() => outlineOf(() => new ControlNetModel(config)), words);
});

test.after(() => currentGpu().idle());
test.run();
