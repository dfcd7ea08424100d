import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { runCommand } from '../src/cli/command.ts';
import command from '../src/cli/commands/sample.ts';
import { encodePng, imageFromFloats } from '../src/cli/pictures/image.ts';
import { formatParameters, parseParameters, readPng, writePng } from '../src/cli/pictures/png.ts';
import { readRecorded } from '../src/cli/repeat.ts';
import { openModelFolder, saveModule } from '../src/flow/recipe/model-folder.ts';
import { seededNoise } from '../src/flow/latents.ts';
import { concatenate } from '../src/flow/pipelines/arrays.ts';
import { channelsSecond } from '../src/cli/verify/layout.ts';
import { loraMetadata } from '../src/nn/lora-metadata.ts';
import { newLora } from '../src/nn/lora.ts';
import { ControlNetModel } from '../src/nn/models/controlnet.ts';
import type { UNet2DConditionModel } from '../src/nn/models/unet.ts';
import { init } from '../src/tensor/index.ts';
import { writeTensors } from '../src/tensor/io/files-node.ts';
import { randoms } from './randoms.ts';

const folder = mkdtempSync(join(tmpdir(), 'rectiflow-sample-'));
const test = suite('sample');
test.after(() => rmSync(folder, { recursive: true, force: true }));

/** Run the command as from the shell; uvu looks at the exit code too, so it is put back. */
async function sample(...words: string[]): Promise<{ lines: string[]; status: number | string | undefined }> {
  const lines: string[] = [];
  const { log, error } = console;
  const before = process.exitCode;
  console.log = console.error = (...parts: unknown[]) => void lines.push(parts.join(' '));
  try {
    await runCommand(command, words).catch((failure: Error) => {
      lines.push(failure.message);
      process.exitCode = 1;
    });
    return { lines, status: process.exitCode };
  } finally {
    Object.assign(console, { log, error });
    process.exitCode = before;
  }
}
const pixels = async (file: string) => [...(await readPng(file)).image.data];
const path = (...parts: string[]) => join(folder, ...parts);

test('several prompts, several images of each, one grid, and what each says of itself', async () => {
  const { lines, status } = await sample(
    'red apple',
    'pizza',
    '--num',
    '2',
    '--seed',
    '5',
    '--grid',
    '--out',
    path('a'),
  );
  assert.is(status, undefined, lines.join('\n'));
  const files = ['pizza-5', 'pizza-6', 'red-apple-5', 'red-apple-6', 'red-apple-pizza-grid'].map((f) => `${f}.png`);
  assert.equal(readdirSync(path('a')).sort(), files);
  assert.match(lines.at(-1)!, /^4 images, 1 step, guidance 1, 1 network evaluation: text /);
  const { parameters } = await readPng(path('a', 'pizza-6.png'));
  assert.is(
    parameters,
    'pizza\nSteps: 1, Sampler: RectifiedFlow euler, CFG scale: 1, Seed: 6, Size: 32x32, Model: emoji/unet',
  );
});

test('--from repeats a picture to the last bit, and changes what is given', async () => {
  const how = ['--which', 'unet_reflow', '--steps', '4', '--scheduler', 'heun', '--guidance_scale', '1.5'];
  await sample('penguin', ...how, '--seed', '11', '--negative_prompt', 'bird', '--out', path('b'));
  const first = path('b', 'penguin-11.png');
  const repeated = await sample('--from', first, '--out', path('c'));
  assert.is(repeated.status, undefined, repeated.lines.join('\n'));
  assert.equal(readFileSync(path('c', 'penguin-11.png')), readFileSync(first));
  await sample('--from', first, '--seed', '12', '--out', path('c'));
  const { prompt, negativePrompt, settings } = parseParameters(
    (await readPng(path('c', 'penguin-12.png'))).parameters!,
  );
  assert.equal(
    [prompt, negativePrompt, settings.Seed, settings.Sampler],
    ['penguin', 'bird', '12', 'RectifiedFlow heun'],
  );
  assert.not.equal(await pixels(path('c', 'penguin-12.png')), await pixels(first));
});

