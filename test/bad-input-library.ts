/** What modules, optimisers, generators and the functions of flows do with wrong input. */
import { scope, tensor, type Tensor } from '../src/tensor/index.ts';
import * as all from '../src/index.ts';
import { f32, gives, ids, refuses, t } from './bad-input-rows.ts';
import type { Entry, Row } from './bad-input-rows.ts';

const { NaN: nan, POSITIVE_INFINITY: inf } = Number;
const still = (z: Tensor) => all.mul(z, 0);
const grown = () => new Map([['w', tensor([1, 2], [2], { requiresGrad: true })]]);

/** A module's own calls, in a scope that frees it. */
const inside = (name: string, make: () => all.Module, run: (module: any) => unknown) => () =>
  scope(() => {
    const module = make();
    try {
      return run(module);
    } finally {
      module.dispose();
    }
  });

const optimizer = (name: 'AdamW' | 'Adam' | 'SGD', rows: Row[] = []): [string, Entry] => {
  const make = (options: object) => () => {
    const parameters = grown();
    return new all[name](parameters, options);
  };
  return [
    name,
    {
      rows: [
        ...[-1, nan, inf].map((lr) =>
          refuses(`lr ${lr}`, make({ lr }), new RegExp(`^optimizer: lr is ${lr}, must be 0 or more`)),
        ),
        refuses('negative decay', make({ weightDecay: -0.1 }), /^optimizer: weightDecay is -0.1/),
        refuses('a negative norm', make({ maxGradNorm: -1 }), /^optimizer: maxGradNorm is -1/),
        refuses('a step without gradients', () => make({})().step(), /^optimizer: no parameter has a gradient/),
        refuses(
          'NaN for the rate of a step',
          () => Object.assign(make({})(), { lr: nan }).step(),
          /^optimizer: lr is NaN/,
        ),
        refuses(
          'the state of others',
          () => make({})().loadStateDict({}),
          /^optimizer: this state belongs to other parameters/,
        ),
        ...rows,
      ],
    },
  ];
};

const solver = (name: 'euler' | 'heun' | 'adamsBashforth'): [string, Entry] => [
  name,
  {
    good: { operands: [f32(2)], call: (z: Tensor) => all[name](still, z, 1) },
    op: 'mulScalar',
    rows: [
      ...[0, -1, 1.5, nan, inf].map((steps) =>
        refuses(
          `${steps} steps`,
          () => all[name](still, t(2), steps),
          new RegExp(`^${name}: steps is ${steps}, must be a whole number of at least 1`),
        ),
      ),
      refuses(
        'a velocity of another shape',
        () => all[name](() => t(3), t(2), 1),
        /^addScaled: sizes differ \(2 ≠ 3\)/,
      ),
      gives('no numbers', () => all[name](still, t(0), 2), [0]),
    ],
  },
];

const counts = (op: string, call: (count: number) => unknown): Row[] =>
  [-1, 1.5, nan, inf].map((n) =>
    refuses(`${n} numbers`, () => call(n), new RegExp(`^${op}: \\w+ is ${n}, must be a whole number of at least 0`)),
  );

const unet = { in_channels: 3, out_channels: 3, down_block_types: ['CrossAttnDownBlock2D'], up_block_types: ['CrossAttnUpBlock2D'], block_out_channels: [4], layers_per_block: 1, norm_num_groups: 2, cross_attention_dim: 5, attention_head_dim: 2 }; // prettier-ignore
const text = { vocab_size: 9, hidden_size: 4, intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 6 }; // prettier-ignore

