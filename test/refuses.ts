import * as assert from 'uvu/assert';

/** The promise fails, and with such a message. */
export async function refuses(promise: Promise<unknown>, message: RegExp): Promise<void> {
  const error = await promise.then(
    () => undefined,
    (e: Error) => e,
  );
  assert.match(error?.message ?? 'no error', message);
}
