/** A model by what the user calls it: a path that exists, or an id of the hub. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { exists } from '../../tensor/io/files-node.ts';
import { CachedModel, HubError, HubModel, parseHubId, withSettings } from '../../tensor/io/hub-node.ts';
import type { HubId, HubOptions } from '../../tensor/io/hub-node.ts';
import { modelFiles, ModelFilesError } from './model-files.ts';
import type { ModelFiles, ModelFilesOptions } from './model-files.ts';

/** How to reach the hub, which files are wanted, and whether to ask for newer ones. */
export interface FindModelOptions extends HubOptions, ModelFilesOptions {
  /** Ask the hub whether there is a newer one, also when a whole model is in the cache. */
  refresh?: boolean;
}

/**
 * Path of a model's folder, or of its file.
 *
 * A path that exists is taken as it is. An id of the hub is looked up in the cache, and no request is made when all
 * files that are needed are there; else they are downloaded.
 * @throws HubError when it is neither, or cannot be had; ModelFilesError when it is no model
 */
export async function findModel(word: string, options: FindModelOptions = {}): Promise<string> {
  if (await exists(word)) return word;
  const asked = parseHubId(word);
  if (!asked)
    throw new HubError(
      `${word}: no such folder or file\n  a model is a folder in diffusers' layout, a file of weights, or an id of the hub such as owner/name`,
    );
  try {
    return await fromHub(asked, options);
  } catch (error) {
    if (error instanceof ModelFilesError)
      throw new ModelFilesError(`${asked.id}@${asked.revision}: ${error.message}`, { cause: error });
    if (error instanceof HubError && error.status !== undefined)
      throw new HubError(`${error.message}\n  (and there is no folder or file ${word} here)`, error.status);
    throw error;
  }
}

/**
 * Folder with a model's configurations, without its weights unless they are there: what an estimate needs. A path that exists
 * is taken as it is. `vocabularies`: also what tokenizers and feature extractors consist of.
 * @throws HubError when it is no id of the hub, or cannot be had
 */
export async function findConfigs(
  word: string,
  { vocabularies = false, ...options }: HubOptions & { vocabularies?: boolean } = {},
): Promise<string> {
  if (await exists(word)) return word;
  const asked = parseHubId(word);
  if (!asked || asked.file)
    throw new HubError(`${word}: no such folder or file, nor a model of the hub such as owner/name`);
  const settings = withSettings(options);
  const cached = new CachedModel(settings.cache, asked.id);
  const commit = settings.offline ? await cached.commitOf(asked.revision) : undefined;
  if (commit) return cached.snapshot(commit);
  const hub = await HubModel.open(asked.id, asked.revision, options);
  const isConfig = (name: string) =>
    /^(\w+\/)?(config|model_index|scheduler_config)\.json$/.test(name) ||
    (vocabularies && /^(tokenizer(_\d)?|feature_extractor)\/[\w.-]+\.(json|txt)$/.test(name));
  return hub.download([...hub.files.keys()].filter(isConfig));
}

async function fromHub(asked: HubId, options: FindModelOptions): Promise<string> {
  const settings = withSettings(options);
  const { path, exact, why } = await inCache(asked, options, settings.cache);
  if (path && (settings.offline || (exact && !options.refresh))) return path;
  if (settings.offline)
    throw new HubError(
      `${asked.id}: not in the cache whole (${why}), and HF_HUB_OFFLINE forbids to ask for it\n  cache  ${settings.cache}\n` +
        `  without HF_HUB_OFFLINE, rectiflow download ${asked.id} fetches it`,
    );
  let hub;
  try {
    hub = await HubModel.open(asked.id, asked.revision, options);
  } catch (error) {
    // Without an answer, what is here is the best there is.
    if (!(error instanceof HubError && path) || (error.status !== undefined && error.status < 500)) throw error;
    options.onNote?.(`${error.message.split('\n')[0]}; going on with what is in the cache`);
    return path;
  }
  const names = [...hub.files.keys()];
  const index = names.includes('model_index.json') && !asked.file ? await hub.read('model_index.json') : undefined;
  const chosen = modelFiles(names, index && parse(index), { ...options, file: asked.file });
  return place(await hub.download(chosen.files), chosen);
}

/** What the cache has of a model, or why it has none. */
async function inCache(
  { id, revision, file }: HubId,
  options: FindModelOptions,
  cache: string,
): Promise<{ path?: string; exact?: boolean; why?: string }> {
  const cached = new CachedModel(cache, id);
  const commit = await cached.commitOf(revision);
  if (!commit) return { why: `no revision ${revision} of it` };
  const folder = cached.snapshot(commit);
  const here = await cached.files(commit);
  if (here.length === 0) return { why: 'no files of it' };
  const listing = await cached.listing(commit);
  try {
    const index =
      here.includes('model_index.json') && !file ? await readFile(join(folder, 'model_index.json')) : undefined;
    const choose = (names: string[]) => modelFiles(names, index && parse(index), { ...options, file });
    if (listing && (index || !listing.has('model_index.json') || file)) {
      const chosen = choose([...listing.keys()]);
      const has = await Promise.all(chosen.files.map((name) => cached.has(commit, listing.get(name)!)));
      if (has.every(Boolean)) return { path: place(folder, chosen), exact: true };
    }
    const chosen = choose(here);
    // Of what is not listed here there may be more: another variant, or a second file of weights.
    const exact = !listing && chosen.exact && (file !== undefined || chosen.file === undefined);
    return { path: place(folder, chosen), exact };
  } catch (error) {
    if (!(error instanceof ModelFilesError)) throw error;
    return { why: error.message.replace(/\n\s*/g, '; ') };
  }
}

const place = (folder: string, { file }: ModelFiles): string => (file ? join(folder, file) : folder);

function parse(bytes: Uint8Array): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {
    // said below
  }
  throw new ModelFilesError('its model_index.json is not what diffusers writes');
}
