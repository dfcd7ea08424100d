// Run one TypeScript file: node scripts/run.mjs file.ts [arguments]
import { rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { bundle, root } from './bundle.mjs';

const [file, ...rest] = process.argv.slice(2);
const name = basename(file, '.ts');
const folder = join(root, '.build', `run-${process.pid}`);
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
await bundle({ [name]: file }, folder);
const out = join(folder, `${name}.mjs`);
process.argv = [process.argv[0], out, ...rest];
process.setSourceMapsEnabled(true);
await import(pathToFileURL(out).href);
