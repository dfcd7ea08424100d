import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { packagedAdapterFolders } from '../src/kernels/platform/node.ts';
import { skip } from './skip.ts';

const doctor = (argv: string[], env: Record<string, string> = {}) =>
  spawnSync(process.execPath, ['cli', 'doctor', ...argv], { encoding: 'utf8', env: { ...process.env, ...env } });

const test = suite('doctor');

test('tells the adapter, its limits and toggles, and that every kernel agrees with its reference', () => {
  const { status, stdout } = doctor(['--json']);
  assert.is(status, 0);
  const report = JSON.parse(stdout);
  assert.ok(report.adapter.name && report.adapter.toggles && report.limits['one binding']);
  assert.ok(report.tests.length >= 10);
  for (const { name, ok } of report.tests) assert.ok(ok, name);
});

const noAdapter = 'without an adapter it says what to install, with status 1';
if (process.platform !== 'linux' || packagedAdapterFolders().some((folder) => existsSync(folder))) {
  skip(test, noAdapter, 'the adapter of this machine cannot be hidden');
} else {
  test(noAdapter, () => {
    const hidden = '/nonexistent/icd.json';
    const { status, stderr } = doctor([], { VK_DRIVER_FILES: hidden, VK_ICD_FILENAMES: hidden });
    assert.is(status, 1);
    assert.match(stderr, /no WebGPU adapter[\s\S]*mesa-vulkan-drivers[\s\S]*doctor --fix/);
  });
}

test.run();
