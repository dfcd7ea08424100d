/** What can go wrong with a hub, and what to do about it. */
import type { HubSettings } from './settings-node.ts';

/** The hub, the way to it, or the cache failed. */
export class HubError extends Error {
  override name = 'HubError';

  constructor(
    message: string,
    /** HTTP status, when there was an answer. */
    readonly status?: number,
  ) {
    super(message);
  }
}

/** May go well when it is tried again. */
export class PassingError extends HubError {
  constructor(
    message: string,
    status?: number,
    /** Seconds to wait first, where the server says so. */
    readonly wait?: number,
  ) {
    super(message, status);
  }
}

/** What was asked for: a model, and perhaps one of its files. */
export interface Asked {
  id: string;
  revision: string;
  path?: string;
}

const passing = new Set([408, 425, 429, 500, 502, 503, 504]);

/** An answer that is not the one hoped for, as an error with the likely fix. */
export function statusError(response: Response, url: URL, asked: Asked, hub: HubSettings): HubError {
  const { status } = response;
  const host = url.origin === new URL(hub.endpoint).origin ? hub.endpoint : url.origin;
  const what = asked.path ? `${asked.id}: ${asked.path}` : asked.id;
  if (status === 429)
    return new PassingError(
      `${what}: ${host} asks to slow down (429)${hub.token ? '' : '\n  with a token in HF_TOKEN more is allowed'}`,
      status,
      waitOf(response.headers),
    );
  if (passing.has(status))
    return new PassingError(`${what}: ${host} has a problem (${status})`, status, waitOf(response.headers));
  // A file's own host refuses a link that has grown old; the hub gives a new one.
  if (url.origin !== new URL(hub.endpoint).origin)
    return new PassingError(`${what}: ${host}, which the hub points to, answers ${status}`, status);
  const lines = [`${what}: ${reasonOf(status)} (${status} from ${host})`, ...fixOf(response, asked, hub)];
  return new HubError(lines.join('\n  '), status);
}

const reasonOf = (status: number): string =>
  status === 401 ? 'refused' : status === 403 ? 'forbidden' : status === 404 ? 'not found' : 'not given';

function fixOf({ status, headers }: Response, { id, revision, path }: Asked, hub: HubSettings): string[] {
  const code = headers.get('x-error-code') ?? '';
  const page = `${hub.endpoint}/${id}`;
  const tokens = `${hub.endpoint}/settings/tokens`;
  if (code === 'RevisionNotFound') return [`it has no revision "${revision}"; see ${page}/tree/main`];
  if (status === 404 && path) return [`it has no such file at ${revision}; see ${page}/tree/${revision}`];
  if (status === 404)
    return [`is it spelt right? ${page}`, ...(revision === 'main' ? [] : [`and has it a revision "${revision}"?`])];
  const gated = code === 'GatedRepo';
  if (!hub.token)
    return [
      gated ? 'its authors ask who downloads it' : 'no such model, or one that is private or asks who downloads it',
      `check the name, and accept the terms, at ${page}`,
      `then make a token at ${tokens} and put it into HF_TOKEN`,
    ];
  if (status === 403 || gated)
    return [
      `the account of the token in ${hub.tokenFrom} has no access`,
      `accept the terms at ${page}; a fine-grained token also needs the right to read gated models (${tokens})`,
    ];
  if (status === 401)
    return [
      `no such model, or the token in ${hub.tokenFrom} has expired or may not see it`,
      `check the name at ${page} and the token at ${tokens}`,
    ];
  return [`see ${page}`];
}

/** Seconds to wait: Retry-After as seconds or as a date, or the `t=` of the hub's RateLimit header. */
function waitOf(headers: Headers): number | undefined {
  const after = headers.get('retry-after');
  const limit = /\bt=(\d+)/.exec(headers.get('ratelimit') ?? '')?.[1];
  if (!after) return limit === undefined ? undefined : Number(limit);
  const seconds = /^\d+$/.test(after) ? Number(after) : (Date.parse(after) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : undefined;
}

/** Errors of a connection, by their code. */
const refused: Record<string, string> = {
  ENOTFOUND: 'no such host, or no network',
  EAI_AGAIN: 'the name of the host cannot be looked up: is there a network?',
  ECONNREFUSED: 'nobody answers there',
  ECONNRESET: 'the connection broke',
  ETIMEDOUT: 'nobody answered in time',
  EHOSTUNREACH: 'no way to the host',
  ENETUNREACH: 'no network',
  UND_ERR_SOCKET: 'the connection broke',
  UND_ERR_CONNECT_TIMEOUT: 'nobody answered in time',
};

/** A connection that failed, as an error that is worth another try, unless the other side cannot be trusted. */
export function connectionError(error: unknown, url: URL, asked: Asked): HubError {
  const cause = (error as Error).cause as (Error & { code?: string }) | undefined;
  const code = cause?.code ?? (error as NodeJS.ErrnoException).code ?? '';
  const what = `${asked.path ? `${asked.id}: ${asked.path}` : asked.id}: cannot reach ${url.origin}`;
  const reason = refused[code] ?? cause?.message ?? (error as Error).message;
  if (/CERT|SELF_SIGNED|UNABLE_TO_VERIFY|ERR_TLS/.test(code))
    return new HubError(
      `${what}: its certificate is not trusted (${reason})\n  behind a proxy, put its certificate into NODE_EXTRA_CA_CERTS`,
    );
  return new PassingError(`${what}: ${reason}${code ? ` (${code})` : ''}`);
}
