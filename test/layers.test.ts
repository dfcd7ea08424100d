import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const LAYERS = ['kernels', 'tensor', 'nn', 'flow', 'cli'];

/** Where Node may be used; everything else runs in browsers too. */
const NODE_ONLY = [
  /^kernels\/platform\/node\.ts$/,
  /^tensor\/io\/.*-node\.ts$/,
  /^flow\/(data|recipe)\//,
  /^cli\/(?!web\/)/,
  /^node\.ts$/,
];

/** Packages that run in browsers as well. */
const PORTABLE = ['@huggingface/tokenizers'];

const src = resolve('src');
const files = readdirSync(src, { recursive: true, encoding: 'utf8' })
  .map((file) => file.replaceAll('\\', '/'))
  .filter((file) => file.endsWith('.ts') && !file.endsWith('.d.ts'));

/** What a file imports, exports from, or loads lazily. */
function importsOf(file: string): string[] {
  const code = readFileSync(join(src, file), 'utf8');
  const pattern =
    /^\s*(?:import|export)\s[^'"`;]*?from\s*['"]([^'"]+)['"]|^\s*import\s*['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/gm;
  return [...code.matchAll(pattern)].map((match) => match[1] ?? match[2] ?? match[3]);
}

/** What users import; above all layers. */
const ENTRIES = ['engine.ts', 'index.ts', 'node.ts'];

/** The layer of a path under src, or -1 for an entry. */
const layerOf = (file: string) => LAYERS.indexOf(file.split('/')[0]);
const isNodeOnly = (file: string) => NODE_ONLY.some((pattern) => pattern.test(file));

const test = suite('layers');

test('every source is in a layer', () => {
  assert.equal(
    files.filter((file) => !ENTRIES.includes(file) && layerOf(file) < 0),
    [],
  );
});

test('kernels ← tensor ← nn ← flow ← cli: imports point left only', () => {
  const wrong: string[] = [];
  for (const file of files.filter((file) => layerOf(file) >= 0)) {
    for (const name of importsOf(file).filter((name) => name.startsWith('.'))) {
      const target = relative(src, resolve(src, dirname(file), name)).replaceAll('\\', '/');
      if (target.startsWith('..')) {
        if (layerOf(file) !== LAYERS.indexOf('cli')) wrong.push(`${file} imports ${name}, outside src`);
      } else if (layerOf(target) < 0 || layerOf(target) > layerOf(file)) wrong.push(`${file} imports ${target}`);
    }
  }
  assert.equal(wrong, []);
});

test('Node and npm packages are used only where browsers do not go', () => {
  const wrong: string[] = [];
  for (const file of files.filter((file) => !isNodeOnly(file))) {
    for (const name of importsOf(file)) {
      const local = name.startsWith('.') || name === '#platform' || PORTABLE.includes(name);
      const fine = local && !(layerOf(file) < LAYERS.indexOf('cli') && /-node\.ts$/.test(name));
      if (!fine) wrong.push(`${file} imports ${name}`);
    }
  }
  assert.equal(wrong, []);
});

test('no source asks which platform it is on by looking for window', () => {
  assert.equal(
    files.filter((file) => /typeof\s+(window|navigator|process)\b/.test(readFileSync(join(src, file), 'utf8'))),
    [],
  );
});

test.run();
