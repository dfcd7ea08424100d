// npm run build → dist/: index.mjs (Node), browser/index.mjs (minified), types/, cli/main.mjs. Prints the engine's size.
import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { buildCli } from './build-cli.mjs';
import { bundle, root } from './bundle.mjs';

const BROWSER_LIMIT = 100_000; // bytes, gzipped
const dist = join(root, 'dist');

try {
  rmSync(join(dist, 'browser'), { recursive: true, force: true });
  rmSync(join(dist, 'types'), { recursive: true, force: true });
  await bundle({ index: 'src/index.ts' }, dist, 'node', { splitting: false });
  await bundle({ index: 'src/index.ts' }, join(dist, 'browser'), 'browser', { minify: true, splitting: false });
  await buildCli();
} catch {
  process.exit(1); // esbuild has printed why
}
const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
if (spawnSync(process.execPath, [tsc, '-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' }).status !== 0)
  process.exit(1);

// The declarations speak of GPUDevice and its kin, which come with the webgpu package.
const types = join(dist, 'types', 'index.d.ts');
writeFileSync(types, `/// <reference types="@webgpu/types" />\n${readFileSync(types, 'utf8')}`);

const browser = readFileSync(join(dist, 'browser', 'index.mjs'));
const size = gzipSync(browser, { level: 9 }).length;
const kB = (bytes) => `${(bytes / 1000).toFixed(1)} kB`;
console.log(`browser engine: ${kB(size)} gzipped, ${kB(browser.length)} minified (limit ${kB(BROWSER_LIMIT)} gzipped)`);
if (size > BROWSER_LIMIT) process.exitCode = 1;
