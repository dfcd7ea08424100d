// One esbuild configuration for everything: .wgsl files are text, packages stay outside, Node or browser decides #platform.
import { build } from 'esbuild';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('..', import.meta.url));

/** Kernels without comments and indentation, but line by line, as the engine's own edits want them. The first line names the kernel: its beginning will do. */
const smallKernels = {
  name: 'small kernels',
  setup: ({ onLoad }) =>
    onLoad({ filter: /\.wgsl$/ }, ({ path }) => {
      const [first, ...rest] = readFileSync(path, 'utf8').split('\n');
      const lines = rest.map((line) => line.replace(/\/\/.*$/, '').trim()).filter(Boolean);
      return { contents: [first.slice(0, 40), ...lines].join('\n'), loader: 'text' };
    }),
};

/** Bundle `entryPoints` (an array, or { name: file }) into `outdir` for 'node' or 'browser'. */
export function bundle(entryPoints, outdir, platform = 'node', options = {}) {
  return build({
    absWorkingDir: root,
    entryPoints,
    outdir,
    platform,
    bundle: true,
    format: 'esm',
    splitting: true,
    sourcemap: true,
    target: platform === 'node' ? 'node20' : 'es2022',
    packages: platform === 'node' ? 'external' : 'bundle',
    conditions: platform === 'browser' ? ['browser'] : ['node'],
    loader: { '.wgsl': 'text' },
    plugins: options.minify ? [smallKernels] : [],
    outExtension: { '.js': '.mjs' },
    logLevel: 'warning',
    ...options,
  });
}
