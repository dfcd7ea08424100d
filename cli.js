#!/usr/bin/env node
// From a checkout: rebuild dist/cli when a source is newer, then run it. From an installed package: run it.
import { existsSync, readdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = dirname(fileURLToPath(import.meta.url));
const main = join(root, 'dist', 'cli', 'main.mjs');

/** When the newest of the sources was changed. */
function newest(folder) {
  const times = readdirSync(folder, { withFileTypes: true }).map((entry) =>
    entry.isDirectory() ? newest(join(folder, entry.name)) : statSync(join(folder, entry.name)).mtimeMs,
  );
  return Math.max(0, statSync(folder).mtimeMs, ...times);
}

function isStale() {
  if (!existsSync(join(root, 'src'))) return false;
  if (!existsSync(main)) return true;
  const built = statSync(main).mtimeMs;
  return Math.max(newest(join(root, 'src')), statSync(join(root, 'package.json')).mtimeMs) > built;
}

if (isStale()) {
  if (!existsSync(join(root, 'node_modules'))) {
    console.error('node_modules is missing; run: npm run setup');
    process.exit(1);
  }
  console.error('building…');
  const { buildCli } = await import(pathToFileURL(join(root, 'scripts', 'build-cli.mjs')).href);
  await buildCli().catch(() => process.exit(1)); // esbuild has printed why
}
process.setSourceMapsEnabled?.(true);
await import(pathToFileURL(main).href);
