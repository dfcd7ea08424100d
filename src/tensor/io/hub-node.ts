/** Models of the Hugging Face hub, in the cache that Python shares (Node only). The parts are in hub/; docs/hub.md. */
import { defined } from '../defined.ts';
import { mkdir, readFile, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { fetchBlob } from './hub/blob-node.ts';
import { CachedModel, checkCommit } from './hub/cache-node.ts';
import type { HubDisk } from './hub/cache-node.ts';
import { HubError } from './hub/errors-node.ts';
import { checkFile } from './hub/listing-node.ts';
import type { HubFile } from './hub/listing-node.ts';
import { Meter, size } from './hub/meter.ts';
import type { DownloadProgress } from './hub/meter.ts';
import { leftBytes } from './hub/partial-node.ts';
import { hubFetch } from './hub/request-node.ts';
import type { HubListener } from './hub/request-node.ts';
import { hubSettings } from './hub/settings-node.ts';
import type { HubSettings } from './hub/settings-node.ts';

export { CachedModel, HubError, size };
export type { DownloadProgress, HubDisk, HubFile, HubListener, HubSettings };

/** How to reach the hub, and whom to tell. What is not given comes from the environment. */
export interface HubOptions extends Partial<HubSettings>, HubListener {
  /** Called for every piece that comes. */
  onProgress?: (progress: DownloadProgress) => void;
  disk?: HubDisk;
}

/** owner/name, perhaps a file of it, and a branch, tag or commit. */
export interface HubId {
  id: string;
  revision: string;
  file?: string;
}

const MAX_FILES = 100_000;
const AT_ONCE = 4;

/**
 * 'owner/name', 'owner/name@revision', 'owner/name/weights.safetensors@revision'; undefined when it is none of these.
 * @see https://github.com/huggingface/huggingface_hub, validate_repo_id
 */
export function parseHubId(word: string): HubId | undefined {
  const match = /^([\w.-]+\/[\w.-]+?)((?:\/[\w. ()-]+)+\.(?:safetensors|ckpt|bin|pt|pth))?(?:@([\w./-]+))?$/.exec(word);
  if (!match) return undefined;
  const [, id, file, revision = 'main'] = match;
  const names = id.split('/');
  const badName = (name: string) => /^[.-]|[.-]$|--|\.\.|\.git$/.test(name) || name.length > 96;
  const badPath = (path: string) => path.split('/').some((part) => part === '' || /^\.+$/.test(part));
  if (names.some(badName) || badPath(revision) || (file && badPath(file.slice(1)))) return undefined;
  return { id, revision, ...(file ? { file: file.slice(1) } : {}) };
}

/** A model on the hub at one commit: what it consists of, and the way to have it here. */
export class HubModel {
  readonly #cached: CachedModel;

  private constructor(
    readonly id: string,
    readonly revision: string,
    readonly commit: string,
    readonly files: ReadonlyMap<string, HubFile>,
    readonly options: HubOptions & HubSettings,
  ) {
    this.#cached = new CachedModel(options.cache, id);
  }

  /**
   * Ask the hub what the model is now.
   * @throws HubError when the hub cannot be reached, does not know the model or does not give it to this user
   */
  static async open(id: string, revision: string, given: HubOptions = {}): Promise<HubModel> {
    const options = withSettings(given);
    if (options.offline)
      throw new HubError(`${id}: HF_HUB_OFFLINE forbids to ask ${options.endpoint}\n  unset it to download`);
    const { listFiles, modelInfo } = await import('@huggingface/hub').catch((error) => {
      throw new HubError(`${id}: @huggingface/hub is not installed (${error.message})\n  npm install @huggingface/hub`);
    });
    const common = { hubUrl: options.endpoint, fetch: hubFetch(options, { id, revision }) };
    try {
      const { sha } = await modelInfo({ ...common, name: id, revision, additionalFields: ['sha'] });
      const commit = checkCommit(id, sha);
      const kept = await new CachedModel(options.cache, id).listing(commit);
      if (kept) return new HubModel(id, revision, commit, kept, options);
      const files = new Map<string, HubFile>();
      const repo = { type: 'model' as const, name: id };
      for await (const entry of listFiles({ ...common, repo, revision: commit, recursive: true })) {
        if (entry.type === 'file') files.set(entry.path, checkFile(id, entry));
        if (files.size > MAX_FILES) throw new HubError(`${id}: the server lists more than ${MAX_FILES} files`);
      }
      return new HubModel(id, revision, commit, files, options);
    } catch (error) {
      if (error instanceof HubError || options.signal?.aborted) throw error;
      throw new HubError(
        `${id}: ${options.endpoint} does not answer as a hub does (${(error as Error).message})\n  is HF_ENDPOINT right?`,
      );
    }
  }

  /** The bytes of one file, through the cache. */
  async read(path: string): Promise<Uint8Array> {
    return new Uint8Array(await readFile(join(await this.#fetch([path]), path)));
  }

  /**
   * Have these files here; those that are already cost no request. Returns the folder of the snapshot. The revision is
   * noted only when all are there, so that a download that stops leaves the one before in place.
   * @throws HubError when one is not had; all that came stays, for the next call
   */
  async download(paths: string[]): Promise<string> {
    const folder = await this.#fetch(paths, this.options.onProgress);
    await this.#cached.keepListing(this.commit, this.files);
    await this.#cached.setCommit(this.revision, this.commit);
    return folder;
  }

  async #fetch(paths: string[], onProgress?: HubOptions['onProgress']): Promise<string> {
    const missing: HubFile[] = [];
    for (const path of paths) {
      const file = this.files.get(path);
      if (!file) throw new HubError(`${this.id}: has no file ${path} at ${this.revision}`, 404);
      if (!(await this.#cached.has(this.commit, file))) missing.push(file);
    }
    const folder = this.#cached.snapshot(this.commit);
    if (missing.length === 0) return folder;
    await mkdir(this.#cached.blobs, { recursive: true }).catch((error: Error) => {
      throw new HubError(`${this.id}: no place in the cache (${error.message})\n  set HF_HOME to a folder of your own`);
    });
    await this.#checkSpace(missing);
    await this.#fetchAll(missing, onProgress);
    return folder;
  }

  /** Four at once; the first that fails stops the others, which keep what they have. */
  async #fetchAll(missing: HubFile[], onProgress?: HubOptions['onProgress']): Promise<void> {
    const { options, id, commit } = this;
    const meter = new Meter(missing.reduce((sum, { bytes }) => sum + bytes, 0));
    const stopping = new AbortController();
    const stop = () => stopping.abort(options.signal!.reason);
    options.signal?.throwIfAborted();
    options.signal?.addEventListener('abort', stop);
    const hub = { ...options, signal: stopping.signal };
    const queue = [...missing];
    const worker = async () => {
      for (let file = queue.shift(); file; file = queue.shift()) {
        let counted = 0;
        const count = (bytes: number, from: 'hub' | 'disk') => {
          counted += bytes;
          meter.add(bytes, from);
          onProgress?.(meter.progress);
        };
        const asked = { id, revision: commit, path: file.path };
        await fetchBlob({ hub, model: this.#cached, asked, file, onBytes: count, disk: options.disk });
        if (counted < file.bytes) count(file.bytes - counted, 'disk'); // it was here, or another process fetched it
        await this.#cached.link(commit, file, options.disk);
      }
    };
    const fail = (error: unknown) => {
      stopping.abort(error);
      throw error;
    };
    try {
      const ends = await Promise.allSettled(Array.from({ length: AT_ONCE }, () => worker().catch(fail)));
      if (ends.some(({ status }) => status === 'rejected')) throw stopping.signal.reason;
    } finally {
      options.signal?.removeEventListener('abort', stop);
    }
  }

  async #checkSpace(missing: HubFile[]): Promise<void> {
    const { blobs } = this.#cached;
    let needed = 0;
    for (const file of missing)
      if (!(await this.#cached.hasBlob(file))) needed += file.bytes - (await leftBytes(blobs, file.etag));
    const disk = await statfs(blobs).catch(() => undefined);
    const free = disk && disk.blocks > 0 ? disk.bavail * disk.bsize : Infinity;
    if (needed > free)
      throw new HubError(
        `${this.id}: does not fit on the disk\n  needed  ${size(needed)}\n  free    ${size(free)} in ${this.options.cache}\n` +
          '  free some space, or set HF_HOME to a folder on another disk',
      );
  }
}

/** What is given, and the rest from the environment. */
export function withSettings<T extends HubOptions>(given: T): T & HubSettings {
  return { ...hubSettings(), ...defined(given) } as T & HubSettings;
}
