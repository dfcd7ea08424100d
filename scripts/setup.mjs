#!/usr/bin/env node
// Makes a fresh machine ready: packages, and a WebGPU adapter. Safe to run any number of times.
//
//   node scripts/setup.mjs [--check] [--fallback] [--browser]
//     --check      only report; exit status 1 when something is missing
//     --fallback   use the software adapter from npm, though another may be installed
//     --browser    also look for a Chromium for the browser test, and install it by apt as root
//
// Only Node built-ins here and in setup/: it runs before the packages are there.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { canApt, driverWithoutLoader, install, installLavapipe } from './setup/apt.mjs';
import { setUpBrowser } from './setup/browser.mjs';
import { installPackagedAdapter } from './setup/packaged.mjs';
import { npm, root, say } from './setup/shell.mjs';

const NODE_MIN = 20;
const isCheckout = existsSync(join(root, 'src'));
const homeCache = join(homedir(), '.cache', 'rectiflow', 'adapter');
const cache = isCheckout ? join(root, '.cache', 'adapter') : homeCache;

const flags = process.argv.slice(2);
const stranger = flags.find((flag) => !['--check', '--fallback', '--browser'].includes(flag));
if (stranger) {
  console.error(`setup: unknown flag ${stranger}; there are --check, --fallback and --browser`);
  process.exit(2);
}
const checkOnly = flags.includes('--check');
const ready = checkNode() && setUpPackages() && setUpAdapter();
if (ready && flags.includes('--browser')) setUpBrowser(checkOnly);
process.exit(ready ? 0 : 1);

function checkNode() {
  const ok = Number(process.versions.node.split('.')[0]) >= NODE_MIN;
  if (!ok) say(`Node ${NODE_MIN} or newer is needed, this is ${process.versions.node}: https://nodejs.org`);
  return ok;
}

/** In a checkout: npm ci, when node_modules is not what package-lock.json says. No package of ours needs its install script. */
function setUpPackages() {
  const wanting = isCheckout && missingPackage();
  if (!wanting) return true;
  if (checkOnly) {
    say(`packages: ${wanting} is missing or out of date; run: npm run setup`);
    return false;
  }
  say(`installing packages (${wanting} is missing or out of date)`);
  const usual = ['--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
  return npm(['ci', ...usual]) || npm(['install', ...usual]);
}

/** The first package whose installed version is not the locked one. Another platform's binaries may be absent. */
function missingPackage() {
  const read = (file) =>
    existsSync(join(root, file)) ? JSON.parse(readFileSync(join(root, file), 'utf8')).packages : undefined;
  const locked = read('package-lock.json') ?? {};
  const installed = read('node_modules/.package-lock.json');
  if (!installed) return 'node_modules';
  const { dependencies, optionalDependencies, devDependencies } = JSON.parse(
    readFileSync(join(root, 'package.json'), 'utf8'),
  );
  for (const name of Object.keys({ ...dependencies, ...optionalDependencies, ...devDependencies })) {
    if (!existsSync(join(root, 'node_modules', name, 'package.json'))) return name;
  }
  for (const [path, { version, optional }] of Object.entries(locked)) {
    if (path === '' || (optional && !installed[path])) continue;
    if (installed[path]?.version !== version) return path.replace(/^node_modules\//, '');
  }
  return undefined;
}

function setUpAdapter() {
  if (flags.includes('--fallback') && !checkOnly) return usePackaged();
  const packaged = [join(root, '.cache', 'adapter'), homeCache].map((folder) => join(folder, 'swiftshader'));
  const found =
    probe() ??
    packaged
      .filter((folder) => existsSync(folder))
      .map((folder) => probe(folder))
      .find(Boolean);
  if (found) return announce(found);
  if (checkOnly) {
    say('no WebGPU adapter; run: npm run setup');
    return false;
  }
  say('no WebGPU adapter; looking for one to install');
  if (process.platform === 'linux') return setUpLinux();
  if (process.platform === 'darwin')
    say('macOS 12 and newer have Metal: no adapter here means a virtual machine without a GPU, or an older system');
  else if (process.platform === 'win32')
    say('Windows 10 and newer have D3D12 and, without a GPU, WARP: update Windows and the graphics driver');
  else say(`${process.platform} is not supported by Dawn for Node`);
  return false;
}

function setUpLinux() {
  const { glibcVersionRuntime: glibc } = process.report.getReport().header;
  if (!glibc || Number(glibc.split('.')[1]) < 34) {
    say(`Dawn for Node needs glibc 2.34 or newer (Debian 12, Ubuntu 22.04), this has ${glibc ?? 'another C library'}`);
    return false;
  }
  if (canApt()) {
    if (driverWithoutLoader() && install(['libvulkan1'])) {
      const found = probe();
      if (found) return announce(found);
    }
    if (installLavapipe()) {
      const found = probe();
      if (found) return announce(found);
      say('installed, but Dawn still finds no adapter');
    }
  } else {
    say('not root, or no apt: taking a software adapter from npm. With root, Mesa is about five times faster:');
    say('  Debian 13, Ubuntu 24.04:  sudo apt-get install mesa-vulkan-drivers libvulkan1');
    say('  Debian 12:                sudo apt-get install -t bookworm-backports mesa-vulkan-drivers libvulkan1');
    say('  Fedora:                   sudo dnf install mesa-vulkan-drivers vulkan-loader');
    say('  Arch:                     sudo pacman -S vulkan-swrast vulkan-icd-loader');
  }
  return usePackaged();
}

function usePackaged() {
  const folder = installPackagedAdapter(cache);
  const found = folder && probe(folder);
  if (found) return announce(found);
  if (folder) say('unpacked, but Dawn finds no adapter in it');
  return false;
}

/** The adapter that Dawn finds (in a packaged folder, when one is given), or undefined. */
function probe(folder) {
  const script = join(root, 'scripts', 'setup', 'probe.mjs');
  const { stdout } = spawnSync(process.execPath, [script, ...(folder ? [folder] : [])], {
    cwd: root,
    encoding: 'utf8',
    timeout: 60_000,
  });
  try {
    const answer = JSON.parse(stdout.trim().split('\n').at(-1));
    if (answer.error && !/no adapter/.test(answer.error)) say(answer.error.split('\n')[0]);
    return answer.error ? undefined : { ...answer, folder };
  } catch {
    return undefined; // the driver took the process down
  }
}

function announce({ name, software, folder }) {
  say(`adapter: ${name}${software ? ' (software)' : ''}${folder ? `, from ${folder}` : ''}`);
  return true;
}
