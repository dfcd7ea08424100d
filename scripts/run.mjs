// Run one TypeScript file: node scripts/run.mjs file.ts [arguments]
import { basename, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { bundle, root } from './bundle.mjs';

const [file, ...rest] = process.argv.slice(2);
const name = basename(file, '.ts');
await bundle({ [name]: file }, join('.build', `run-${process.pid}`));
const out = join(root, '.build', `run-${process.pid}`, `${name}.mjs`);
process.argv = [process.argv[0], out, ...rest];
process.setSourceMapsEnabled(true);
await import(pathToFileURL(out).href);
