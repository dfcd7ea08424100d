// The command line alone, quickly: what `node cli` runs when a source is newer than dist/cli.
import { readdirSync, renameSync, rmSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { bundle, root } from './bundle.mjs';

/** src/cli/main.ts → dist/cli/main.mjs and its chunks. Built beside and moved in, so that two builds cannot mix. */
export async function buildCli() {
  const built = join(root, 'dist', `.cli-${process.pid}`);
  const target = join(root, 'dist', 'cli');
  try {
    await bundle({ main: 'src/cli/main.ts' }, built);
    mkdirSync(target, { recursive: true });
    // main.mjs last: what it imports is there before it is.
    const files = readdirSync(built).sort((a, b) => Number(a.startsWith('main.')) - Number(b.startsWith('main.')));
    const stale = readdirSync(target).filter((file) => !files.includes(file));
    for (const file of files) renameSync(join(built, file), join(target, file));
    for (const file of stale) rmSync(join(target, file), { recursive: true, force: true });
  } finally {
    rmSync(built, { recursive: true, force: true });
  }
}