test('an image to begin with, of any size and format; a mask keeps the rest of it', async () => {
  const start = path('a', 'red-apple-5.png');
  await sharp(start).resize(80, 60, { fit: 'fill' }).jpeg().toFile(path('start.jpg'));
  const how = ['--which', 'unet_teacher', '--steps', '6', '--image', path('start.jpg')];
  const whole = await sample('green apple', ...how, '--strength', '0.5', '--out', path('d'));
  assert.is(whole.status, undefined, whole.lines.join('\n'));
  assert.match(whole.lines.at(-1)!, /3 network evaluations of twice the batch: text .*, encoder /);
  const { settings } = parseParameters((await readPng(path('d', 'green-apple-0.png'))).parameters!);
  assert.equal([settings['Denoising strength'], settings['Init image']], ['0.5', 'start.jpg']);

  const mask = Buffer.alloc(32 * 32, 0).fill(255, 0, 32 * 16); // the upper half
  await sharp(mask, { raw: { width: 32, height: 32, channels: 1 } })
    .png()
    .toFile(path('mask.png'));
  for (const prompt of ['pizza', 'rocket'])
    await sample(prompt, ...how, '--mask', path('mask.png'), '--out', path('e'));
  const [one, other] = [await pixels(path('e', 'pizza-0.png')), await pixels(path('e', 'rocket-0.png'))];
  const change = (from: number, to: number) =>
    one.slice(from, to).reduce((sum, v, i) => sum + Math.abs(v - other[from + i]), 0) / (to - from);
  const [above, below] = [change(0, 32 * 16 * 3), change(32 * 24 * 3, 32 * 32 * 3)];
  assert.ok(above > 20 && below < 2, `${above} above, ${below} well below`);
  const again = await sample('--from', path('e', 'pizza-0.png'), '--out', path('f'));
  assert.match(again.lines.join('\n'), /was made with --image start\.jpg\n {2}give it again/);
});

test('noise from a file in place of a seed', async () => {
  const shape = [8, 8, 8] as const;
  const drawn = [5, 6].map((seed) => channelsSecond({ shape: [1, ...shape], data: seededNoise(seed, shape) }).data);
  await writeTensors(path('two.safetensors'), { latents: { shape: [2, 8, 8, 8], data: concatenate(drawn) } });
  await writeTensors(path('one.safetensors'), { latents: { shape: [1, 8, 8, 8], data: drawn[0] } });
  for (const [file, second] of [
    ['two', 'red-apple-6'],
    ['one', 'red-apple-5'],
  ]) {
    const { lines, status } = await sample(
      ...['red apple', '--num', '2', '--latents', path(`${file}.safetensors`), '--out', path(file)],
    );
    assert.is(status, undefined, lines.join('\n'));
    assert.equal(await pixels(path(file, 'red-apple-0.png')), await pixels(path('a', 'red-apple-5.png')));
    assert.equal(await pixels(path(file, 'red-apple-1.png')), await pixels(path('a', `${second}.png`)));
  }
  const again = await sample('--from', path('one', 'red-apple-0.png'), '--out', path('f'));
  assert.match(again.lines.join('\n'), /was made with --latents one\.safetensors\n {2}give it again/);
});

test('previews are written on the way', async () => {
  const how = ['--which', 'unet_reflow', '--steps', '4', '--preview', '2', '--out', path('g')];
  const { lines, status } = await sample('pizza', ...how);
  assert.is(status, undefined, lines.join('\n'));
  assert.equal(readdirSync(path('g')).sort(), ['pizza-0-step-002.png', 'pizza-0-step-004.png', 'pizza-0.png']);
  assert.equal(await pixels(path('g', 'pizza-0-step-004.png')), await pixels(path('g', 'pizza-0.png')));
});

