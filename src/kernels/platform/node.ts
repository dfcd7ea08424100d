/** What Node does differently from a browser: opens Dawn, and waits for the GPU without burning a core. */
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const platform = 'node';

// Dropping the object that create() returns while a device lives aborts the process at the next collection.
const kept: GPU[] = [];

/** Dawn switches that are always on here; `doctor` prints them. Each is explained in docs/device.md. */
export const toggles = ['allow_unsafe_apis', 'vulkan_enable_f16_on_nvidia'];

/** The entry point of WebGPU, as `navigator.gpu` is in a browser. `adapter` picks one by a part of its name. */
export async function openGpu(options: { adapter?: string; enable?: string[]; disable?: string[] } = {}): Promise<GPU> {
  let webgpu;
  try {
    webgpu = await import('webgpu');
  } catch (error) {
    throw new Error(`WebGPU for Node could not be loaded: ${(error as Error).message}\n  npm install webgpu`);
  }
  Object.assign(globalThis, webgpu.globals);
  const adapter = options.adapter ?? process.env.RECTIFLOW_ADAPTER;
  const flags = [`enable-dawn-features=${[...toggles, ...(options.enable ?? [])].join(',')}`];
  if (options.disable?.length) flags.push(`disable-dawn-features=${options.disable.join(',')}`);
  if (adapter) flags.push(adapter === 'null' ? 'backend=null' : `adapter=${adapter}`);
  const open = () => {
    const gpu = webgpu.create(flags) as GPU;
    kept.push(gpu);
    return gpu;
  };
  const gpu = open();
  if (adapter === 'null' || (await gpu.requestAdapter().catch(() => null))) return gpu;
  if (process.platform === 'win32' && !adapter) return openGpu({ ...options, adapter: 'Microsoft' }); // WARP
  return loadPackagedAdapter() ? open() : gpu;
}

/** Folders in which set-up leaves a software adapter when the machine has none. */
export function packagedAdapterFolders(): string[] {
  const here = dirname(fileURLToPath(import.meta.url));
  const roots = [here, join(here, '..'), join(here, '../..'), join(here, '../../..'), process.cwd()];
  return [
    ...roots.map((root) => join(root, '.cache/adapter/swiftshader')),
    join(homedir(), '.cache/rectiflow/adapter/swiftshader'),
  ];
}

/** Opens SwiftShader and its Vulkan loader inside this process. */
function loadPackagedAdapter(): boolean {
  const folder = packagedAdapterFolders().find((f) => existsSync(join(f, 'vk_swiftshader_icd.json')));
  if (!folder) return false;
  process.env.VK_ICD_FILENAMES = process.env.VK_DRIVER_FILES = join(folder, 'vk_swiftshader_icd.json');
  const NOW_GLOBAL_NODELETE = 0x1102;
  try {
    process.dlopen({ exports: {} }, join(folder, 'libvulkan.so.1'), NOW_GLOBAL_NODELETE);
  } catch {
    // It is no Node add-on, so Node complains; the library stays loaded, which is what Dawn needs.
  }
  return true;
}

const sleeper = new Int32Array(new SharedArrayBuffer(4));

/**
 * Await a GPU promise. Dawn polls from setImmediate as long as one is pending, which takes most of a core from a software
 * adapter: poll freely for 0.3 ms, then nap for an eighth of the time waited so far (0.1–2 ms).
 */
export async function wait<T>(promise: Promise<T>): Promise<T> {
  let done = false;
  const settled = promise.finally(() => (done = true));
  settled.catch(() => {});
  const start = performance.now();
  for (;;) {
    await new Promise((resolve) => setImmediate(resolve));
    if (done) return settled;
    const waited = performance.now() - start;
    if (waited > 0.3) Atomics.wait(sleeper, 0, 0, Math.min(2, Math.max(0.1, waited / 8)));
  }
}
