import { DeviceLostError } from '../kernels/index.ts';

/** A device that is lost so often is not opened again. */
const MOST = 3;

/**
 * Do work that goes on where it was left: when the device is lost, on another one.
 * @throws DeviceLostError when that has happened three times
 */
export async function keepGoing(
  work: () => Promise<void>,
  reopen: () => Promise<unknown>,
  say: (line: string) => void,
): Promise<void> {
  for (let losses = 1; ; losses++) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof DeviceLostError) || losses === MOST) throw error;
      say(
        `the GPU device was lost (${error.reason}): opening another and going on from the last checkpoint\n${error.details}`,
      );
      await reopen();
    }
  }
}
