import type { Limits, Opened } from './device.ts';

/**
 * A device on paper, for `Gpu.on`: buffers have sizes but no memory, commands are taken and forgotten, what is read back is
 * zeros. All that the engine decides and counts is as on `like`: variants, divided arrays, `memory()`, `dispatches`.
 * `limits` replaces some of its limits.
 */
export function paperDevice(like: Opened, limits: Partial<Limits> = {}): Opened {
  const nothing = () => {};
  const settled = () => Promise.resolve();
  const none = () => ({});
  const pass = { setPipeline: nothing, setBindGroup: nothing, dispatchWorkgroups: nothing, end: nothing };
  const encoder = {
    beginComputePass: () => pass,
    copyBufferToBuffer: nothing,
    clearBuffer: nothing,
    finish: none,
  };
  const device = {
    queue: { submit: nothing, writeBuffer: nothing, onSubmittedWorkDone: settled },
    lost: new Promise(nothing),
    addEventListener: nothing,
    pushErrorScope: nothing,
    popErrorScope: () => Promise.resolve(null),
    createBuffer: () => ({
      destroy: nothing,
      unmap: nothing,
      mapAsync: settled,
      getMappedRange: (_: number, bytes: number) => new ArrayBuffer(bytes),
    }),
    createShaderModule: none,
    createComputePipelineAsync: () => Promise.resolve({}),
    createBindGroupLayout: none,
    createPipelineLayout: none,
    createBindGroup: none,
    createCommandEncoder: () => encoder,
    destroy: nothing,
  };
  return { ...like, device: device as unknown as GPUDevice, limits: { ...like.limits, ...limits } };
}
