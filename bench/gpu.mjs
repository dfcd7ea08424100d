// node bench/gpu.mjs [--minutes 9] [--out bench/results] [--only part …] [--python python3] [--small]
//     everything this project wants to know of a GPU, in one run: see docs/gpu-script.md
// node bench/gpu.mjs --pack FOLDER
//     put it into FOLDER, for a machine that has Node and the package webgpu and nothing else: node FOLDER/gpu.mjs
import { cpSync, existsSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const packed = join(here, 'gpu-script', 'main.mjs');

async function build(folder) {
  const { bundle } = await import('../scripts/bundle.mjs');
  await bundle({ main: 'bench/gpu/main.ts' }, folder, 'node', { external: ['webgpu'], packages: undefined });
  cpSync(join(here, 'gpu', 'torch_baseline.py'), join(folder, 'torch_baseline.py'));
}

const at = process.argv.indexOf('--pack');
if (at > 0) {
  const folder = process.argv[at + 1];
  if (!folder) {
    console.error('--pack: into which folder?');
    process.exit(2);
  }
  mkdirSync(folder, { recursive: true });
  await build(join(folder, 'gpu-script'));
  cpSync(fileURLToPath(import.meta.url), join(folder, 'gpu.mjs'));
  console.log(`there: node ${join(folder, 'gpu.mjs')}`);
} else {
  const folder = join(here, '..', '.build', 'gpu-script');
  if (!existsSync(packed)) await build(folder);
  await import(pathToFileURL(existsSync(packed) ? packed : join(folder, 'main.mjs')).href);
}
