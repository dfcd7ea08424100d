// npm run build → dist/: engine, index and node.mjs, browser/ (engine and index, minified), types/, cli/main.mjs. Prints the
// engine's size.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { buildCli } from './build-cli.mjs';
import { bundle, root } from './bundle.mjs';

const BROWSER_LIMIT = 100_000; // bytes, gzipped
const dist = join(root, 'dist');
let metafile;

try {
  mkdirSync(dist, { recursive: true });
  rmSync(join(dist, 'browser'), { recursive: true, force: true });
  rmSync(join(dist, 'types'), { recursive: true, force: true });
  for (const file of readdirSync(dist)) if (/\.mjs(\.map)?$/.test(file)) rmSync(join(dist, file));
  // Whoever imports two of the entries has one engine: what they share lies in chunks.
  const entries = { engine: 'src/engine.ts', index: 'src/index.ts' };
  await bundle({ ...entries, node: 'src/node.ts' }, dist);
  ({ metafile } = await bundle(entries, join(dist, 'browser'), 'browser', { minify: true, metafile: true }));
  await buildCli();
} catch {
  process.exit(1); // esbuild has printed why
}
const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
if (spawnSync(process.execPath, [tsc, '-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' }).status !== 0)
  process.exit(1);

// The declarations speak of GPUDevice and its kin, which come with the webgpu package.
for (const name of ['engine', 'index', 'node']) {
  const types = join(dist, 'types', `${name}.d.ts`);
  writeFileSync(types, `/// <reference types="@webgpu/types" />\n${readFileSync(types, 'utf8')}`);
}

/** An entry and all it imports at once, in bytes: as they are, and gzipped one by one, as a server sends them. */
function sizes(entry) {
  const outputs = new Map(Object.entries(metafile.outputs).map(([file, output]) => [basename(file), output]));
  const files = new Set();
  const visit = (file) => {
    if (files.has(file)) return;
    files.add(file);
    for (const { path } of outputs.get(file).imports) visit(basename(path));
  };
  visit(entry);
  const parts = [...files].map((file) => readFileSync(join(dist, 'browser', file)));
  return {
    plain: parts.reduce((n, part) => n + part.length, 0),
    gzipped: parts.reduce((n, part) => n + gzipSync(part, { level: 9 }).length, 0),
  };
}
const kB = (bytes) => `${(bytes / 1000).toFixed(1)} kB`;
const [engine, all] = [sizes('engine.mjs'), sizes('index.mjs')];
console.log(
  `browser engine:  ${kB(engine.gzipped)} gzipped, ${kB(engine.plain)} minified (limit ${kB(BROWSER_LIMIT)} gzipped)`,
);
console.log(`browser library: ${kB(all.gzipped)} gzipped, ${kB(all.plain)} minified`);
if (engine.gzipped > BROWSER_LIMIT) process.exitCode = 1;
