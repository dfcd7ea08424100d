// One esbuild configuration for everything: .wgsl files are text, packages stay outside, Node or browser decides #platform.
import { build } from 'esbuild';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('..', import.meta.url));

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
    outExtension: { '.js': '.mjs' },
    logLevel: 'warning',
    ...options,
  });
}
