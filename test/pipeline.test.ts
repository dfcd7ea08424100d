import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Pipeline } from '../src/flow/pipeline.ts';
import { latentMask } from '../src/flow/pipelines/images.ts';
import type { SampleOptions } from '../src/flow/pipelines/options.ts';
import { RefinerPipeline } from '../src/flow/pipelines/refiner.ts';
import type { RefineOptions } from '../src/flow/pipelines/refiner.ts';
import { AutoencoderKL, CLIPTextModel, UNet2DConditionModel } from '../src/nn/index.ts';
import { mergeLoras } from '../src/nn/lora-apply.ts';
import { newLora } from '../src/nn/lora.ts';
import { ControlNetModel } from '../src/nn/models/controlnet.ts';
import { StackedUNet } from '../src/nn/models/stacked-unet.ts';
import { init, noGrad, scope, tensor } from '../src/tensor/index.ts';
import { assertClose } from './check-op.ts';
import { collectGarbage } from './garbage.ts';
import { randoms } from './randoms.ts';
import { sd, speaking, text, tinyPipeline, tokenizer, unet, vae } from './tiny-pipeline.ts';

const test = suite('pipeline');
const gpu = await init();
const pipeline = tinyPipeline();
const flow = tinyPipeline(4, { _class_name: 'RectifiedFlow' });
test.after(() => gpu.destroy());

const prompts = ['a cat on a boat', 'soft light'];
const image = randoms(16 * 16 * 3, 8, [-1, 1]);

test('an image depends on its prompt and seed alone, not on its batch', async () => {
  for (const scheduler of ['euler_a', 'pndm']) {
    const together = await pipeline.sample({ prompts, seeds: [5, 9], scheduler });
    const apart = await pipeline.sample({ prompts, seeds: [5, 9], scheduler, batchSize: 1 });
    assertClose(together.images, apart.images, 1e-5, scheduler);
    const second = await pipeline.sample({ prompts: prompts.slice(1), seeds: 9, scheduler });
    assertClose(second.images, together.images.slice(image.length), 1e-5, scheduler);
    assert.is(together.sampler, { euler_a: 'EulerAncestral', pndm: 'PNDM' }[scheduler]);
    assert.is(together.evaluations, { euler_a: 4, pndm: 5 }[scheduler]);
  }
});

test('prompt, negative prompt, seed, scheduler, guidance and size each change the image', async () => {
  const base: SampleOptions = { prompts: ['a cat'], seeds: 1, steps: 3 };
  const first = await pipeline.sample(base);
  for (const change of [
    { prompts: ['a boat'] },
    { negativePrompt: 'soft' },
    { seeds: 2 },
    { scheduler: 'ddim' },
    { guidanceScale: 1 },
    { steps: 5 },
  ]) {
    const { images } = await pipeline.sample({ ...base, ...change });
    assert.ok(
      images.some((v, i) => Math.abs(v - first.images[i]) > 1e-4),
      JSON.stringify(change),
    );
  }
  const wide = await pipeline.sample({ ...base, height: 24, width: 40 });
  assert.equal([wide.height, wide.width, wide.images.length, wide.latents.length], [24, 40, 24 * 40 * 3, 12 * 20 * 4]);
  assert.equal((await pipeline.sample(base)).images, first.images);
});

test('one negative prompt for each image', async () => {
  const options = { prompts, seeds: 3, steps: 2 };
  const each = await pipeline.sample({ ...options, negativePrompt: ['boat', 'light'] });
  const first = await pipeline.sample({ ...options, negativePrompt: 'boat' });
  const second = await pipeline.sample({ ...options, negativePrompt: 'light' });
  assertClose(each.images.slice(0, image.length), first.images.slice(0, image.length), 1e-6, 'first');
  assertClose(each.images.slice(image.length), second.images.slice(image.length), 1e-6, 'second');
});

