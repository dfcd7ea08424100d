/** Where the hub is, where its files are kept, and who asks: from the variables that huggingface_hub for Python reads. */
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { HubError } from './errors-node.ts';

/** How to reach the hub. `hubSettings` reads it from the environment. */
export interface HubSettings {
  /** Address without a slash at its end. */
  endpoint: string;
  /** Folder of the cache: it holds models--owner--name. */
  cache: string;
  token?: string;
  /** Where the token is from, for messages: the name of a variable or of a file. */
  tokenFrom?: string;
  /** Ask nobody. */
  offline: boolean;
  /** Seconds without a byte after which a connection counts as broken. */
  timeout: number;
  /** Milliseconds before the second try; doubles from try to try. */
  backoff: number;
}

type Environment = Record<string, string | undefined>;

/**
 * @see https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
 * @throws HubError when HF_ENDPOINT is no address, or HF_TOKEN cannot stand in a header
 */
export function hubSettings(env: Environment = process.env): HubSettings {
  const folder = (name: string) => expand(env[name], env);
  const home = folder('HF_HOME') ?? join(folder('XDG_CACHE_HOME') ?? join(homedir(), '.cache'), 'huggingface');
  const timeout = Number(env.HF_HUB_DOWNLOAD_TIMEOUT);
  return {
    endpoint: endpointFrom(env.HF_ENDPOINT || 'https://huggingface.co'),
    cache: folder('HF_HUB_CACHE') ?? folder('HUGGINGFACE_HUB_CACHE') ?? join(home, 'hub'),
    ...tokenFrom(env, folder('HF_TOKEN_PATH') ?? join(home, 'token')),
    offline: isTrue(env.HF_HUB_OFFLINE || env.TRANSFORMERS_OFFLINE),
    timeout: timeout > 0 ? timeout : 10,
    backoff: 1000,
  };
}

const isTrue = (value?: string): boolean => /^(1|on|yes|true)$/i.test(value ?? '');

/** A folder from a variable: ~ and $NAME as Python expands them. Empty counts as not set. */
function expand(value: string | undefined, env: Environment): string | undefined {
  if (!value) return undefined;
  const named = value.replace(/\$(\w+)|\$\{(\w+)\}/g, (all, a, b) => env[a ?? b] ?? all);
  return resolve(named.replace(/^~(?=$|[/\\])/, homedir()));
}

function endpointFrom(value: string): string {
  const url = URL.canParse(value) ? new URL(value) : undefined;
  if (!/^https?:$/.test(url?.protocol ?? ''))
    throw new HubError(
      `HF_ENDPOINT is no web address\n  ${value}\n  it should look like https://huggingface.co; unset it to use that`,
    );
  return value.replace(/\/+$/, '');
}

function tokenFrom(env: Environment, file: string): Pick<HubSettings, 'token' | 'tokenFrom'> {
  for (const name of ['HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN']) if (env[name]?.trim()) return checked(env[name], name);
  if (isTrue(env.HF_HUB_DISABLE_IMPLICIT_TOKEN)) return {};
  const text = readIfThere(file);
  return text.trim() ? checked(text, file) : {};
}

function readIfThere(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return ''; // nobody has logged in here
  }
}

function checked(text: string, from: string): Pick<HubSettings, 'token' | 'tokenFrom'> {
  const token = text.replace(/[\r\n]/g, '').trim();
  if (!/^[\x21-\x7e]+$/.test(token))
    throw new HubError(`the token of ${from} has spaces or letters that no token has\n  copy it again from the hub`);
  return { token, tokenFrom: from };
}
