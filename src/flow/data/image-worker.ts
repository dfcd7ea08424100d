/** Runs in a thread of its own: image files in, squares of pixels out, one at a time. See image-workers.ts. */
import { parentPort } from 'node:worker_threads';
import sharp from 'sharp';
import { readSquare } from './square.ts';
import type { Square } from './square.ts';

sharp.concurrency(1); // there are as many threads as were asked for
sharp.cache(false);

parentPort!.on('message', async (square: Square) => {
  try {
    const pixels = Uint8Array.from(await readSquare(square)); // a buffer of its own, to be handed over
    parentPort!.postMessage({ pixels }, [pixels.buffer]);
  } catch (error) {
    parentPort!.postMessage({ reason: (error as Error).message });
  }
});
