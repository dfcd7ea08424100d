// One esbuild configuration for everything: .wgsl files are text, packages stay outside, Node or browser decides #platform.
import { build } from 'esbuild';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
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

/** `import code from 'worker:./thread.ts'`: a file and what it imports as one text, for a thread to begin with. */
const workers = {
  name: 'workers',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^worker:/ }, ({ path, resolveDir }) => ({
      path: join(resolveDir, path.slice('worker:'.length)),
      namespace: 'worker',
    }));
    onLoad({ filter: /.*/, namespace: 'worker' }, async ({ path }) => {
      const options = {
        bundle: true,
        write: false,
        platform: 'node',
        format: 'cjs',
        target: 'node20',
        packages: 'external',
      };
      const { outputFiles } = await build({ ...options, entryPoints: [path], banner: { js: workerPaths } });
      return { contents: outputFiles[0].text, loader: 'text' };
    });
  },
};

/** Text has no place of its own to look for packages from. */
const workerPaths = "module.paths = require('node:worker_threads').workerData.paths;";

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
    plugins: [...(options.minify ? [smallKernels] : []), ...(platform === 'node' ? [workers] : [])],
    outExtension: { '.js': '.mjs' },
    logLevel: 'warning',
    ...options,
  });
}
