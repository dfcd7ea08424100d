/** Everywhere a model is named, an id of the hub does: what is drawn and written is what local files give. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Command } from '../src/cli/command.ts';
import convert from '../src/cli/commands/convert.ts';
import estimate from '../src/cli/commands/estimate.ts';
import sample from '../src/cli/commands/sample.ts';
import train from '../src/cli/commands/train.ts';
import { readPng } from '../src/cli/pictures/png.ts';
import { saveModule } from '../src/flow/recipe/model-folder.ts';
import { openModel } from '../src/flow/recipe/open-model.ts';
import { loraMetadata } from '../src/nn/lora-metadata.ts';
import { newLora } from '../src/nn/lora.ts';
import { ControlNetModel } from '../src/nn/models/controlnet.ts';
import type { UNet2DConditionModel } from '../src/nn/models/unet.ts';
import { init } from '../src/tensor/index.ts';
import { writeTensors } from '../src/tensor/io/files-node.ts';
import { filesIn } from './hub-fixture.ts';
import { HubServer } from './hub-server.ts';
import { randoms } from './randoms.ts';
import { makeModel, makeRefiner } from './tiny-model.ts';
import { printed } from './run-command.ts';

const test = suite('ids of the hub');
const folder = mkdtempSync(join(tmpdir(), 'rectiflow-additions-'));
const at = (...names: string[]) => join(folder, ...names);
const gpu = await init();
const server = await HubServer.start();
process.env.HF_ENDPOINT = server.endpoint;
test.after(() => {
  delete process.env.HF_ENDPOINT;
  server.stop();
  gpu.destroy();
  rmSync(folder, { recursive: true, force: true });
});

/** The hub has this repository, and no other. */
function serve(id: string, ...folders: string[]): void {
  server.id = id;
  server.files.clear();
  server.seen.length = 0;
  for (const from of folders) for (const file of filesIn(from)) server.put(file, readFileSync(join(from, file)));
}

const run = (command: Command, ...words: string[]): Promise<string> => printed(command, words, gpu);

const model = await makeModel(at('sd'), 'StableDiffusionPipeline');
const tuned = await makeModel(at('tuned'), 'StableDiffusionPipeline');
const refiner = await makeRefiner(at('refiner'));
await makeAdditions();
await sharp({ create: { width: 16, height: 16, channels: 3, background: '#406080' } })
  .png()
  .toFile(at('seen.png'));

/** A LoRA and a ControlNet for the model, each as the only thing of a repository. */
async function makeAdditions(): Promise<void> {
  const pipeline = await openModel(model);
  const lora = newLora(pipeline.loraModels('unet'), { rank: 2, seed: 1 });
  for (const [, p] of lora.namedParameters()) p.array.write(randoms(p.size, 3, [-0.3, 0.3]));
  await saveModule(at('edges'), '', makeControl(pipeline.network('unet') as UNet2DConditionModel), 'ControlNetModel');
  await writeTensors(at('edges', 'style.safetensors'), await lora.stateDict(), loraMetadata(lora));
  const network = pipeline.network('unet') as UNet2DConditionModel;
  network.conv_out.weight.array.write(randoms(network.conv_out.weight.size, 4, [-0.2, 0.2]));
  await saveModule(tuned, 'unet', network, 'UNet2DConditionModel', { dtype: 'F32' });
  pipeline.dispose();
}

function makeControl(unet: UNet2DConditionModel): ControlNetModel {
  const control = ControlNetModel.fromUNet(unet, { conditioning_embedding_out_channels: [4, 8] });
  for (const [key, p] of control.namedParameters())
    if (/^controlnet/.test(key)) p.array.write(randoms(p.size, p.size, [-0.2, 0.2]));
  return control;
}

const how = ['a cat', '--steps', '1', '--guidance_scale', '1'];
async function draw(...words: string[]): Promise<number[]> {
  const said = await run(sample, ...how, ...words, '--out', at('out'));
  assert.match(said, /a-cat-0\.png/);
  return [...(await readPng(at('out', 'a-cat-0.png'))).image.data];
}

test('sample: a model, a fine-tuned one, LoRAs, ControlNets and the refiner', async () => {
  serve('someone/model', model);
  const plain = await draw('--model', 'someone/model');
  const seen: number[][] = [plain];
  const both = async (hub: string[], local: string[]) => {
    const image = await draw('--model', 'someone/model', ...hub); // the model itself is in the cache now
    assert.equal(image, await draw('--model', model, ...local), hub.join(' '));
    for (const other of seen) assert.not.equal(image, other, hub.join(' '));
    seen.push(image);
  };
  serve('someone/edges', at('edges'));
  const lora = ['edges', 'style.safetensors'];
  await both(['--lora', `someone/${lora.join('/')}:0.5`], ['--lora', `${at(...lora)}:0.5`]);
  const control = (path: string) => ['--controlnet', path, '--control_image', at('seen.png')];
  await both(control('someone/edges'), control(at('edges')));
  serve('someone/tuned', tuned);
  const delta = (finetuned: string, base: string) => ['--finetuned', finetuned, '--base', base];
  await both(delta('someone/tuned', 'someone/model'), delta(tuned, model));
  serve('someone/refiner', refiner);
  await both(['--refiner', 'someone/refiner'], ['--refiner', refiner]);
});

test('estimate: of a ControlNet on the hub only its configuration', async () => {
  serve('other/edges', at('edges'));
  const words = ['--no-time', '--json', '--model', model, '--controlnet'];
  const hub = JSON.parse(await run(estimate, ...words, 'other/edges'));
  const local = JSON.parse(await run(estimate, ...words, at('edges')));
  assert.equal(hub.parts.controls, local.parts.controls);
  assert.ok(hub.parts.controls.parameters > 0);
  assert.equal(server.fetches('.safetensors'), []);
});

test('convert: the model, and the configurations alone', async () => {
  serve('someone/model', model);
  assert.match(
    await run(convert, 'someone/model', at('hub.safetensors')),
    /a diffusers folder \(sd1\) → a single file/,
  );
  await run(convert, model, at('local.safetensors'));
  assert.ok(readFileSync(at('hub.safetensors')).equals(readFileSync(at('local.safetensors'))));
  serve('other/model', model);
  const said = await run(convert, at('local.safetensors'), at('back'), '--config', 'other/model');
  assert.match(said, /a single file \(sd1\) → a diffusers folder/);
  assert.not.match(said, /could not be made/);
  assert.equal(readdirSync(at('back', 'tokenizer')).sort(), ['merges.txt', 'vocab.json']);
  assert.equal(server.fetches('.safetensors'), []);
});

test('train asks the hub for what it is to begin with', async () => {
  serve('someone/model', model);
  const words = ['--output_dir', at('run'), '--pretrained_model_name_or_path'];
  assert.match(await run(train, ...words, 'someone/nobody'), /^someone\/nobody: not found \(404 from /);
});

test('what is neither is said as ever', async () => {
  for (const words of [
    ['--lora', at('none.safetensors')],
    ['--controlnet', at('none'), '--control_image', at('seen.png')],
    ['--refiner', at('none')],
  ])
    assert.match(await run(sample, ...how, '--model', model, ...words), /none.*: no such folder or file/);
  assert.match(await run(convert, at('none'), at('x')), /none: no such folder or file/);
});

test.run();
