/** What the tests of the hub share: a server with a small model of the usual layout, and an empty cache. */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import * as assert from 'uvu/assert';
import type { FindModelOptions } from '../src/flow/recipe/hub-model.ts';
import { HubServer, type Fault } from './hub-server.ts';

for (const name of Object.keys(process.env))
  if (/^(HF_|HUGGING|TRANSFORMERS_OFFLINE)/.test(name)) delete process.env[name];

const root = mkdtempSync(join(tmpdir(), 'rectiflow-hub-'));
process.env.HF_HOME = join(root, 'home'); // not the cache and token of who runs the tests
process.on('exit', () => rmSync(root, { recursive: true, force: true }));

const index = {
  _class_name: 'StableDiffusionPipeline',
  requires_safety_checker: true,
  feature_extractor: ['transformers', 'CLIPImageProcessor'],
  image_encoder: [null, null],
  safety_checker: ['stable_diffusion', 'StableDiffusionSafetyChecker'],
  scheduler: ['diffusers', 'PNDMScheduler'],
  text_encoder: ['transformers', 'CLIPTextModel'],
  tokenizer: ['transformers', 'CLIPTokenizer'],
  unet: ['diffusers', 'UNet2DConditionModel'],
  vae: ['diffusers', 'AutoencoderKL'],
};

/** The files that a pipeline reads. */
export const wanted = [
  'model_index.json',
  'scheduler/scheduler_config.json',
  'text_encoder/config.json',
  'text_encoder/model.safetensors',
  'tokenizer/merges.txt',
  'tokenizer/vocab.json',
  'unet/config.json',
  'unet/diffusion_pytorch_model.safetensors',
  'vae/config.json',
  'vae/diffusion_pytorch_model.safetensors',
];

export const UNET = 'unet/diffusion_pytorch_model.safetensors';

export interface World {
  server: HubServer;
  cache: string;
  model: string; // its folder in the cache
  notes: string[];
  options: FindModelOptions;
}

let worlds = 0;

/** A server with a model in Stable Diffusion's layout, and an empty cache. */
export async function world(): Promise<World> {
  const server = await HubServer.start();
  server.put('README.md', 'about');
  server.put('v1-5-pruned.ckpt', randomBytes(5000));
  server.put('model_index.json', JSON.stringify(index));
  for (const [path, bytes] of [
    ['text_encoder/model', 50_000],
    ['unet/diffusion_pytorch_model', 400_000],
    ['vae/diffusion_pytorch_model', 60_000],
    ['safety_checker/model', 40_000],
  ] as const) {
    for (const kind of ['.safetensors', '.fp16.safetensors', '.non_ema.safetensors', '.bin'])
      server.put(
        path.replace(/model$/, kind === '.bin' && !/unet|vae/.test(path) ? 'pytorch_model' : 'model') + kind,
        randomBytes(bytes),
      );
    server.put(`${dirname(path)}/config.json`, JSON.stringify({ name: path }));
  }
  server.put('feature_extractor/preprocessor_config.json', '{}');
  server.put('scheduler/scheduler_config.json', '{}');
  server.put('tokenizer/vocab.json', JSON.stringify({ a: 0 }));
  server.put('tokenizer/merges.txt', '#version: 0.2\n');
  const cache = join(root, String(worlds++), 'hub');
  const notes: string[] = [];
  const options = {
    endpoint: server.endpoint,
    cache,
    backoff: 2,
    timeout: 20,
    onNote: (note: string) => notes.push(note),
  };
  return { server, cache, model: join(cache, 'models--owner--name'), notes, options };
}

/** Run a test in a world of its own. */
export const within =
  (use: (world: World) => Promise<void>): (() => Promise<void>) =>
  async () => {
    const one = await world();
    try {
      await use(one);
    } finally {
      one.server.stop();
    }
  };

/** What goes wrong, by its message. */
export async function failure(promise: Promise<unknown>): Promise<Error> {
  try {
    await promise;
  } catch (error) {
    assert.instance(error, Error);
    return error as Error;
  }
  throw new Error('nothing was thrown');
}

/** All files below a folder, links as what they point to. */
export function filesIn(folder: string): string[] {
  if (!existsSync(folder)) return [];
  const entries = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  return entries.filter((entry) => statSync(join(folder, entry), { throwIfNoEntry: false })?.isFile()).sort();
}

/** Every blob is whole, and there are so many partial files beside. */
export function assertWhole({ server, model }: World, left: number | 'any' = 0): void {
  const known = new Map([...server.files.values()].map(({ etag, bytes }) => [etag, bytes]));
  const names = filesIn(join(model, 'blobs'));
  const partial = names.filter((name) => name.endsWith('.incomplete'));
  if (left !== 'any') assert.is(partial.length, left, names.join(' '));
  for (const name of names.filter((name) => !/\.(incomplete|part)$/.test(name)))
    assert.is(statSync(join(model, 'blobs', name)).size, known.get(name)?.length, name);
  assert.equal(
    filesIn(join(model, 'snapshots')).filter((name) => name.endsWith('.part')),
    [],
  );
}

/** A cache as huggingface_hub for Python leaves it. */
export function writeAsPython({ server, model, cache }: World, paths: string[]): string {
  const snapshot = join(model, 'snapshots', server.commit);
  mkdirSync(join(model, 'blobs'), { recursive: true });
  mkdirSync(join(model, 'refs'), { recursive: true });
  mkdirSync(join(model, '.no_exist', server.commit), { recursive: true });
  mkdirSync(join(cache, '.locks', 'models--owner--name'), { recursive: true });
  writeFileSync(join(model, 'refs', 'main'), server.commit);
  for (const path of paths) {
    const { bytes, etag } = server.files.get(path)!;
    const pointer = join(snapshot, path);
    mkdirSync(dirname(pointer), { recursive: true });
    writeFileSync(join(model, 'blobs', etag), bytes);
    writeFileSync(join(cache, '.locks', 'models--owner--name', `${etag}.lock`), '');
    symlinkSync(relative(dirname(pointer), join(model, 'blobs', etag)), pointer);
  }
  return snapshot;
}

/** Send so many bytes of a file, then break the connection. */
export const dropAfter =
  (server: HubServer, path: string, bytes: number): Fault =>
  (_, response) => {
    const all = server.files.get(path)!.bytes;
    response.writeHead(200, { 'content-length': all.length });
    response.write(all.subarray(0, bytes), () => setTimeout(() => response.destroy(), 100));
  };

/** Send so many bytes of a file, then nothing more. */
export const stallAfter =
  (server: HubServer, path: string, bytes: number): Fault =>
  (_, response) => {
    const all = server.files.get(path)!.bytes;
    response.writeHead(200, { 'content-length': all.length });
    response.write(all.subarray(0, bytes));
  };

export const answer =
  (status: number, headers: Record<string, string> = {}, body: string | Buffer = ''): Fault =>
  (_, response) =>
    void response.writeHead(status, headers).end(body);
