/** A worker as a child process: one request, one answer, a limit of time, and a stop while others are measured. */
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import type { Answer, Request } from './worker.ts';

const LIMIT_MS = 180_000;

/** Signals that freeze a process and let it go on; Windows has none, and there idle processes just idle. */
const canFreeze = process.platform !== 'win32';

export class PeerProcess {
  #child: ChildProcess | undefined;
  #log = '';

  constructor(readonly name: string) {}

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** @throws what the library said, or how its process ended */
  async ask<A extends Answer>(request: Request): Promise<Exclude<A, { error: string }>> {
    if (!this.#child) {
      this.#start();
      if (request.do !== 'open') await this.ask({ do: 'open' });
    }
    const child = this.#child!;
    if (canFreeze) child.kill('SIGCONT');
    let timer: NodeJS.Timeout | undefined;
    try {
      const answer = await new Promise<Answer>((resolve, reject) => {
        timer = setTimeout(() => reject(new Error(`no answer within ${LIMIT_MS / 1000} s`)), LIMIT_MS);
        child.once('message', (message) => resolve(message as Answer));
        child.once('exit', (code, signal) => reject(new Error(`its process ended (${signal ?? code}) ${this.#why()}`)));
        child.send(request);
      });
      if ('error' in answer) throw new Error(answer.error);
      if (canFreeze) child.kill('SIGSTOP');
      return answer as Exclude<A, { error: string }>;
    } catch (error) {
      this.end(); // what is left of a failed call would weigh on the next
      throw error;
    } finally {
      clearTimeout(timer);
      child.removeAllListeners('message').removeAllListeners('exit');
    }
  }

  end(): void {
    this.#child?.kill('SIGKILL');
    this.#child = undefined;
  }

  #start(): void {
    this.#log = '';
    this.#child = fork('scripts/run.mjs', ['bench/peers/worker.ts', this.name], {
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    this.#child.stderr!.on('data', (data) => (this.#log = (this.#log + data).slice(-4000)));
  }

  /** The line of its log that says most. */
  #why(): string {
    const lines = this.#log.split('\n').filter((line) => line.trim() && !line.startsWith('Warning'));
    return lines.find((line) => /error|what\(\)|terminate/i.test(line))?.trim() ?? lines.at(-1)?.trim() ?? '';
  }
}
