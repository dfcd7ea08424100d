// Saying what set-up does, and running other programs. Only Node built-ins.
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

export const say = (line) => console.log(`setup: ${line}`);

/** Run a program; true when it succeeds. What it prints is shown only when it fails. */
export function run(program, args, options = {}) {
  const { status, error, stdout, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    ...options,
  });
  if (status === 0) return true;
  say(`failed: ${program} ${args.join(' ')}`);
  const output = error ? error.message : `${stdout}\n${stderr}`;
  for (const line of output
    .split('\n')
    .filter((line) => line.trim())
    .slice(-8))
    console.log(`    ${line}`);
  return false;
}

/** What a program prints, or '' when it fails or does not exist. */
export function outputOf(program, args, options = {}) {
  const { status, stdout } = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 1 << 28, ...options });
  return status === 0 ? stdout : '';
}

/** Run npm with the same Node as this, whether or not npm started us. */
export function npm(args, options = {}) {
  const script = process.env.npm_execpath;
  if (script?.endsWith('npm-cli.js')) return run(process.execPath, [script, ...args], { cwd: root, ...options });
  return run('npm', args, { cwd: root, shell: process.platform === 'win32', ...options });
}
