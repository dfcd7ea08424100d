import type { GpuArray, Storage } from './array.ts';
import type { Capabilities } from './device.ts';
import { GpuError } from './errors.ts';
import { halfStorage, withHalves } from './half-storage.ts';
import { inspect, specialise } from './shader.ts';
import type { Entry } from './shader.ts';

export interface Pipeline {
  id: number;
  name: string;
  entry: Entry;
  layout: GPUBindGroupLayout;
  ready: Promise<void>;
  compiled?: GPUComputePipeline;
}

/** Where a block of uniforms lies. */
export interface Slot {
  id: number;
  buffer: GPUBuffer;
  offset: number;
}

type Constants = Readonly<Record<string, number | boolean | string>>;

const UNIFORM_SLOT = 256;
const PAGE = 256 * UNIFORM_SLOT;
const COMPUTE = 0x4;
const UNIFORM_USAGE = 0x40 | 0x8; // UNIFORM | COPY_DST
const MOST_GROUPS = 16384;

/**
 * Pipelines by (kernel, entry, constants, which arrays are f16), compiled in the background; uniform blocks by content;
 * bind groups by both.
 */
export class Pipelines {
  #byCode = new Map<string, Map<string, Pipeline>>();
  #layouts = new Map<string, { group: GPUBindGroupLayout; pipeline: GPUPipelineLayout }>();
  #uniforms = new Map<string, Slot>();
  #groups = new Map<string, GPUBindGroup>();
  #page: GPUBuffer | undefined;
  #used = PAGE;
  #ids = 0;
  #scratch = new ArrayBuffer(UNIFORM_SLOT);
  #view = new DataView(this.#scratch);

  constructor(
    private readonly device: GPUDevice,
    private readonly capabilities: Capabilities,
  ) {}