// prettier-ignore
export const libraryEntries: Record<string, Entry> = Object.fromEntries([
  ['Linear', { rows: [
    refuses('other inputs', inside('Linear', () => new all.Linear(3, 2), (m) => m.forward(t(2, 4))), /^Linear: last axis differs \(4 ≠ 3\)\n {2}x {7}\[2, 4\]\n {2}weight {2}\[2, 3\]/),
    refuses('negative sizes', () => new all.Linear(-3, 2), /^array: -3 is not a size\n {2}shape {2}\[2, -3\]/),
    gives('no rows', inside('Linear', () => new all.Linear(3, 2), (m) => m.forward(t(0, 3))), [0, 2]),
  ] }],
  ['Conv2d', { rows: [
    refuses('other channels', inside('Conv2d', () => new all.Conv2d(3, 2, 3), (m) => m.forward(t(1, 4, 4, 2))), /^Conv2d: wants images with 3 channels/),
    refuses('three axes', inside('Conv2d', () => new all.Conv2d(3, 2, 3), (m) => m.forward(t(4, 4, 3))), /^Conv2d: wants images/),
    refuses('stride 0', inside('Conv2d', () => new all.Conv2d(3, 2, 3, { stride: 0 }), (m) => m.forward(t(1, 4, 4, 3))), /^conv2d: stride is 0/),
    refuses('half a kernel', () => new all.Conv2d(3, 2, 1.5), /^array: 1.5 is not a size/),
  ] }],
  ['Embedding', { rows: [
    refuses('ids that are floats', inside('Embedding', () => new all.Embedding(3, 2), (m) => m.forward(t(2))), /^Embedding: ids must be i32\n.*\n {2}make them with tensor/),
  ] }],
  ['GroupNorm', { rows: [
    ...[0, -2, 1.5].map((n) => refuses(`${n} groups`, () => new all.GroupNorm(n, 6), new RegExp(`^GroupNorm: groups is ${n}, must be a whole number of at least 1`))),
    refuses('groups that do not divide', () => new all.GroupNorm(4, 6), /^GroupNorm: 6 channels do not split into 4 groups/),
    refuses('other channels', inside('GroupNorm', () => new all.GroupNorm(2, 6), (m) => m.forward(t(1, 4))), /^GroupNorm: channels differ/),
  ] }],
  ['LayerNorm', { rows: [refuses('other channels', inside('LayerNorm', () => new all.LayerNorm(6), (m) => m.forward(t(1, 4))), /^LayerNorm: channels differ/)] }],
  ['Attention', { rows: [
    ...[0, -1, 1.5].map((heads) => refuses(`${heads} heads`, () => new all.Attention(4, { heads }), new RegExp(`^Attention: heads is ${heads}, must be`))),
    refuses('batches that differ', inside('Attention', () => new all.Attention(4, { heads: 2 }), (m) => m.forward(t(1, 3, 4), { context: t(2, 3, 4) })), /^Attention: batch sizes differ/),
    refuses('other channels', inside('Attention', () => new all.Attention(4, { heads: 2 }), (m) => m.forward(t(1, 3, 5))), /^Linear: last axis differs/),
  ] }],
  ['GEGLU', { rows: [refuses('other channels', inside('GEGLU', () => new all.GEGLU(4, 3), (m) => m.forward(t(2, 5))), /^geglu: inner sizes differ \(5 ≠ 4\)/)] }],
  ['FeedForward', { rows: [refuses('other channels', inside('FeedForward', () => new all.FeedForward(4), (m) => m.forward(t(1, 2, 5))), /^geglu: inner sizes differ \(5 ≠ 4\)/)] }],
  ['ResnetBlock2D', { rows: [
    refuses('groups that do not divide', () => new all.ResnetBlock2D(4, 6, { groups: 4 }), /^GroupNorm: 6 channels do not split into 4 groups/),
    refuses('other channels', inside('ResnetBlock2D', () => new all.ResnetBlock2D(4, 4, { groups: 2 }), (m) => m.forward(t(1, 3, 3, 6))), /^GroupNorm: channels differ/),
  ] }],
  ['Downsample2D', { rows: [refuses('other channels', inside('Downsample2D', () => new all.Downsample2D(4), (m) => m.forward(t(1, 3, 3, 6))), /^Conv2d: wants images with 4 channels/)] }],
  ['Upsample2D', { rows: [
    refuses('other channels', inside('Upsample2D', () => new all.Upsample2D(4), (m) => m.forward(t(1, 3, 3, 6))), /^Conv2d: wants images with 4 channels/),
    refuses('no pixels', inside('Upsample2D', () => new all.Upsample2D(4), (m) => m.forward(t(1, 0, 3, 4))), /^upsampleNearest: x has no pixels/),
  ] }],
  ['TimestepEmbedding', { rows: [refuses('other channels', inside('TimestepEmbedding', () => new all.TimestepEmbedding(4, 8), (m) => m.forward(t(2, 3))), /^Linear: last axis differs/)] }],
  ...(['timesteps', 'timestepWaves'] as const).map((name) => [name, { rows: [
    ...[0, -2, 1.5, nan].map((n) => refuses(`${n} channels`, () => all[name]([1], n), new RegExp(`^timesteps: channels is ${n}, must be a whole number of at least 1`))),
  ] }] as [string, Entry]),
  ['BasicTransformerBlock', { rows: [refuses('0 heads', () => new all.BasicTransformerBlock(4, { heads: 0, context: 3 }), /^Attention: heads is 0/)] }],
  ['Transformer2DModel', { rows: [
    refuses('heads that do not divide', () => new all.Transformer2DModel(4, { heads: 3, context: 3, groups: 2 }), /^Transformer2DModel: 4 channels do not split into 3 heads/),
    refuses('0 heads', () => new all.Transformer2DModel(4, { heads: 0, context: 3, groups: 2 }), /^Transformer2DModel: heads is 0/),
    refuses('other channels', inside('Transformer2DModel', () => new all.Transformer2DModel(4, { heads: 2, context: 3, groups: 2 }), (m) => m.forward(t(1, 2, 2, 6), t(1, 2, 3))), /^GroupNorm: channels differ/),
  ] }],
  ['CLIPTextModel', { rows: [
    refuses('heads that do not divide', () => new all.CLIPTextModel({ ...text, num_attention_heads: 3 }), /^CLIPTextModel: 4 channels do not split into 3 heads/),
    refuses('0 heads', () => new all.CLIPTextModel({ ...text, num_attention_heads: 0 }), /^CLIPTextModel: num_attention_heads is 0/),
    refuses('an unknown activation', () => new all.CLIPTextModel({ ...text, hidden_act: 'relu' as never }), /^CLIPTextModel: hidden_act relu is not supported\n {2}known/),
    refuses('long texts', inside('CLIPTextModel', () => new all.CLIPTextModel(text), (m) => m.forward(ids(1, 7))), /^CLIPTextModel: 7 tokens, but only 6 places/),
    refuses('texts that differ in length', inside('CLIPTextModel', () => new all.CLIPTextModel(text), (m) => m.forward([[1, 2], [1]])), /^CLIPTextModel: texts differ in length \(1 ≠ 2\)/),
    refuses('half a token', inside('CLIPTextModel', () => new all.CLIPTextModel(text), (m) => m.forward([[1, 2.5]])), /^tensor: number 1 is 2.5, which no i32 is/),
    refuses('no projection', inside('CLIPTextModel', () => new all.CLIPTextModel(text), (m) => m.project(t(1, 4))), /^CLIPTextModel: this model has no text_projection/),
  ] }],
  ['idsTensor', { rows: [
    refuses('rows that differ', () => all.idsTensor([[1], [1, 2]]), /^CLIPTextModel: texts differ in length \(2 ≠ 1\)\n {2}pad them/),
    gives('no rows', () => all.idsTensor([]), [0, 0]),
  ] }],
  ['UNet2DConditionModel', { rows: [
    refuses('an unknown block', () => new all.UNet2DConditionModel({ ...unet, down_block_types: ['Wheel'] as never }), /^UNet2DConditionModel: block type Wheel is not supported/),
    refuses('blocks for other levels', () => new all.UNet2DConditionModel({ ...unet, block_out_channels: [4, 8] }), /^UNet2DConditionModel: /),
    refuses('other channels', inside('UNet2DConditionModel', () => new all.UNet2DConditionModel(unet as never), (m) => m.forward(t(1, 4, 4, 4), 1, t(1, 2, 5))), /^UNet2DConditionModel: wants images with 3 channels/),
    refuses('other texts', inside('UNet2DConditionModel', () => new all.UNet2DConditionModel(unet as never), (m) => m.forward(t(1, 4, 4, 3), 1, t(1, 2, 4))), /^UNet2DConditionModel: wants one text per image with 5 channels/),
    refuses('other times', inside('UNet2DConditionModel', () => new all.UNet2DConditionModel(unet as never), (m) => m.forward(t(1, 4, 4, 3), [1, 2], t(1, 2, 5))), /^UNet2DConditionModel: wants one time per image/),
  ] }],
  ['AutoencoderKL', { rows: [
    refuses('odd sides', inside('AutoencoderKL', () => new all.AutoencoderKL({ block_out_channels: [4, 4], norm_num_groups: 2 }), (m) => m.encode(t(1, 3, 4, 3))), /^AutoencoderKL: sides must be multiples of 2/),
    refuses('three axes', inside('AutoencoderKL', () => new all.AutoencoderKL({ block_out_channels: [4, 4], norm_num_groups: 2 }), (m) => m.encode(t(4, 4, 3))), /^AutoencoderKL: wants images \[B, H, W, C\]/),
    refuses('other channels', inside('AutoencoderKL', () => new all.AutoencoderKL({ block_out_channels: [4, 4], norm_num_groups: 2 }), (m) => m.decode(t(1, 2, 2, 3))), /^Conv2d: wants images with 4 channels/),
  ] }],
  ['LPIPS', { rows: [
    refuses('an unknown network', () => new all.LPIPS('resnet' as never), /^LPIPS: there is no network resnet\n {2}known/),
    refuses('other sizes', inside('LPIPS', () => all.outlineOf(() => new all.LPIPS('alex')), (m) => m.forward(t(1, 31, 31, 3), t(1, 31, 32, 3))), /^LPIPS: the images differ in size/),
    refuses('small images', inside('LPIPS', () => all.outlineOf(() => new all.LPIPS('alex')), (m) => m.features(t(1, 9, 31, 3))), /^LPIPS: sides of at least 31 for alex, not 9 × 31/),
  ] }],
  ['Parameter', { rows: [refuses('a negative size', () => new all.Parameter([-1], all.zerosInit, 'same'), /^array: -1 is not a size/)] }],
  ['parameter', { rows: [refuses('half a size', () => all.parameter([0.5], all.zerosInit), /^array: 0.5 is not a size/)] }],
  ['outlineOf', { rows: [refuses('a function that throws', () => all.outlineOf(() => new all.GroupNorm(4, 6)), /^GroupNorm: 6 channels/)] }],
  ['observe', { rows: [refuses('a run that throws', inside('Linear', () => new all.Linear(3, 2), (m) => all.observe(m, () => {}, () => m.forward(t(1, 4)))), /^Linear: last axis differs/)] }],

  optimizer('AdamW', [
    ...[1, -0.1, nan].map((beta) => refuses(`beta ${beta}`, () => new all.AdamW(grown(), { betas: [0.9, beta] }), new RegExp(`^optimizer: a beta is ${beta}, must be 0 or more and below 1`))),
    refuses('negative eps', () => new all.AdamW(grown(), { eps: -1 }), /^optimizer: eps is -1/),
  ]),
  optimizer('Adam'),
  optimizer('SGD', [
    refuses('negative momentum', () => new all.SGD(grown(), { momentum: -1 }), /^optimizer: momentum is -1/),
    refuses('Nesterov without momentum', () => new all.SGD(grown(), { nesterov: true }), /^optimizer: nesterov wants a momentum above 0/),
  ]),
  ['EMA', { rows: [
    ...[-0.1, 1.1, nan].map((decay) => refuses(`decay ${decay}`, () => new all.EMA(grown(), { decay }), new RegExp(`^EMA: decay is ${decay}, must be from 0 to 1`))),
    refuses('other parameters', () => new all.EMA(grown()).copyTo(new Map([['v', t(2)]])), /^EMA: keeps no average of v/),
    refuses('the state of others', () => new all.EMA(grown()).loadStateDict({}), /^EMA: w is missing or has another shape/),
  ] }],
  ['schedule', { rows: [
    refuses('an unknown name', () => all.schedule('spiral' as never, { lr: 1 }), /^unknown learning-rate schedule spiral\n {2}known: constant/),
    refuses('no end', () => all.schedule('cosine', { lr: 1 })(5), /^this learning-rate schedule needs trainingSteps/),
    refuses('rules that cannot be read', () => all.schedule('piecewise_constant', { lr: 1, stepRules: 'x' }), /^piecewise_constant: cannot read the rules "x"/),
    refuses('an end above the start', () => all.schedule('polynomial', { lr: 1, lrEnd: 2 }), /^polynomial: lrEnd \(2\) must be below lr \(1\)/),
  ] }],

  ...(['normal', 'uniform'] as const).map((name) => [name, { rows: [
    ...counts('random', (n) => all[name](1, 'x', n)),
    ...[-1, 0.5, nan, 2 ** 53].map((seed) => refuses(`seed ${seed}`, () => all[name](seed, 'x', 1), /^a seed must be a whole number from 0 to 2\^53 - 1/)),
  ] }] as [string, Entry]),
  ['randint', { rows: [
    ...counts('random', (n) => all.randint(1, 'x', n, 0, 5)),
    refuses('an empty range', () => all.randint(1, 'x', 2, 5, 5), /^randint: nothing to draw from \[5, 5\)/),
    refuses('half a bound', () => all.randint(1, 'x', 2, 0.5, 5), /^randint: low is 0.5/),
  ] }],
  ['permutation', { rows: [-1, 1.5, nan].map((n) => refuses(`${n} numbers`, () => all.permutation(1, 0, n), /^random: count is .*, must be a whole number/)) }],
  ['TorchGenerator', { rows: [
    ...counts('randn', (n) => new all.TorchGenerator().randn(n)),
    ...counts('rand', (n) => new all.TorchGenerator().rand(n)),
    ...counts('randperm', (n) => new all.TorchGenerator().randperm(n)),
    ...counts('randint', (n) => new all.TorchGenerator().randint(0, 2, n)),
    refuses('an empty range', () => new all.TorchGenerator().randint(2, 2, 1), /^randint: bad range \[2, 2\)/),
    refuses('half a seed', () => new all.TorchGenerator(0.5), /0\.5/),
  ] }],
  ['kaimingUniform', { rows: [gives('no inputs', () => tensor(all.kaimingUniform(0)(1, 'w', 2)), [2], [0, 0])] }],

  ['pathPoints', { rows: [
    refuses('points that differ in number', () => all.pathPoints(new Float32Array(4), new Float32Array(2), new Float32Array(2)), /^pathPoints: x0 has 4 numbers, x1 2, for 2 times/),
    refuses('no times', () => all.pathPoints(new Float32Array(4), new Float32Array(4), new Float32Array(0)), /^pathPoints: x0 has 4 numbers, x1 4, for 0 times/),
  ] }],
  ['flowLoss', { good: { operands: [f32(2, 3), f32(2, 3)], call: all.flowLoss }, op: 'mse', rows: [refuses('shapes that differ', () => all.flowLoss(t(2), t(3)), /^mse: shapes differ/)] }],
  solver('euler'),
  solver('heun'),
  solver('adamsBashforth'),
  ['reversed', { rows: [refuses('a velocity that throws', () => all.reversed(() => all.add(t(2), t(3)))(t(2), 0), /^add: sizes differ/)] }],
  ['rk45', { rows: [
    ...[{ rtol: -1 }, { atol: nan }, { rtol: 0, atol: 0 }, { rtol: inf }].map((o) => refuses(JSON.stringify(o), () => all.rk45(still, t(2), o), /^rk45: tolerances must be 0 or more, and one above 0\n {2}rtol/)),
    refuses('a velocity of NaN', () => all.rk45((z) => all.mul(z, nan), t(2)), /^rk45: the velocity is not a number near t = 0.0000/),
    refuses('too few evaluations', () => all.rk45((z, s) => all.mul(z, 100 * Math.sin(200 * s)), t(2), { maxEvaluations: 9 }), /^rk45: \d+ evaluations took it to t = 0\.\d+ only/),
  ] }],
  ['solve', { rows: [
    refuses('an unknown solver', () => all.solve('magic' as never, still, t(2)), /^solve: there is no solver magic\n {2}known: euler heun/),
    refuses('a name that every object has', () => all.solve('toString' as never, still, t(2)), /^solve: there is no solver toString/),
    ...[0, 1.5, nan].map((steps) => refuses(`${steps} steps`, () => all.solve('euler', still, t(2), { steps }), new RegExp(`^solve: steps is ${steps}`))),
  ] }],
  ['guided', { rows: [
    refuses('NaN for the scale', () => all.guided(still, t(1, 2, 3), t(1, 2, 3), nan), /^guided: alpha is NaN/),
    refuses('other texts than images', () => all.guided((z, _, text) => all.add(z, text), t(3, 2), t(3, 2), 2)(t(1, 2), 0), /^add: sizes differ \(2 ≠ 6\)/),
  ] }],
] as [string, Entry][]);

