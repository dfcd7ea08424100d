import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { command, flag } from '../command.ts';

export default command(
  'setup',
  'find a GPU adapter, or install a software one',
  {
    check: flag(false, 'only report; exit status 1 when there is no adapter'),
    fallback: flag(false, 'use the software adapter from npm even where another could be installed'),
    browser: flag(false, 'also look for a Chromium for the browser test, and install it where that is possible'),
  },
  (values) => {
    process.exitCode = runSetup(
      Object.entries(values)
        .filter(([, on]) => on)
        .map(([name]) => `--${name}`),
    );
  },
);

/** Run scripts/setup.mjs with the given flags; returns its exit status. `doctor --fix` calls this too. */
export function runSetup(flags: string[] = []): number {
  const script = join(packageRoot(), 'scripts', 'setup.mjs');
  return spawnSync(process.execPath, [script, ...flags], { stdio: 'inherit' }).status ?? 1;
}

/** The folder of package.json, from a bundle in dist/ or in .build/. */
function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'scripts', 'setup.mjs'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error('scripts/setup.mjs is missing from this installation of rectiflow');
    folder = parent;
  }
  return folder;
}