test('LoRAs and ControlNets from files', async () => {
  const gpu = await init();
  const pipeline = await openModelFolder('models/emoji');
  const lora = newLora(pipeline.loraModels('unet'), { rank: 2, seed: 1 });
  for (const [, p] of lora.namedParameters()) p.array.write(randoms(p.size, 3, [-0.5, 0.5]));
  await writeTensors(path('style.safetensors'), await lora.stateDict(), loraMetadata(lora));
  const net = ControlNetModel.fromUNet(pipeline.network('unet') as UNet2DConditionModel, {
    conditioning_embedding_out_channels: [4, 8, 8],
  });
  for (const conv of [...net.controlnet_down_blocks, net.controlnet_mid_block, net.controlnet_cond_embedding.conv_out])
    conv.weight.array.write(randoms(conv.weight.size, 7, [-0.3, 0.3]));
  await saveModule(path(), 'edges', net, 'ControlNetModel');
  gpu.destroy();

  const picture = async (...words: string[]) => {
    const { lines, status } = await sample('pizza', ...words, '--out', path('h'));
    assert.is(status, undefined, lines.join('\n'));
    return pixels(path('h', 'pizza-0.png'));
  };
  const plain = await picture();
  const control = ['--controlnet', path('edges'), '--control_image', path('mask.png')];
  const changed = [await picture('--lora', `${path('style.safetensors')}:0.5`), await picture(...control)];
  const parameters = (await readPng(path('h', 'pizza-0.png'))).parameters!;
  assert.is(parseParameters(parameters).settings.ControlNet, 'edges');
  for (const image of changed) assert.not.equal(image, plain);
  assert.equal(await picture('--lora', `${path('style.safetensors')}:0`), plain);
  assert.equal(await picture(...control, '--controlnet_conditioning_scale', '0'), plain);
  for (const [words, message] of [
    [['--from', path('h', 'pizza-0.png')], /was made with --controlnet edges/],
    [['x', '--lora', path('none.safetensors')], /none\.safetensors/],
    [['x', '--lora', path('mask.png')], /mask\.png/],
    [['x', '--controlnet', path('edges')], /1 --controlnet and 0 --control_image/],
    [['x', '--finetuned', path('edges')], /--finetuned and --base go together/],
  ] as const) {
    const { lines, status } = await sample(...words, '--out', path('wrong'));
    assert.match(lines.join('\n'), message);
    assert.ok(status);
  }
});

test('parameters of other tools are understood', async () => {
  const image = imageFromFloats(randoms(12, 1, [-1, 1]), 2);
  const text =
    'a cat\nNegative prompt: dog\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 42, Size: 512x768, ' +
    'Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, Denoising strength: 0.7, Version: v1.6.0';
  await writePng(path('other.png'), image, text);
  const want = {
    prompt: 'a cat',
    negative_prompt: 'dog',
    steps: 20,
    guidance_scale: 7,
    seed: 42,
    width: 512,
    height: 768,
  };
  const got = await readRecorded(path('other.png'));
  const said = Object.fromEntries(Object.entries(got).filter(([, value]) => value !== undefined));
  assert.equal(said, { ...want, scheduler: 'dpm++', strength: 0.7, model: 'v1-5-pruned-emaonly' });
  for (const [sampler, name] of [
    ['Euler a', 'euler_a'],
    ['Euler', 'EulerDiscreteScheduler'],
    ['DDIM', 'DDIMScheduler'],
    ['PLMS', 'pndm'],
    ['RectifiedFlow rk45', 'rk45'],
  ]) {
    // prettier-ignore
    await writePng(path('s.png'), image, formatParameters({ prompt: 'x', settings: { Steps: 1, Sampler: sampler } }));
    assert.is((await readRecorded(path('s.png'))).scheduler, name);
  }
});

test('what is wrong is said', async () => {
  writeFileSync(path('plain.png'), await encodePng(imageFromFloats(new Float32Array(12), 2)));
  await writePng(path('bad.png'), imageFromFloats(new Float32Array(12), 2), 'x\nSteps: many, Seed: 1');
  writeFileSync(path('no.png'), 'no picture');
  for (const [words, message] of [
    [[], /the prompt is empty/],
    [['x', ' '], /the prompt is empty/],
    [['--from', path('none.png')], /none\.png/],
    [['--from', path('plain.png')], /does not say how it was made/],
    [['--from', path('bad.png')], /parameters are damaged: steps is no number/],
    [['x', '--image', path('no.png')], /no\.png: cannot be read as an image/],
    [['x', '--mask', path('no.png')], /no\.png: cannot be read as an image/],
    [['x', '--mask', path('plain.png')], /a mask without an image/],
    [['x', '--num', '3', '--latents', path('two.safetensors')], /latents: \[2, 8, 8, 8\]\n {2}wanted: \[3, 8, 8, 8\]/],
    [['x', '--latents', path('style.safetensors')], /has \d+ tensors: .*wants a file with one/s],
    [['x', '--latents', path('no.png')], /no\.png/],
    [['x', '--height', '33'], /height is 33, must be a multiple of 4/],
    [['x', '--scheduler', 'ddim'], /no scheduler ddim for a rectified flow/],
    [['x', '--which', 'unet_reflow', '--image', path('plain.png'), '--strength', '0.1'], /leaves none of 1 steps/],
  ] as const) {
    const { lines, status } = await sample(...words, '--out', path('wrong'));
    assert.match(lines.join('\n'), message);
    assert.ok(status, lines.join('\n'));
  }
});

test.run();