test('image → image runs the last steps only, and stays nearer to the image the fewer they are', async () => {
  const distances: number[] = [];
  const { images: rebuilt } = await flow.sample({ prompts: ['a cat'], seeds: 1, steps: 20, image, strength: 0.05 });
  for (const strength of [0.25, 0.5, 1]) {
    const seen: number[] = [];
    const result = await flow.sample({
      prompts: ['a cat'],
      seeds: 1,
      steps: 8,
      image,
      strength,
      onStep: ({ index, steps, timestep }) => {
        assert.is(steps, 8 * strength);
        assert.is(index, seen.push(timestep) - 1);
      },
    });
    assert.is(result.evaluations, 8 * strength);
    assert.is(seen[0], 1000 * strength);
    distances.push(Math.hypot(...result.images.map((v, i) => v - rebuilt[i])));
  }
  assert.ok(distances[0] < distances[1] && distances[1] < distances[2], distances.join());
});

test('one image for all prompts is the same as a copy for each', async () => {
  const options = { prompts, seeds: 3, steps: 4, strength: 0.5 };
  const one = await pipeline.sample({ ...options, image });
  const both = await pipeline.sample({ ...options, image: Float32Array.from([...image, ...image]), batchSize: 1 });
  assertClose(one.images, both.images, 1e-5, 'images');
});

test('painting inside a mask leaves the latents outside as the encoder made them', async () => {
  const mask = Float32Array.from({ length: 256 }, (_, i) => Number(i % 16 < 8)); // the left half
  const result = await pipeline.sample({ prompts: ['a cat'], seeds: 6, steps: 4, image, mask });
  const free = await pipeline.sample({ prompts: ['a dog'], seeds: 6, steps: 4, image, mask });
  const column = (i: number) => Math.floor(i / 4) % 8;
  let [inside, outside] = [0, 0];
  result.latents.forEach((v, i) => {
    const change = Math.abs(v - free.latents[i]);
    if (column(i) < 4) inside = Math.max(inside, change);
    else outside = Math.max(outside, change);
  });
  assert.ok(inside > 1e-3 && outside === 0, `${inside} inside, ${outside} outside`);
});

test('a network made for inpainting sees the mask and the rest of the image', async () => {
  const inpainting = tinyPipeline(9);
  const mask = new Float32Array(256).fill(1);
  mask.fill(0, 0, 128);
  const options = { prompts, seeds: 6, steps: 2, mask };
  const one = await inpainting.sample({ ...options, image });
  assert.ok(one.images.every(Number.isFinite));
  const other = await inpainting.sample({ ...options, image: image.map((v, i) => (i < 384 ? -v : v)) });
  assert.ok(one.latents.some((v, i) => Math.abs(v - other.latents[i]) > 1e-5));
  const hidden = await inpainting.sample({ ...options, image: image.map((v, i) => (i < 384 ? v : -v)) });
  assert.equal(hidden.latents, one.latents, 'what is under the mask is not seen');
  inpainting.dispose();
});

test('two U-Nets in a row draw in one step; a ControlNet is not for them', async () => {
  const stacked = new StackedUNet(unet).initialize(5);
  stacked.unets[1].conv_out!.weight.array.write(randoms(stacked.unets[1].conv_out!.weight.size, 4, [-0.1, 0.1]));
  const { textEncoder, vae } = pipeline.parts;
  const two = new Pipeline({ tokenizer, textEncoder, vae, networks: { unet: stacked }, defaults: {} });
  const noise = randoms(256, 6);
  const { latents } = await two.sample({ prompts: ['soft light'], seeds: 0, noise });
  using text = two.encodePrompts(['soft light']).text;
  using velocity = noGrad(() => scope(() => stacked.forward(tensor(noise, [1, 8, 8, 4]), 1000, text)));
  const v = await velocity.read();
  const want = noise.map((x, i) => x + v[i]);
  assertClose(latents, want, 1e-6, 'noise + velocity');
  const residuals = () => ({});
  assert.throws(() => two.conditional('unet', undefined, residuals), /a ControlNet goes with one U-Net/);
  stacked.dispose();
});

