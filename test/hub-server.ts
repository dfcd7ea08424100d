/** A hub on this machine: the routes of the real one, files of LFS on a second host, and faults on demand. */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What goes wrong with one request: the answer is written by it, or it returns true to let the hub answer. */
export type Fault = (request: IncomingMessage, response: ServerResponse) => boolean | void;

export interface Seen {
  method: string;
  url: string;
  host: 'hub' | 'files';
  authorization?: string;
  range?: string;
}

interface Entry {
  bytes: Buffer;
  lfs: boolean;
  etag: string;
}

export const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');
export const gitSha1 = (bytes: Buffer): string =>
  createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');

/** One model, `owner/name`, at one commit. Files of more than 1000 bytes are LFS files. */
export class HubServer {
  readonly seen: Seen[] = [];
  /** Faults of requests whose URL holds the key; each is used up, in order. */
  readonly faults: [part: string, fault: Fault][] = [];
  commit = 'c'.repeat(40);
  token?: string;
  id = 'owner/name';
  revisions = new Set(['main', 'v1']);
  /** Entries of the tree that are as the test says, not as they are. */
  lies: Record<string, object> = {};
  /** Entries on one page of the tree. */
  page = 1000;
  files = new Map<string, Entry>();
  readonly #hub: Server;
  readonly #files: Server;

  private constructor() {
    this.#hub = createServer((request, response) => this.#answer('hub', request, response));
    this.#files = createServer((request, response) => this.#answer('files', request, response));
  }

  static async start(): Promise<HubServer> {
    const server = new HubServer();
    for (const one of [server.#hub, server.#files])
      await new Promise<void>((resolve) => one.listen(0, '127.0.0.1', resolve));
    return server;
  }

  stop(): void {
    for (const one of [this.#hub, this.#files]) {
      one.closeAllConnections();
      one.close();
    }
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#hub.address() as AddressInfo).port}`;
  }

  get filesHost(): string {
    return `http://localhost:${(this.#files.address() as AddressInfo).port}`;
  }

  put(path: string, bytes: Buffer | string): Entry {
    const buffer = Buffer.from(bytes as string);
    const lfs = buffer.length > 1000;
    const entry = { bytes: buffer, lfs, etag: lfs ? sha256(buffer) : gitSha1(buffer) };
    this.files.set(path, entry);
    return entry;
  }

  /** GETs of a file's bytes. */
  fetches(path: string): Seen[] {
    return this.seen.filter(({ url }) => url.endsWith(path) && /^\/(.*\/resolve|bytes)\//.test(url));
  }

  #answer(host: Seen['host'], request: IncomingMessage, response: ServerResponse): void {
    const url = decodeURIComponent(request.url!);
    const { authorization, range } = request.headers;
    this.seen.push({ method: request.method!, url, host, authorization, range });
    const fault = this.faults.findIndex(([part]) => (host === 'files' ? `files${url}` : url).includes(part));
    if (fault >= 0) {
      const [[, act]] = this.faults.splice(fault, 1);
      if (!act(request, response)) return;
    }
    if (host === 'files') return this.#send(request, response, url.slice('/bytes/'.length));
    if (this.token && authorization !== `Bearer ${this.token}`)
      return fail(response, 401, 'RepoNotFound', 'Invalid username or password.');
    const { pathname, searchParams } = new URL(url, this.endpoint);
    const api = new RegExp(`^/api/models/${this.id}/(revision|tree)/(.+)$`).exec(pathname);
    if (api?.[1] === 'revision') {
      if (api[2] !== this.commit && !this.revisions.has(api[2]))
        return fail(response, 404, 'RevisionNotFound', `Invalid rev id: ${api[2]}`);
      return json(response, { _id: '1', id: this.id, private: false, gated: false, sha: this.commit });
    }
    if (api?.[1] === 'tree') return this.#tree(response, pathname, Number(searchParams.get('cursor') ?? 0));
    const file = new RegExp(`^/${this.id}/resolve/([^/]+)/(.+)$`).exec(pathname);
    if (file) return this.#resolve(request, response, file[2]);
    fail(response, 404, 'RepoNotFound', 'Repository not found');
  }

  /** As the hub lists: page by page, the next one in the Link header. */
  #tree(response: ServerResponse, pathname: string, from: number): void {
    const folders = new Set(
      [...this.files.keys()].filter((path) => path.includes('/')).map((path) => path.split('/')[0]),
    );
    const entries: object[] = [
      ...[...folders].map((path) => ({ type: 'directory', oid: '0'.repeat(40), size: 0, path })),
      ...[...this.files].map(([path, { bytes, lfs, etag }]) => ({
        type: 'file',
        path,
        size: bytes.length,
        oid: lfs ? gitSha1(Buffer.from(`pointer ${etag}`)) : etag,
        ...(lfs ? { lfs: { oid: etag, size: bytes.length, pointerSize: 134 } } : {}),
        ...this.lies[path],
      })),
    ];
    const next = from + this.page;
    if (next < entries.length)
      response.setHeader('link', `<${this.endpoint}${pathname}?recursive=true&cursor=${next}>; rel="next"`);
    json(response, entries.slice(from, next));
  }

  #resolve(request: IncomingMessage, response: ServerResponse, path: string): void {
    const entry = this.files.get(path);
    if (!entry) return fail(response, 404, 'EntryNotFound', 'Entry not found');
    response.setHeader('x-repo-commit', this.commit);
    if (!entry.lfs) return this.#send(request, response, path);
    response.setHeader('x-linked-etag', `"${entry.etag}"`);
    response.setHeader('x-linked-size', String(entry.bytes.length));
    response.writeHead(302, { location: `${this.filesHost}/bytes/${path}` }).end();
  }

  #send(request: IncomingMessage, response: ServerResponse, path: string): void {
    const { bytes, etag } = this.files.get(path)!;
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
    response.setHeader('etag', `"${etag}"`);
    if (from >= bytes.length && from > 0) {
      response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end();
      return;
    }
    const part = bytes.subarray(from);
    if (request.headers.range) response.setHeader('content-range', `bytes ${from}-${bytes.length - 1}/${bytes.length}`);
    response.writeHead(request.headers.range ? 206 : 200, { 'content-length': part.length });
    response.end(request.method === 'HEAD' ? undefined : part);
  }
}

function json(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}

function fail(response: ServerResponse, status: number, code: string, message: string): void {
  response.writeHead(status, { 'content-type': 'application/json', 'x-error-code': code, 'x-error-message': message });
  response.end(JSON.stringify({ error: message }));
}
