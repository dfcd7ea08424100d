// Bundle test/**/*.test.ts and run every file in a process of its own:  node test/run.mjs [filter …]
// A filter is part of a file's path. RECTIFLOW_TEST_TIMEOUT is the limit for one file, in seconds.
import { spawn } from 'node:child_process';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { bundle, root } from '../scripts/bundle.mjs';

const TIMEOUT = 1000 * (Number(process.env.RECTIFLOW_TEST_TIMEOUT) || 600);
const outdir = join(root, '.build', `test-${process.pid}`);

const filters = process.argv.slice(2).map((filter) => filter.replace(/^test\//, '').replace(/\.test\.ts$/, ''));
const names = readdirSync(join(root, 'test'), { recursive: true })
  .map((file) => file.replaceAll('\\', '/'))
  .filter((file) => file.endsWith('.test.ts'))
  .map((file) => file.slice(0, -'.test.ts'.length))
  .filter((name) => filters.length === 0 || filters.some((filter) => name.includes(filter)))
  .sort();

const total = { passed: 0, failed: 0, skipped: 0 };
const failures = [];
const skips = [];
let running;

process.on('exit', () => rmSync(outdir, { recursive: true, force: true }));
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    running?.kill('SIGKILL');
    process.exit(130);
  });
}

const broken = await bundleTests(names);
for (const name of names) {
  if (broken.has(name)) report(name, 0, { passed: 0, failed: 1, skipped: 0 }, broken.get(name), 'does not bundle');
  else await runFile(name);
}
for (const line of skips) console.log(line);
for (const line of failures) console.log(`failed: ${line}`);
if (names.length === 0) console.log(`no test file matches ${filters.join(' ')}`);
console.log(`${total.passed} passed, ${total.failed} failed${total.skipped ? `, ${total.skipped} skipped` : ''}`);
process.exit(total.failed > 0 || total.passed === 0 ? 1 : 0);

/** Bundle all files together; when that fails, one by one. Returns those that do not bundle, with the reason. */
async function bundleTests(names) {
  const broken = new Map();
  const options = { logLevel: 'silent' };
  const entries = (list) => Object.fromEntries(list.map((name) => [name, `test/${name}.test.ts`]));
  if (names.length === 0) return broken;
  try {
    await bundle(entries(names), outdir, 'node', options);
  } catch {
    for (const name of names) {
      try {
        await bundle(entries([name]), outdir, 'node', options);
      } catch (error) {
        broken.set(name, error.message);
      }
    }
  }
  return broken;
}

/** Run one bundled file; its uvu summary is counted, the rest of its output is shown when there is something to say. */
function runFile(name) {
  return new Promise((resolve) => {
    const start = performance.now();
    const child = spawn(process.execPath, ['--enable-source-maps', join(outdir, `${name}.mjs`)], {
      cwd: root,
      env: { FORCE_COLOR: '0', ...process.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    running = child;
    let stdout = '';
    let stderr = '';
    let timedOut = false;
    child.stdout.on('data', (data) => (stdout += data));
    child.stderr.on('data', (data) => (stderr += data));
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, TIMEOUT);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      const output = `${stdout}\n${stderr}`;
      const counts = summary(output);
      let problem;
      if (timedOut) problem = `stopped after ${TIMEOUT / 1000} s`;
      else if (signal) problem = `killed by ${signal}`;
      else if (counts === undefined) problem = `no test ran (exit status ${code}); does the file end with test.run()?`;
      else if (code !== 0 && counts.failed === 0) problem = `exit status ${code}`;
      const result = counts ?? { passed: 0, failed: 0, skipped: 0 };
      if (problem) result.failed++;
      report(name, performance.now() - start, result, output, problem);
      resolve();
    });
  });
}

/** Add up the blocks 'Total: 5  Passed: 4  Skipped: 0' that uvu prints, one per process. */
function summary(output) {
  let counts;
  for (const [, ran, passed, skipped] of output.matchAll(/Total:\s+(\d+)\s+Passed:\s+(\d+)\s+Skipped:\s+(\d+)/g)) {
    counts ??= { passed: 0, failed: 0, skipped: 0 };
    counts.passed += +passed;
    counts.failed += ran - passed;
    counts.skipped += +skipped;
  }
  return counts;
}

function report(name, ms, { passed, failed, skipped }, output, problem) {
  total.passed += passed;
  total.failed += failed;
  total.skipped += skipped;
  const lines = output.split('\n').filter((line) => line.trim() && !isNoise(line));
  for (const line of lines.filter((line) => /^\s*skipped:/.test(line)))
    skips.push(`skipped: ${name}: ${line.trim().slice(9)}`);
  const counts = `${passed} passed${failed ? `, ${failed} failed` : ''}${skipped ? `, ${skipped} skipped` : ''}`;
  console.log(`${failed ? '✗' : '✓'} ${name}  ${counts}  ${(ms / 1000).toFixed(1)} s${problem ? `  ${problem}` : ''}`);
  const shown = lines.filter((line) => !/^\s*skipped:/.test(line));
  for (const line of shown) console.log(`    ${line}`);
  if (failed) failures.push(`${name}${problem ? `: ${problem}` : ''}`);
}

/** uvu's dots and summary, and what Dawn says about every adapter. */
function isNoise(line) {
  return (
    /[•✘].*\(\d+ \/ \d+\)\s*$/.test(line) ||
    /^\s*(Total|Passed|Skipped|Duration):/.test(line) ||
    /^Warning: (maxDynamic\w+ artificially reduced|vkCreateInstance|Couldn't load Vulkan)/.test(line) ||
    /^\s*at .*\/third_party\/dawn\//.test(line)
  );
}
