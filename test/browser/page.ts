import { run } from './suite.ts';

run().then(
  (results) => Object.assign(globalThis, { results }),
  (error: Error) => Object.assign(globalThis, { results: { error: error.stack ?? String(error) } }),
);
