// Prints one line of JSON about the WebGPU adapter Dawn finds, or {"error": …}:  node probe.mjs [folder of a packaged adapter]
// A process of its own, because a driver that crashes must not take set-up with it. Opens an adapter as
// src/kernels/platform/node.ts does.
import { join } from 'node:path';

const NOW_GLOBAL_NODELETE = 0x1102;

async function describeAdapter(folder) {
  if (folder) {
    process.env.VK_ICD_FILENAMES = process.env.VK_DRIVER_FILES = join(folder, 'vk_swiftshader_icd.json');
    try {
      process.dlopen({ exports: {} }, join(folder, 'libvulkan.so.1'), NOW_GLOBAL_NODELETE);
    } catch {
      // It is no Node add-on, so Node complains; the library stays loaded, which is what Dawn needs.
    }
  }
  const { create } = await import('webgpu');
  for (const flags of process.platform === 'win32' ? [[], ['adapter=Microsoft']] : [[]]) {
    try {
      globalThis.gpu = create(flags); // kept: dropping it aborts the process
      const adapter = await globalThis.gpu.requestAdapter();
      if (!adapter) continue;
      const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info;
      const words = [vendor, architecture, device, description].filter(Boolean);
      const software = isFallbackAdapter || /llvmpipe|swiftshader|software|basic render/i.test(words.join(' '));
      return { name: description || device || words.join(' '), software: Boolean(software) };
    } catch (error) {
      if (!/adapter/i.test(error.message)) throw error;
    }
  }
  return { error: 'Dawn finds no adapter' };
}

console.log(JSON.stringify(await describeAdapter(process.argv[2]).catch((error) => ({ error: error.message }))));
