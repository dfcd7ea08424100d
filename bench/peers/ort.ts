/** ONNX Runtime: from Node (its CPU and WebGPU providers) and from the web package (WebAssembly and WebGPU). */
import type { Operand } from '../work.ts';
import { graphOf } from './onnx-graphs.ts';
import { model } from './onnx.ts';
import { folderOf, load, permuted, pretendBrowser, versionOf } from './peer.ts';
import type { Call, Ops, Peer } from './peer.ts';

const KINDS = ['matmul', 'conv', 'attention', 'groupNormSilu', 'layerNorm', 'softmax', 'add'] as const;

/** What differs between the four. */
interface Runtime {
  ort: any;
  options: object;
  /** Put an operand where the provider computes, before anything is timed. */
  place(operand: Operand): Promise<any> | any;
  /** The numbers of a result. */
  read(y: any): Promise<ArrayLike<number>> | ArrayLike<number>;
  done(): Promise<unknown>;
}

export async function open(name: string): Promise<Peer> {
  const isWeb = name.startsWith('ort-web');
  const runtime = await { 'ort-node-cpu': nodeCpu, 'ort-node-webgpu': nodeWebgpu, 'ort-web-webgpu': webWebgpu, 'ort-web-wasm': webWasm }[name]!(); // prettier-ignore
  const ops = Object.fromEntries(
    KINDS.map((kind) => [
      kind,
      (work: any, operands: Operand[]) => call(runtime, graphOf(work, operands, !name.endsWith('webgpu'))),
    ]),
  ) as Ops;
  ops.train = () => {
    throw new Error('runs networks, does not train them');
  };
  return { version: versionOf(isWeb ? 'onnxruntime-web' : 'onnxruntime-node'), ops, done: runtime.done };
}

async function call({ ort, options, place, read }: Runtime, work: ReturnType<typeof graphOf>): Promise<Call> {
  const session = await ort.InferenceSession.create(model(work), { logSeverityLevel: 3, ...options });
  const feeds: Record<string, any> = {};
  for (const [name, operand] of Object.entries(work.feeds)) feeds[name] = await place(operand);
  return {
    async run() {
      (await session.run(feeds)).y.dispose();
    },
    async result() {
      const { y } = await session.run(feeds);
      const data = await read(y);
      y.dispose();
      return work.back ? permuted(data, work.outputs.y, work.back) : data;
    },
    async dispose() {
      for (const tensor of Object.values(feeds)) tensor.dispose();
      await session.release();
    },
  };
}

/** A model that hands its input on. */
const copyOf = (shape: number[]) =>
  model({ inputs: { x: shape }, outputs: { y: shape }, nodes: [{ op: 'Identity', inputs: ['x'], output: 'y' }] });

const nothing = () => Promise.resolve();
const placeOnCpu = (ort: any) => ({ shape, data }: Operand) => new ort.Tensor('float32', data, shape); // prettier-ignore

async function nodeCpu(): Promise<Runtime> {
  const { default: ort } = await load('onnxruntime-node');
  return {
    ort,
    options: { executionProviders: ['cpu'] },
    place: placeOnCpu(ort),
    read: (y) => y.data,
    done: nothing,
  };
}

/** Operands and results stay on the GPU; numbers get there and back through a model that only copies. */
async function nodeWebgpu(): Promise<Runtime> {
  const { default: ort } = await load('onnxruntime-node');
  const options = { executionProviders: ['webgpu'], preferredOutputLocation: 'gpu-buffer', logSeverityLevel: 3 };
  const toGpu = new Map<string, any>(); // a tensor must not outlive the session that made it
  const place = async ({ shape, data }: Operand) => {
    const key = shape.join();
    if (!toGpu.has(key)) toGpu.set(key, await ort.InferenceSession.create(copyOf(shape), options));
    return (await toGpu.get(key).run({ x: new ort.Tensor('float32', data, shape) })).y;
  };
  const reader = (shape: number[]) =>
    ort.InferenceSession.create(copyOf(shape), { ...options, preferredOutputLocation: 'cpu' });
  const read = async (y: any) => {
    const session = await reader(y.dims);
    const { data } = (await session.run({ x: y })).y;
    await session.release();
    return data;
  };
  const reading = await reader([1]);
  const one = await place({ shape: [1], data: Float32Array.of(1) });
  return { ort, options, place, read, done: () => reading.run({ x: one }) }; // commands run in order
}

async function webWasm(): Promise<Runtime> {
  const ort = await load('onnxruntime-web'); // its build for Node
  return {
    ort,
    options: { executionProviders: ['wasm'] },
    place: placeOnCpu(ort),
    read: (y) => y.data,
    done: nothing,
  };
}

async function webWebgpu(): Promise<Runtime> {
  await pretendBrowser();
  const folder = `${folderOf('onnxruntime-web')}dist/`;
  const ort = await load(`${folder}ort.webgpu.mjs`);
  ort.env.wasm.wasmPaths = folder;
  ort.env.logLevel = 'error';
  copySharedMemory();
  const options = { executionProviders: ['webgpu'], preferredOutputLocation: 'gpu-buffer' };
  await ort.InferenceSession.create(copyOf([1]), options); // keeps the device open
  const device: GPUDevice = await ort.env.webgpu.device;
  const place = ({ shape, data }: Operand) => {
    const buffer = device.createBuffer({ size: data.byteLength, usage: 0x80 | 0x4 | 0x8 }); // STORAGE | COPY_SRC | COPY_DST
    device.queue.writeBuffer(buffer, 0, data);
    const dispose = () => buffer.destroy();
    return ort.Tensor.fromGpuBuffer(buffer, { dataType: 'float32', dims: shape, dispose });
  };
  return { ort, options, place, read: (y) => y.getData(), done: () => device.queue.onSubmittedWorkDone() };
}

/** Dawn for Node refuses to write from shared memory, which browsers accept and this package uses. */
function copySharedMemory(): void {
  const { prototype } = globalThis.GPUQueue;
  const { writeBuffer } = prototype;
  prototype.writeBuffer = function (buffer: GPUBuffer, at: number, data: any, from = 0, size?: number) {
    const memory: ArrayBufferLike = data.buffer ?? data;
    if (memory instanceof ArrayBuffer) return writeBuffer.call(this, buffer, at, data, from, size);
    const unit = data.BYTES_PER_ELEMENT ?? 1;
    const start = (data.byteOffset ?? 0) + from * unit;
    const bytes = size === undefined ? data.byteLength - from * unit : size * unit;
    return writeBuffer.call(this, buffer, at, new Uint8Array(memory, start, bytes).slice());
  };
}
