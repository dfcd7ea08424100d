/** One question to the hub: redirects without the token, silence noticed, passing trouble tried again. */
import { setTimeout as sleep } from 'node:timers/promises';
import { connectionError, HubError, PassingError, statusError } from './errors-node.ts';
import type { Asked } from './errors-node.ts';
import type { HubSettings } from './settings-node.ts';

/** What a download may be told, and what it tells. */
export interface HubListener {
  signal?: AbortSignal;
  /** Something worth a line: another try, another process at work on the same file. */
  onNote?: (words: string) => void;
}

export type Hub = HubSettings & HubListener;

/** An answer of the hub, of status 200 or 206. */
export interface Answer {
  response: Response;
  body: AsyncGenerator<Uint8Array>;
  /** To be called when no more of the body is wanted. */
  close(): void;
}

const MAX_REDIRECTS = 10;
const MAX_WAIT = 300; // seconds; who asks for more gets no second question

/**
 * Ask once. The token goes to the endpoint's own origin and nowhere else, whatever a redirect or a link says.
 * @throws PassingError when another try may help, HubError when it will not
 */
export async function ask(address: string, hub: Hub, asked: Asked, headers: Record<string, string>): Promise<Answer> {
  const home = new URL(hub.endpoint).origin;
  const watch = new Watch(hub);
  try {
    let url = new URL(address);
    for (let redirects = 0; ; redirects++) {
      watch.host = url.origin;
      const response = await fetch(url, {
        redirect: 'manual',
        signal: watch.signal,
        headers: {
          'accept-encoding': 'identity', // lengths and ranges are of the file itself
          'user-agent': 'rectiflow',
          ...headers,
          ...(hub.token && url.origin === home ? { authorization: `Bearer ${hub.token}` } : {}),
        },
      }).catch((error) => {
        throw watch.reason ?? connectionError(error, url, asked);
      });
      const location = response.headers.get('location');
      if (response.status >= 300 && response.status < 400 && location) {
        void response.body?.cancel().catch(() => {});
        if (redirects === MAX_REDIRECTS) throw new HubError(`${asked.id}: ${url.origin} redirects without end`);
        url = follow(location, url, asked);
        continue;
      }
      if (response.status !== 200 && response.status !== 206) {
        void response.body?.cancel().catch(() => {});
        throw statusError(response, url, asked, hub);
      }
      return { response, body: pieces(response, url, watch, asked), close: () => watch.close() };
    }
  } catch (error) {
    watch.close();
    throw error;
  }
}

function follow(location: string, from: URL, asked: Asked): URL {
  if (!URL.canParse(location, from.href) || !/^https?:$/.test(new URL(location, from).protocol))
    throw new HubError(`${asked.id}: ${from.origin} redirects to what is no web address\n  ${location}`);
  return new URL(location, from);
}

async function* pieces(response: Response, url: URL, watch: Watch, asked: Asked): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  while (reader) {
    watch.start();
    const read = reader.read().catch((error) => {
      throw watch.reason ?? connectionError(error, url, asked);
    });
    const { done, value } = await watch.during(read);
    watch.pause(); // a slow disk here is no silence there
    if (done) return;
    yield value;
  }
}

/** Ends a request when the caller stops it, or when nothing has come for `timeout` seconds. */
class Watch {
  readonly #controller = new AbortController();
  readonly #stop = () => this.#end(this.hub.signal!.reason);
  #timer?: NodeJS.Timeout;
  #fail?: (reason: unknown) => void;
  /** Why the request was ended. */
  reason?: unknown;
  host = '';

  constructor(readonly hub: Hub) {
    hub.signal?.throwIfAborted();
    hub.signal?.addEventListener('abort', this.#stop);
    this.start();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  start(): void {
    this.pause();
    const { timeout } = this.hub;
    const silence = () => this.#end(new PassingError(`nothing came from ${this.host} for ${timeout} s`));
    this.#timer = setTimeout(silence, 1000 * timeout);
  }

  pause(): void {
    clearTimeout(this.#timer);
  }

  /** `read`, or the reason of an end before it: a body that was ended between two reads never settles the next one. */
  during<T>(read: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#fail = reject;
      if (this.reason !== undefined) reject(this.reason);
      read.then(resolve, reject);
    });
  }

  close(): void {
    this.pause();
    this.hub.signal?.removeEventListener('abort', this.#stop);
    this.#controller.abort();
  }

  #end(reason: unknown): void {
    this.reason = reason;
    this.#controller.abort(reason);
    this.#fail?.(reason);
  }
}

/**
 * Do `work` again while it fails in passing: after `backoff`, twice that, … or when the server says. Tries that brought
 * the work forward (`progress` grew) are not counted.
 */
export async function persist<T>(
  hub: Hub,
  work: () => Promise<T>,
  { tries = 3, progress = (): number => 0 } = {},
): Promise<T> {
  for (let failed = 0; ;) {
    const before = progress();
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof PassingError)) throw error;
      failed = progress() > before ? 1 : failed + 1;
      const wait = error.wait ?? (hub.backoff / 1000) * 2 ** (failed - 1) * (0.75 + Math.random() / 2);
      if (failed >= tries)
        throw new HubError(`${error.message}\n  tried ${failed} times; try again later`, error.status);
      if (wait > MAX_WAIT)
        throw new HubError(`${error.message}\n  it asks to wait ${Math.ceil(wait)} s; try again then`, error.status);
      hub.onNote?.(`${error.message.split('\n')[0]}; again in ${wait < 1 ? 'a moment' : `${Math.ceil(wait)} s`}`);
      await sleep(1000 * wait, undefined, { signal: hub.signal }).catch(() => hub.signal!.throwIfAborted());
    }
  }
}

const MAX_LISTING = 64 << 20; // bytes; the longest real ones have a few million

/** `fetch` for @huggingface/hub: small answers, whole, with all of the above. */
export function hubFetch(hub: Hub, asked: Asked): typeof fetch {
  return (address) =>
    persist(hub, async () => {
      const { response, body, close } = await ask(String(address), hub, asked, { accept: 'application/json' });
      const parts: Uint8Array[] = [];
      let bytes = 0;
      try {
        for await (const part of body) {
          parts.push(part);
          if ((bytes += part.length) > MAX_LISTING)
            throw new HubError(`${asked.id}: ${hub.endpoint} answers with more than ${MAX_LISTING >> 20} MiB`);
        }
      } finally {
        close();
      }
      return new Response(Buffer.concat(parts), { status: response.status, headers: response.headers });
    });
}