/** Exported functions without rows, and why. */
export const exempt: Record<string, string> = {
  ShapeError: 'an error',
  GpuError: 'an error',
  DeviceLostError: 'an error',
  OutOfMemoryError: 'an error',
  PromptError: 'an error',
  TrainingError: 'an error',
  shapeError: 'makes an error',
  hostArray: 'for references in plain JavaScript',
  spread: 'a formula in numbers',
  StateDictError: 'an error',
  Gpu: 'the layer below; test/gpu.test.ts',
  GpuArray: 'the layer below; test/gpu.test.ts',
  Module: 'abstract; every module here is one, and test/nn-module.test.ts loads it wrong weights',
  Optimizer: 'abstract; AdamW and SGD are its constructors',
  constant: 'fills as many places as its parameter has',
  gaussian: 'fills as many places as its parameter has',
  onesInit: 'fills as many places as its parameter has',
  zerosInit: 'fills as many places as its parameter has',
  emaDecay: 'a formula in numbers; EMA checks its options',
  timestepOf: 'a formula in numbers',
  timeOf: 'a formula in numbers',
  ClipTokenizer: 'takes files and texts; test/tokenizer.test.ts',
  Pipeline: 'takes whole models; test/pipeline.test.ts',
  ControlNetModel: 'test/controlnet.test.ts',
  StackedUNet: 'test/nn-stacked-unet.test.ts',
  SafetyChecker: 'test/nn-safety-checker.test.ts',
  clipPixels: 'test/nn-safety-checker.test.ts',
  Lora: 'made by readLora and newLora; test/lora.test.ts',
  LoraError: 'an error',
  newLora: 'takes whole models; test/lora.test.ts',
  readLora: 'takes files; test/lora-read.test.ts',
  mergeLoras: 'takes LoRAs; test/lora.test.ts',
  attachLoras: 'takes LoRAs; test/lora.test.ts',
  loraMetadata: 'takes a LoRA; test/lora.test.ts',
  Scheduler: 'abstract; test/bad-input-schedulers.test.ts',
  createScheduler: 'takes configurations; test/bad-input-schedulers.test.ts',
  train: 'takes whole recipes; test/flow-train.test.ts',
};
