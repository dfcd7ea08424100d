import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { dirname, extname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { chromium } from 'playwright-core';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { findBrowser } from '../scripts/setup/browser.mjs';
import type { Results } from './browser/suite.ts';
import { skip } from './skip.ts';

const executable: string | undefined = findBrowser();
// Not bundled into this test: the script finds the checkout by its own place.
const { bundle, root } = await import(pathToFileURL(resolve('scripts/bundle.mjs')).href);
const test = suite('browser');
const name =
  'the same bundle does every function, its gradients, a U-Net and twenty training steps in Chromium as in Node';

if (!executable) skip(test, name, 'no Chromium here; install it with "node scripts/setup.mjs --browser"');
else {
  test(name, async () => {
    const out = mkdtempSync(join(root, '.build', 'browser-'));
    try {
      await bundle({ page: 'test/browser/page.ts' }, join(out, 'web'), 'browser', { splitting: false, minify: true });
      await bundle({ node: 'test/browser/node.ts' }, join(out, 'node'), 'node', { splitting: false });
      assert.not.match(readFileSync(join(out, 'web/page.mjs'), 'utf8'), /from "node:/);
      const web = await inChromium(join(out, 'web'));
      const node = await inNode(join(out, 'node/node.mjs'), dirname(executable));
      compare(web, node);
    } finally {
      rmSync(out, { recursive: true, force: true });
    }
  });
}

/** Bit for bit on one adapter; elsewhere to a relative 1e-4 of the largest number. Says which. */
function compare(web: Results, node: Results): void {
  const same = /swiftshader/i.test(web.adapter) && /swiftshader/i.test(node.adapter);
  console.log(
    `\n  Chromium: ${web.adapter}\n  Node:     ${node.adapter}\n  compared ${same ? 'bit for bit' : 'within tolerance'}`,
  );
  assert.equal(Object.keys(web.values), Object.keys(node.values));
  for (const [key, want] of Object.entries(node.values)) {
    const got = web.values[key];
    assert.is(got.length, want.length, key);
    const [mine, theirs] = [floats(got), floats(want)];
    if (same) {
      const at = want.findIndex((word, i) => word !== got[i]);
      assert.is(at, -1, `${key}[${at}]: ${mine[at]} in Chromium, ${theirs[at]} in Node`);
      continue;
    }
    const largest = Math.max(...theirs.map(Math.abs));
    theirs.forEach((v, i) =>
      assert.ok(Math.abs(mine[i] - v) <= 1e-4 * largest, `${key}[${i}]: ${mine[i]} in Chromium, ${v} in Node`),
    );
  }
}

const floats = (words: number[]): Float32Array => new Float32Array(Uint32Array.from(words).buffer);

async function inChromium(folder: string): Promise<Results> {
  const types: Record<string, string> = { '.mjs': 'text/javascript', '.html': 'text/html', '.map': 'application/json' };
  writeFileSync(
    join(folder, 'index.html'),
    '<!doctype html><title>rectiflow</title><script type="module" src="page.mjs"></script>',
  );
  const server = createServer((request, response) => {
    const file = join(folder, request.url === '/' ? 'index.html' : resolve('/', request.url ?? ''));
    if (!existsSync(file)) return response.writeHead(404).end();
    response.writeHead(200, { 'content-type': types[extname(file)] ?? 'text/plain' }).end(readFileSync(file));
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  const browser = await chromium.launch({ executablePath: executable, headless: true, args: BROWSER_FLAGS });
  try {
    const page = await browser.newPage();
    const broken = new Promise<never>((_, reject) => page.on('pageerror', reject));
    await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
    await Promise.race([page.waitForFunction(() => 'results' in globalThis, undefined, { timeout: 120_000 }), broken]);
    const results = await page.evaluate(
      () => (globalThis as unknown as { results: Results & { error?: string } }).results,
    );
    if (results.error) throw new Error(`in Chromium: ${results.error}`);
    return results;
  } finally {
    await browser.close();
    server.close();
  }
}

const BROWSER_FLAGS = [
  '--no-sandbox',
  '--enable-unsafe-webgpu',
  '--use-webgpu-adapter=swiftshader',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--no-first-run',
];

/** Node on the browser's own software adapter where its driver lies beside it, else on the usual one. */
async function inNode(file: string, folder: string): Promise<Results> {
  const icd = [folder, '/usr/lib/chromium', '/usr/lib/chromium-browser']
    .map((f) => join(f, 'vk_swiftshader_icd.json'))
    .find(existsSync);
  const env = icd ? { ...process.env, VK_DRIVER_FILES: icd, VK_ICD_FILENAMES: icd } : process.env;
  const { stdout } = await promisify(execFile)(process.execPath, [file], { env, maxBuffer: 2 ** 28 });
  return JSON.parse(stdout);
}

test.run();
