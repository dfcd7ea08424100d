/** Threads that decode and scale images (Node only). */
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { Worker } from 'node:worker_threads';
import code from 'worker:./image-worker.ts';
import { readSquare } from './square.ts';
import type { Square } from './square.ts';

/** Reads so many squares `atOnce`. */
export interface SquareReader {
  atOnce: number;
  /** → [resolution, resolution, 3] @throws Error with what is wrong with the file */
  read(square: Square): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** With `count` threads of its own; 0 uses libvips's. The pixels are the same. */
export function squareReader(count: number): SquareReader {
  if (count === 0) return { atOnce: 4, read: readSquare, close: async () => {} };
  // The code comes as text, so it looks for packages where this file does.
  const workerData = { paths: createRequire(import.meta.url).resolve.paths('sharp') };
  const workers = new Set<Worker>();
  const start = () => {
    const worker = new Worker(code, { eval: true, workerData });
    workers.add(worker);
    return worker;
  };
  const idle = Array.from({ length: count }, start);
  return {
    atOnce: count,
    async read(square) {
      const worker = idle.pop()!;
      const answer = await ask(worker, square).catch((error) => {
        workers.delete(worker);
        idle.push(start()); // for the next image
        throw error;
      });
      idle.push(worker);
      if (answer.pixels) return answer.pixels;
      throw new Error(answer.reason);
    },
    close: async () => void (await Promise.all([...workers].map((worker) => worker.terminate()))),
  };
}

type Answer = { pixels: Uint8Array; reason?: undefined } | { pixels?: undefined; reason: string };

function ask(worker: Worker, square: Square): Promise<Answer> {
  const over = new AbortController(); // of what is listened to below, once one of it has come
  const { signal } = over;
  const answer = Promise.race([
    once(worker, 'message', { signal }).then(([answer]) => answer as Answer), // 'error' rejects it
    once(worker, 'exit', { signal }).then(([status]): Answer => {
      throw new Error(`a thread that reads images ended with ${status}`);
    }),
  ]).finally(() => over.abort());
  worker.postMessage(square);
  return answer;
}
