import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Collect what earlier tests dropped, so that none of it is freed while a test counts memory. */
export async function collectGarbage(): Promise<void> {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  for (let i = 0; i < 3; i++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, 10)); // finalizers run between tasks
  }
}