test('a latent is masked where its first pixel is', () => {
  const mask = Float32Array.from({ length: 16 }, (_, i) => i / 16);
  assert.equal([...latentMask(mask, [4, 4], [2, 2])], [0, 0, 1, 1]);
});

test('ControlNets: each image of a batch by its own, in its part of the steps, with and without guidance', async () => {
  const net = ControlNetModel.fromUNet(pipeline.network('unet') as UNet2DConditionModel, {
    conditioning_embedding_out_channels: [4, 8],
  });
  const options: SampleOptions = { prompts, seeds: 4, steps: 4, scheduler: 'ddim' };
  const edges = randoms(2 * 768, 9, [0, 1]);
  const free = await pipeline.sample(options);
  const begun = await pipeline.sample({ ...options, controls: [{ net, image: edges }] });
  assert.equal(begun.images, free.images, 'one that was just begun from the network changes nothing');
  for (const conv of [...net.controlnet_down_blocks, net.controlnet_mid_block, net.controlnet_cond_embedding.conv_out])
    conv.weight.array.write(randoms(conv.weight.size, 7, [-0.3, 0.3]));
  for (const guidanceScale of [1, 3]) {
    const change = { ...options, guidanceScale, guessMode: guidanceScale > 1 };
    const both = await pipeline.sample({ ...change, controls: [{ net, image: edges }] });
    const second = await pipeline.sample({
      ...change,
      prompts: prompts.slice(1),
      seeds: 5,
      controls: [{ net, image: edges.slice(768) }],
    });
    assertClose(second.images, both.images.slice(768), 1e-5, `guidance ${guidanceScale}`);
    const without = await pipeline.sample(change);
    assert.ok(both.images.some((v, i) => Math.abs(v - without.images[i]) > 1e-3));
    const twice = await pipeline.sample({
      ...change,
      controls: [0.25, 0.75].map((conditioningScale) => ({ net, image: edges, conditioningScale })),
    });
    assertClose(twice.images, both.images, 1e-4, 'two that add up to one');
  }
  const late: Float32Array[] = [];
  await pipeline.sample({
    ...options,
    controls: [{ net, image: edges, start: 0.5 }],
    onStep: async ({ latents }) => void late.push((await latents.read()) as Float32Array),
  });
  const plain: Float32Array[] = [];
  await pipeline.sample({ ...options, onStep: async ({ latents }) => void plain.push((await latents.read()) as Float32Array) }); // prettier-ignore
  assert.equal(late.map((step, i) => step.join() === plain[i].join()), [true, true, false, false]); // prettier-ignore
  const wrongSize = { ...options, controls: [{ net, image: new Float32Array(7) }] };
  assert.match(
    String(await pipeline.sample(wrongSize).catch((e: Error) => e)),
    /the image of a ControlNet has 7 numbers/,
  );
  net.dispose();
});

test('a LoRA on a pipeline changes its pictures until it is removed', async () => {
  const lora = newLora(pipeline.loraModels('unet'), { rank: 2, seed: 1 });
  for (const [key, p] of lora.namedParameters()) if (/up|lora_B/.test(key)) p.array.write(randoms(p.size, 3, [-1, 1]));
  const options = { prompts: ['a cat'], seeds: 4, steps: 2 };
  const before = await pipeline.sample(options);
  const applied = mergeLoras([{ lora, scale: 0.5 }]);
  const changed = await pipeline.sample(options);
  applied.remove();
  assert.ok(changed.images.some((v, i) => Math.abs(v - before.images[i]) > 1e-4));
  assert.equal((await pipeline.sample(options)).images, before.images);
  lora.dispose();
});

