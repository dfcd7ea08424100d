// Loads a package from this folder's own node_modules, whatever file asks for it.
import { createRequire } from 'node:module';

export const load = (name) => import(name);
export const versionOf = (name) => createRequire(import.meta.url)(`./node_modules/${name}/package.json`).version;
export const folderOf = (name) => new URL(`./node_modules/${name}/`, import.meta.url).pathname;
