/** One file of a model: fetched from where it stopped, its checksum compared, and only then given its name. */
import { createHash, type Hash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { size as words } from './meter.ts';
import type { CachedModel, HubDisk } from './cache-node.ts';
import { HubError, PassingError } from './errors-node.ts';
import type { Asked } from './errors-node.ts';
import type { HubFile } from './listing-node.ts';
import { PartialBlob } from './partial-node.ts';
import { ask, persist } from './request-node.ts';
import type { Hub } from './request-node.ts';

/** What is fetched, for whom, and who wants to know how it goes. */
export interface BlobRequest {
  hub: Hub;
  model: CachedModel;
  asked: Required<Asked>;
  file: HubFile;
  /** Bytes that came, or that were found here from before; fewer than 0 when some had to be thrown away. */
  onBytes?: (bytes: number, from: 'hub' | 'disk') => void;
  disk?: Pick<HubDisk, 'open'>;
}

const TRIES = 5; // in a row, without a byte
const POLL = 200; // ms

/**
 * Put a file's bytes into the cache, under their checksum. When this fails or is stopped, what has come stays beside, and
 * the next call goes on from there.
 * @throws HubError when the server keeps failing, or what it sends is not what it lists
 */
export async function fetchBlob(request: BlobRequest): Promise<void> {
  const { hub, model, file, asked, disk = { open } } = request;
  for (let waiting = false; !(await model.hasBlob(file));) {
    hub.signal?.throwIfAborted();
    const partial = await PartialBlob.claim(model.blobs, file.etag, disk);
    if (!partial) {
      if (!waiting) hub.onNote?.(`${asked.id}: ${file.path} is being downloaded already, by another; waiting for it`);
      waiting = true;
      await sleep(POLL, undefined, { signal: hub.signal }).catch(() => hub.signal!.throwIfAborted());
      continue;
    }
    try {
      await fill(request, partial);
      await partial.become(join(model.blobs, file.etag)).catch(async (error) => {
        if (!(await model.hasBlob(file))) throw error; // else another process finished it too
      });
    } catch (error) {
      throw explain(error, request, partial);
    } finally {
      await partial.leave();
    }
  }
}

/** Fetch what is missing; if what was left from before turns out damaged, all of it. */
async function fill(request: BlobRequest, partial: PartialBlob): Promise<void> {
  const { hub, file, asked, onBytes } = request;
  const restart = async () => {
    onBytes?.(-partial.bytes, 'disk');
    await partial.clear();
    return begin(file);
  };
  let hash = begin(file);
  for await (const piece of partial.read()) hash.update(piece);
  onBytes?.(partial.bytes, 'disk');
  if (partial.bytes > file.bytes) hash = await restart();
  for (let fresh = partial.bytes === 0; ; fresh = true) {
    const receive = async () => {
      if (partial.bytes === file.bytes) return;
      const answer = await ask(addressOf(request), hub, asked, range(partial.bytes));
      try {
        if (!isContinued(answer.response, partial.bytes)) hash = await restart();
        checkLength(answer.response, partial.bytes, request);
        for await (const piece of answer.body) {
          if (partial.bytes + piece.length > file.bytes) throw wrongLength(request, 'more');
          await partial.append(piece);
          hash.update(piece);
          onBytes?.(piece.length, 'hub');
        }
      } finally {
        answer.close();
      }
      if (partial.bytes < file.bytes)
        throw new PassingError(
          `${asked.id}: ${file.path} broke off after ${words(partial.bytes)} of ${words(file.bytes)}`,
        );
    };
    await persist(hub, receive, { tries: TRIES, progress: () => partial.bytes });
    const sum = hash.digest('hex');
    if (sum === file.etag) return;
    hash = await restart();
    if (fresh)
      throw new HubError(
        `${asked.id}: ${file.path} arrives damaged\n  checksum listed  ${file.etag}\n  of what came     ${sum}\n` +
          '  nothing of it was kept; is there a proxy or a mirror that changes files?',
      );
    hub.onNote?.(`${asked.id}: what was left of ${file.path} is damaged; fetching all of it`);
  }
}

/** sha256 of the bytes, or git's: sha1 of "blob <size>\0" and the bytes. */
function begin({ etag, bytes }: HubFile): Hash {
  return etag.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${bytes}\0`);
}

function addressOf({ hub, asked, file }: BlobRequest): string {
  return `${hub.endpoint}/${asked.id}/resolve/${asked.revision}/${file.path.split('/').map(encodeURIComponent).join('/')}`;
}

const range = (from: number): Record<string, string> => (from > 0 ? { range: `bytes=${from}-` } : {});

/** Whether the body goes on at `from`; a server that knows no ranges sends all. */
function isContinued({ status, headers }: Response, from: number): boolean {
  if (status !== 206) return from === 0;
  return headers.get('content-range')?.startsWith(`bytes ${from}-`) ?? false;
}

/** A login page, an error in disguise or another version is known by its length, before it is fetched. */
function checkLength({ headers }: Response, from: number, request: BlobRequest): void {
  const total = /\/(\d+)$/.exec(headers.get('content-range') ?? '')?.[1];
  const rest = headers.get('content-length');
  const bytes = total ? Number(total) : rest ? from + Number(rest) : request.file.bytes;
  if (bytes !== request.file.bytes)
    throw wrongLength(request, `${bytes}${headers.get('content-type')?.includes('text/html') ? ', a web page' : ''}`);
}

function wrongLength({ asked, file }: BlobRequest, came: string): HubError {
  return new HubError(
    `${asked.id}: ${file.path} has another length than listed\n  listed  ${file.bytes} bytes\n  sent    ${came}\n` +
      '  is there a login page or a proxy in between?',
  );
}

/** The disk's troubles, in words. */
function explain(error: unknown, { asked, file }: BlobRequest, partial: PartialBlob): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return new HubError(
      `${asked.id}: ${file.path} cannot be written: the disk is full\n  ${partial.path}\n` +
        `  ${words(partial.bytes)} of ${words(file.bytes)} are kept; free ${words(file.bytes - partial.bytes)} and do the same again, ` +
        'or set HF_HOME to a folder on another disk',
    );
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS')
    return new HubError(
      `${asked.id}: ${file.path} cannot be written: no permission\n  ${partial.path}\n  set HF_HOME to a folder of your own`,
    );
  return error;
}