test('tiles: one that holds the image changes nothing, small ones little but for memory', async () => {
  const options: SampleOptions = { prompts: ['a cat'], seeds: 4, steps: 2, height: 32, width: 48, strength: 0.5 };
  options.image = randoms(32 * 48 * 3, 6, [-1, 1]);
  const whole = await pipeline.sample(options);
  assert.equal((await pipeline.sample({ ...options, vaeTile: 64 })).images, whole.images);
  const tiled = await pipeline.sample({ ...options, vaeTile: 16 });
  assert.is(tiled.images.length, whole.images.length);
  const distance = (a: Float32Array, b: Float32Array) => Math.hypot(...a.map((v, i) => v - b[i]));
  assert.ok(distance(tiled.images, whole.images) > 0);
  assert.ok(distance(tiled.images, whole.images) < 0.5 * Math.hypot(...whole.images));
  assert.match(String(await pipeline.sample({ ...options, vaeTile: 15 }).catch((e: Error) => e)), /tile/);
});

test('previews are what the network believes in, and become the image', async () => {
  const previews: Float32Array[] = [];
  const result = await flow.sample({
    prompts: ['a cat'],
    seeds: 2,
    steps: 6,
    previewSteps: 2,
    onPreview: (images, { index }) => void (previews.push(images), assert.is(index % 2, 1)),
  });
  assert.is(previews.length, 3);
  const distance = (images: Float32Array) => Math.hypot(...images.map((v, i) => v - result.images[i]));
  assertClose(previews[2], result.images, 1e-5, 'the last is the image');
  assert.ok(distance(previews[0]) > distance(previews[1]), previews.map(distance).join());
});

test('sampling leaves no arrays behind, also when it is stopped', async () => {
  const stop = new AbortController();
  const options: SampleOptions = { prompts, seeds: 1, steps: 3, onPreview() {}, image, strength: 0.7 };
  await pipeline.sample(options);
  await collectGarbage();
  const before = gpu.memory().arrays;
  await pipeline.sample(options);
  const error = await pipeline
    .sample({ ...options, signal: stop.signal, onStep: () => stop.abort() })
    .catch((e: Error) => e);
  assert.instance(error, Error);
  assert.is(gpu.memory().arrays, before);
});

const wrong: [options: Partial<SampleOptions>, message: RegExp][] = [
  [{ prompts: [] }, /no prompt/],
  [{ prompts: ['  '] }, /the prompt is empty/],
  [{ seeds: [1] }, /1 seeds for 2 prompts/],
  [{ seeds: [1, -2] }, /-2 is no seed/],
  [{ seeds: 0.5 }, /0\.5 is no seed/],
  [{ steps: 0 }, /steps/],
  [{ steps: 2000 }, /2000/],
  [{ height: 17 }, /height is 17, must be a multiple of 2\n {2}the nearest is 18/],
  [{ width: -8 }, /width is -8/],
  [{ width: NaN }, /width is NaN/],
  [{ guidanceScale: NaN }, /alpha is NaN/],
  [{ negativePrompt: ['a'] }, /1 negative prompts for 2 prompts/],
  [{ scheduler: 'ddmi' }, /no scheduler ddmi for this model\n {2}known: ddim, /],
  [{ scheduler: 'rk45' }, /no scheduler rk45 for this model/],
  [{ scheduler: { _class_name: 'X' } }, /there is no scheduler "X"/],
  [{ which: 'unet_teacher' }, /no unet_teacher\n {2}it has: unet/],
  [{ noise: new Float32Array(5) }, /noise has 5 numbers; 2 latents of \[8, 8, 4\] have 512/],
  [{ image: new Float32Array(5) }, /image has 5 numbers; 2 of \[16, 16, 3\] have 1536, one for all 768/],
  [{ mask: new Float32Array(256) }, /a mask without an image/],
  [{ image, mask: new Float32Array(5) }, /mask has 5 numbers/],
  [{ image, strength: 1.5 }, /strength is 1.5, must be from 0 to 1/],
  [{ image, strength: 0.1 }, /a strength of 0\.1 leaves none of 4 steps/],
  [{ eta: 2 }, /eta is 2/],
];
for (const [options, message] of wrong) {
  test(`refused: ${JSON.stringify(options).slice(0, 60)}`, async () => {
    const error = await pipeline.sample({ prompts, seeds: 1, ...options }).catch((e: Error) => e);
    assert.instance(error, Error);
    assert.match((error as Error).message, message);
  });
}

