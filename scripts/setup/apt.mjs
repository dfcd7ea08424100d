// Debian and Ubuntu: a Vulkan loader, Mesa's lavapipe and Chromium by apt. Everything here needs root.
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { outputOf, run, say } from './shell.mjs';

const MESA_MIN = [24, 2]; // Dawn refuses older ones: lavapipe 22.3 of Debian 12 lacks what it asks for
const SOURCE_FILE = '/etc/apt/sources.list.d/rectiflow-backports.sources';
const ENV = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' };

export const canApt = () =>
  process.platform === 'linux' && process.getuid?.() === 0 && outputOf('apt-get', ['--version']) !== '';

/** A GPU driver without a Vulkan loader: one small package is missing. */
export function driverWithoutLoader() {
  const drivers = ['/usr/share/vulkan/icd.d', '/etc/vulkan/icd.d'].some(
    (folder) => existsSync(folder) && readdirSync(folder).length > 0,
  );
  const triplets = ['x86_64-linux-gnu', 'aarch64-linux-gnu', ''];
  const loader = triplets.some((triplet) =>
    ['/usr/lib', '/lib', '/usr/lib64'].some((lib) => existsSync(join(lib, triplet, 'libvulkan.so.1'))),
  );
  return drivers && !loader;
}

/** Install packages, with `-t suite` when one is named. */
export function install(packages, suite) {
  say(`apt-get install ${packages.join(' ')}${suite ? ` from ${suite}` : ''}`);
  return run(
    'apt-get',
    ['install', '-y', '-q', '--no-install-recommends', ...(suite ? ['-t', suite] : []), ...packages],
    { env: ENV },
  );
}

/** Is there a version to install? Docker images come without package lists, so look again after an update. */
export function available(name) {
  if (versions(name).length > 0) return true;
  update();
  return versions(name).length > 0;
}

/** mesa-vulkan-drivers ≥ 24.2 and the loader: from the machine's own suites, else from Debian's backports. */
export function installLavapipe() {
  const packages = ['mesa-vulkan-drivers', 'libvulkan1'];
  if (!available('mesa-vulkan-drivers')) {
    say('apt knows no mesa-vulkan-drivers');
    return false;
  }
  const candidate =
    outputOf('apt-cache', ['policy', 'mesa-vulkan-drivers'], { env: ENV }).match(/Candidate: (\S+)/)?.[1] ?? '';
  if (isNewEnough(candidate)) return install(packages);
  const { ID, VERSION_CODENAME } = osRelease();
  if (ID !== 'debian' || !VERSION_CODENAME) {
    say(`mesa-vulkan-drivers ${candidate} is too old (${MESA_MIN.join('.')} is the oldest that Dawn takes)`);
    return false;
  }
  const backports = `${VERSION_CODENAME}-backports`;
  if (versions('mesa-vulkan-drivers').some(isNewEnough)) return install(packages, backports);
  if (!addBackports(VERSION_CODENAME, backports)) return false;
  if (versions('mesa-vulkan-drivers').some(isNewEnough) && install(packages, backports)) return true;
  say(`${backports} did not help; removing ${SOURCE_FILE}`);
  rmSync(SOURCE_FILE, { force: true });
  return false;
}

/** Name the backports suite of the mirror that this machine already uses. */
function addBackports(codename, backports) {
  const format = '$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SOURCESENTRY)';
  const targets = outputOf('apt-get', ['indextargets', '--format', format, 'Created-By: Packages'], { env: ENV });
  const main = targets
    .split('\n')
    .map((line) => line.split('|'))
    .find(([, release, part]) => release === codename && part === 'main');
  if (!main) {
    say(`no entry for ${codename} main among apt's sources`);
    return false;
  }
  const [uri, , , entry] = main;
  const signedBy = signingKey(entry.replace(/:\d+$/, ''));
  say(`adding ${backports} to apt's sources, as ${SOURCE_FILE}`);
  const lines = ['Types: deb', `URIs: ${uri}`, `Suites: ${backports}`, 'Components: main'];
  if (signedBy) lines.push(`Signed-By: ${signedBy}`);
  writeFileSync(SOURCE_FILE, `${lines.join('\n')}\n`);
  update(SOURCE_FILE);
  return true;
}

/** The key file that a source file (.sources or .list) names. */
function signingKey(file) {
  const found = existsSync(file) && readFileSync(file, 'utf8').match(/signed-by\s*[:=]\s*(\/[^\s\],]+)/i);
  return found ? found[1] : undefined;
}

/** Fetch the package lists: all, or those of one source file. A source that fails is not fatal: what counts is what is then known. */
function update(file) {
  say(`apt-get update${file ? ` for ${file}` : ''}`);
  const only = file
    ? ['-o', `Dir::Etc::sourcelist=${file}`, '-o', 'Dir::Etc::sourceparts=-', '-o', 'APT::Get::List-Cleanup=0']
    : [];
  run('apt-get', ['update', '-q', ...only], { env: ENV });
}

const versions = (name) =>
  outputOf('apt-cache', ['madison', name], { env: ENV })
    .split('\n')
    .filter(Boolean)
    .map((line) => line.split('|')[1].trim());

function isNewEnough(version) {
  const [major, minor] = version.replace(/^\d+:/, '').split('.').map(Number);
  return major > MESA_MIN[0] || (major === MESA_MIN[0] && minor >= MESA_MIN[1]);
}

function osRelease() {
  const lines = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8').split('\n') : [];
  return Object.fromEntries(
    lines.map((line) => line.split('=')).map(([key, value = '']) => [key, value.replaceAll('"', '')]),
  );
}
