// A software adapter from npm alone: SwiftShader and a Vulkan loader, out of @sparticuz/chromium (MIT, Linux x64).
// About five times slower than Mesa's lavapipe, but it needs neither root nor a system package.
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';
import { npm, say } from './shell.mjs';
import { readTar } from './tar.mjs';

const PACKAGE = '@sparticuz/chromium@147.0.0'; // the last one for Node 20; its SwiftShader asks for glibc 2.17 only
const ARCHIVE = 'package/bin/swiftshader.tar.br';
const FILES = ['libvk_swiftshader.so', 'libvulkan.so.1', 'vk_swiftshader_icd.json'];

/** Download and unpack it into `cache`/swiftshader, unless it is there. Returns the folder, or undefined with a message. */
export function installPackagedAdapter(cache) {
  const folder = join(cache, 'swiftshader');
  if (isComplete(folder)) return folder;
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    say(`the software adapter from npm is for Linux on x64 only, this is ${process.platform} on ${process.arch}`);
    return undefined;
  }
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(cache, 'unpack-'));
  try {
    say(`fetching ${PACKAGE} from npm (70 MB, once) for its SwiftShader`);
    if (!npm(['pack', PACKAGE, '--pack-destination', work, '--ignore-scripts', '--silent'])) return undefined;
    const tarball = readdirSync(work).find((file) => file.endsWith('.tgz'));
    if (!tarball) return undefined;
    unpackSwiftShader(readFileSync(join(work, tarball)), join(work, 'swiftshader'));
    rmSync(folder, { recursive: true, force: true });
    renameSync(join(work, 'swiftshader'), folder); // in one move: never half there
    say(`unpacked into ${folder}`);
    return folder;
  } catch (error) {
    say(`could not unpack it: ${error.message}`);
    return undefined;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** From the npm tarball (.tgz) take the inner archive, and from that the three files. */
export function unpackSwiftShader(tarball, folder) {
  const inner = [...readTar(gunzipSync(tarball))].find(({ name }) => name === ARCHIVE);
  if (!inner) throw new Error(`${ARCHIVE} is not in the package`);
  mkdirSync(folder, { recursive: true });
  for (const { name, data } of readTar(brotliDecompressSync(inner.data))) {
    const file = name.split('/').at(-1);
    if (FILES.includes(file)) writeFileSync(join(folder, file), data, { mode: 0o755 });
  }
  if (!isComplete(folder))
    throw new Error(`the package lacks ${FILES.filter((file) => !existsSync(join(folder, file))).join(', ')}`);
}

const isComplete = (folder) => FILES.every((file) => existsSync(join(folder, file)));