test('a rectified flow takes its own solvers', async () => {
  const options = { prompts: ['a cat'], seeds: 1, steps: 4 };
  const ends = new Map<string, Float32Array>();
  for (const scheduler of ['euler', 'heun', 'adams-bashforth', 'rk45']) {
    const { sampler, evaluations, latents } = await flow.sample({ ...options, scheduler });
    assert.is(sampler, `RectifiedFlow ${scheduler}`);
    assert.ok({ euler: 4, heun: 8, 'adams-bashforth': 4 }[scheduler] === evaluations || scheduler === 'rk45');
    ends.set(scheduler, latents);
  }
  const error = (name: string) => Math.hypot(...ends.get(name)!.map((v, i) => v - ends.get('rk45')![i]));
  assert.ok(
    error('heun') < error('euler') && error('adams-bashforth') < error('euler'),
    [...ends.keys()].map(error).join(),
  );
  const refusal = await flow.sample({ ...options, scheduler: 'ddim' }).catch((e: Error) => e);
  assert.match(String(refusal), /no scheduler ddim for a rectified flow\n {2}known: euler, heun/);
});

const refiner = new RefinerPipeline({
  tokenizer,
  textEncoder: new CLIPTextModel(text, { projection: true }).initialize(1),
  vae: new AutoencoderKL(vae).initialize(2),
  network: speaking(
    new UNet2DConditionModel({
      ...unet,
      in_channels: 4,
      out_channels: 4,
      addition_embed_type: 'text_time',
      addition_time_embed_dim: 8,
      projection_class_embeddings_input_dim: 64,
    }).initialize(3),
  ),
  scheduler: { ...sd, _class_name: 'EulerDiscreteScheduler' },
});
const pair = Float32Array.from([...image, ...image.map((v) => -v)]);

test('the refiner runs its share of the steps, alike in any batch', async () => {
  const options: RefineOptions = { prompts, seeds: 4, images: pair, height: 16, width: 16, steps: 10 };
  const together = await refiner.refine(options);
  assert.is(together.evaluations, 3);
  const apart = await refiner.refine({ ...options, batchSize: 1 });
  assertClose(together.images, apart.images, 1e-5, 'images');
  const lower = await refiner.refine({ ...options, aestheticScore: 2 });
  assert.ok(lower.latents.some((v, i) => Math.abs(v - together.latents[i]) > 1e-5));
});

const badRefinements: [Partial<RefineOptions>, RegExp][] = [
  [{ images: undefined }, /give images, or latents/],
  [{ latents: new Float32Array(512) }, /give images, or latents/],
  [{ height: 15 }, /15 × 16 pixels, must be multiples of 2/],
  [{ images: new Float32Array(3) }, /images have 3 numbers; 2 of \[16, 16, 3\] have 1536/],
  [{ denoisingStart: 0.5 }, /goes on from latents/],
  [{ images: undefined, latents: new Float32Array(512), denoisingStart: 1 }, /from 0 to below 1/],
  [{ strength: -1 }, /strength is -1/],
];
for (const [options, message] of badRefinements) {
  test(`the refiner refuses ${JSON.stringify(Object.keys(options))} ${message.source.slice(0, 30)}`, async () => {
    const all = { prompts, seeds: 4, images: pair, height: 16, width: 16, ...options };
    assert.match(String(await refiner.refine(all).catch((e: Error) => e)), message);
  });
}

test.run();