  get(code: string, entry: string, constants?: Constants, arrays: readonly GpuArray[] = []): Pipeline {
    let variants = this.#byCode.get(code);
    if (!variants) this.#byCode.set(code, (variants = new Map()));
    let key = entry;
    if (constants) for (const name in constants) key += `|${name}=${constants[name]}`;
    let halves = '';
    for (let i = 0; i < arrays.length; i++) if (arrays[i].dtype === 'f16') halves += `,${i}`;
    if (halves) key += `|f16=${halfStorage(this.capabilities)}${halves}`;
    let pipeline = variants.get(key);
    if (!pipeline) variants.set(key, (pipeline = this.#compile(code, entry, constants ?? {}, arrays, key)));
    return pipeline;
  }

  /** The block that holds the uniforms of a call, if the kernel has any. @throws when arrays or uniforms do not fit the kernel */
  slot(pipeline: Pipeline, uniforms: Readonly<Record<string, number>>, arrays: readonly GpuArray[]): Slot | undefined {
    const { entry } = pipeline;
    const expected = entry.bindings.length - (entry.uniform ? 1 : 0);
    if (arrays.length !== expected) {
      const names = entry.bindings.filter((b) => b.access !== 'uniform').map((b) => b.name);
      throw new GpuError(
        `kernel ${pipeline.name} binds ${expected} arrays (${names.join(', ')}), ${arrays.length} given`,
      );
    }
    return entry.uniform && this.#uniform(pipeline, uniforms);
  }

  bind(pipeline: Pipeline, slot: Slot | undefined, storages: readonly Storage[]): GPUBindGroup {
    const { entry } = pipeline;
    let key = `${pipeline.id}:${slot ? slot.id : ''}`;
    for (const storage of storages) key += `,${storage.id}`;
    let group = this.#groups.get(key);
    if (group) return group;
    if (this.#groups.size >= MOST_GROUPS) this.#groups.clear();
    let next = 0;
    const entries = entry.bindings.map(({ binding, access }) => ({
      binding,
      resource:
        access === 'uniform'
          ? { buffer: slot!.buffer, offset: slot!.offset, size: entry.uniform!.bytes }
          : { buffer: storages[next++].buffer },
    }));
    group = this.device.createBindGroup({ layout: pipeline.layout, entries });
    this.#groups.set(key, group);
    return group;
  }

  forgetGroups(): void {
    this.#groups.clear();
  }

  #compile(code: string, entryName: string, constants: Constants, arrays: readonly GpuArray[], key: string): Pipeline {
    let text = specialise(code, constants);
    const entry = inspect(text).get(entryName);
    const bound = entry?.bindings.filter((b) => b.access !== 'uniform') ?? [];
    const halves = bound.filter((_, i) => arrays[i]?.dtype === 'f16').map((b) => b.name);
    if (halves.length) text = withHalves(text, halves, halfStorage(this.capabilities));
    const name = `${key} in "${code.split('\n', 1)[0].slice(0, 60)}"`;
    if (!entry) throw new GpuError(`kernel has no entry point ${name}`);
    const layout = this.#layout(entry);
    // A module that does not compile is reported by its pipeline, with lines, and not as an uncaptured error too.
    this.device.pushErrorScope('validation');
    const module = this.device.createShaderModule({ code: text, label: name });
    void this.device.popErrorScope().catch(() => {});
    const pipeline: Pipeline = { id: ++this.#ids, name, entry, layout: layout.group, ready: Promise.resolve() };
    pipeline.ready = this.device
      .createComputePipelineAsync({ layout: layout.pipeline, compute: { module, entryPoint: entryName }, label: name })
      .then(
        (compiled) => void (pipeline.compiled = compiled),
        async (error: Error) => {
          const info = await module.getCompilationInfo().catch(() => undefined);
          const lines = info?.messages.map((m) => `  line ${m.lineNum}: ${m.message}`) ?? [];
          throw new GpuError(
            [`kernel ${name} does not compile`, ...(lines.length ? lines : [`  ${error.message}`])].join('\n'),
          );
        },
      );
    pipeline.ready.catch(() => {});
    return pipeline;
  }

  #layout(entry: Entry) {
    const key = entry.bindings.map((b) => `${b.binding}${b.access}`).join(',');
    let layout = this.#layouts.get(key);
    if (!layout) {
      const types = { uniform: 'uniform', read: 'read-only-storage', read_write: 'storage' } as const;
      const entries = entry.bindings.map((b) => ({
        binding: b.binding,
        visibility: COMPUTE,
        buffer: { type: types[b.access] },
      }));
      const group = this.device.createBindGroupLayout({ entries });
      layout = { group, pipeline: this.device.createPipelineLayout({ bindGroupLayouts: [group] }) };
      this.#layouts.set(key, layout);
    }
    return layout;
  }

  /** The slot that holds these values; equal contents share one, so replays bind what they bound before. */
  #uniform(pipeline: Pipeline, values: Readonly<Record<string, number>>): Slot {
    const { fields, bytes } = pipeline.entry.uniform!;
    const view = this.#view;
    let key = '';
    for (const { name, type, offset } of fields) {
      const value = values[name];
      if (value === undefined) throw new GpuError(`kernel ${pipeline.name} wants the uniform ${name}`);
      if (type === 'f32') view.setFloat32(offset, value, true);
      else if (type === 'u32') view.setUint32(offset, value, true);
      else view.setInt32(offset, value, true);
      key += `${view.getUint32(offset, true)},`;
    }
    let slot = this.#uniforms.get(key);
    if (slot) return slot;
    if (this.#used + UNIFORM_SLOT > PAGE) {
      this.#page = this.device.createBuffer({ size: PAGE, usage: UNIFORM_USAGE });
      this.#used = 0;
    }
    this.device.queue.writeBuffer(this.#page!, this.#used, this.#scratch, 0, bytes);
    slot = { id: ++this.#ids, buffer: this.#page!, offset: this.#used };
    this.#used += UNIFORM_SLOT;
    this.#uniforms.set(key, slot);
    return slot;
  }
}
