import { wait } from '#platform';
import { bytesOf, decode, encode, GpuArray, partition, sizeOf } from './array.ts';
import type { DType, Shape, Storage, TypedArray } from './array.ts';
import { openDevice } from './device.ts';
import type { Capabilities, DeviceOptions, Limits, Opened } from './device.ts';
import { DeviceLostError, GpuError, mib, OutOfMemoryError, shapeError } from './errors.ts';
import { Leaks } from './leaks.ts';
import type { Leak } from './leaks.ts';
import { Pipelines } from './pipelines.ts';
import type { Pipeline } from './pipelines.ts';
import type { Inputs, Op } from './op.ts';
import { checkInput, Recorder, touched } from './plan.ts';
import type { Command, Plan } from './plan.ts';
import { Pool } from './pool.ts';
import type { Memory } from './pool.ts';
import { Profiler } from './profiler.ts';
import type { KernelTime } from './profiler.ts';

const BATCH = 128;
const READ_BACK = 0x1 | 0x8; // MAP_READ | COPY_DST
const MOST_KEPT = 2 ** 25; // bytes of a staging buffer that is worth keeping for the next read

/**
 * One device and everything that lives on it. Calls append commands to an open list; lists are submitted in batches, in
 * order; nothing blocks, and only `read` and `idle` wait.
 */
export class Gpu {
  #pool: Pool;
  #pipelines: Pipelines;
  #commands: Command[] = [];
  #batch = 0;
  /** Batches before this one are on the GPU, or forgotten. */
  #submitted = 0;
  #backlog: Promise<void> | undefined;
  #staging = new Map<number, Storage[]>();
  /** What went wrong and was not thrown yet, or stays wrong. */
  #failure: Error | undefined;
  /** What went wrong last, and how often something did: batches from before are not submitted. */
  #last: Error | undefined;
  #failures = 0;
  #destroyed = false;
  #queue: GPUQueue;
  #none: GpuArray | undefined;
  #profiler: Profiler | undefined;
  #recorder: Recorder | undefined;
  #leaks: Leaks;

  /** Bytes of the largest array that is not kept in parts. */
  readonly arrayLimit: number;

  /** Dispatches so far. */
  dispatches = 0;

  /** Told of every op that tensors go through, and of what it made. */
  witness: ((op: Op<any, any>, inputs: Inputs, attrs: object, output: GpuArray) => void) | undefined;

  private constructor(
    readonly adapter: GPUAdapter,
    readonly device: GPUDevice,
    readonly capabilities: Capabilities,
    readonly limits: Limits,
    readonly toggles: readonly string[],
    { traceLeaks }: DeviceOptions,
  ) {
    this.arrayLimit = Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize);
    this.#leaks = new Leaks((storage) => this.#collect(storage), traceLeaks);
    this.#queue = device.queue;
    this.#pool = new Pool({
      device,
      limit: this.arrayLimit,
      isIdle: (storage) => storage.batch < this.#submitted,
      failed: (error) => this.#fail(error),
    });
    this.#pipelines = new Pipelines(device, capabilities);
    device.addEventListener('uncapturederror', (event) => {
      this.#fail(new GpuError(`the GPU refused a command\n  ${(event as GPUUncapturedErrorEvent).error.message}`));
    });
    void device.lost.then((info) => {
      this.#fail(new DeviceLostError(info.reason || 'unknown', info.message));
    });
  }

  /** Open a device. @throws GpuError when there is no adapter */
  static async create(options: DeviceOptions = {}): Promise<Gpu> {
    return Gpu.on(await openDevice(options), options);
  }

  /** @internal Work on a device that is open already, or on one that is not real: see paper.ts. */
  static on({ adapter, device, capabilities, limits, toggles }: Opened, options: DeviceOptions = {}): Gpu {
    return new Gpu(adapter, device, capabilities, limits, toggles, options);
  }

  /** Why nothing works any more, once the device is lost. */
  get lost(): DeviceLostError | undefined {
    return this.#failure instanceof DeviceLostError ? this.#failure : undefined;
  }

  /** An array with undefined contents. */
  empty(shape: Shape, dtype: DType = 'f32'): GpuArray {
    this.#check();
    for (const d of shape) {
      if (!Number.isInteger(d) || d < 0) throw shapeError('array', `${d} is not a size`, { shape });
    }
    const bytes = Math.max(4, bytesOf(sizeOf(shape), dtype));
    if (bytes <= this.arrayLimit)
      return new GpuArray(this, this.#recorder?.storage(bytes) ?? this.#pool.take(bytes), shape, dtype);
    const parts = partition(this.#leaks.op, shape, this.arrayLimit).map((part) => this.empty(part, dtype));
    return new GpuArray(this, this.none.storage, shape, dtype, parts);
  }

  /** An array of zeros. */
  zeros(shape: Shape, dtype: DType = 'f32'): GpuArray {
    const array = this.empty(shape, dtype);
    this.clear(array);
    return array;
  }

  /** Set all numbers of an array to zero. */
  clear(array: GpuArray): void {
    array.check('clear');
    for (const { storage, size, dtype } of array.parts ?? [array]) {
      this.#add({ kind: 'clear', to: storage, bytes: Math.max(4, bytesOf(size, dtype)) });
    }
  }

  /** An array of the given numbers, row-major. */
  array(shape: Shape, data: ArrayLike<number>, dtype: DType = 'f32'): GpuArray {
    const array = this.empty(shape, dtype);
    this.write(array, data);
    return array;
  }

  /** Stands where a kernel has a binding that this call does not use, such as an absent bias. */
  get none(): GpuArray {
    return (this.#none ??= this.unrecorded(() => this.zeros([4])));
  }

  /** Replace all numbers of an array. Commands given before still see the old ones. */
  write(array: GpuArray, data: ArrayLike<number>): void {
    fits(array, data);
    if (array.size === 0) return;
    if (array.parts) {
      const numbers = ArrayBuffer.isView(data) ? (data as Float32Array) : Float64Array.from(data);
      let at = 0;
      for (const part of array.parts) this.write(part, numbers.subarray(at, (at += part.size)));
      return;
    }
    const { storage } = array;
    const words = encode(data, array.dtype);
    const own = () => (words === data ? words.slice() : words);
    if (this.#recorder) this.#recorder.note({ kind: 'write', to: storage, data: own() });
    else this.#put(storage, this.#unused(storage) ? words : own());
  }

  /**
   * Replace the numbers of an array from place `at` on, for large arrays that come piece by piece. No command may wait that
   * touches it: after `idle()`. An f16 array takes halves as bits, an even number of them but for the last.
   */
  fill(array: GpuArray, at: number, data: Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>): void {
    array.check('fill');
    const isHalf = data instanceof Uint16Array;
    if (
      at + data.length > array.size ||
      array.parts ||
      isHalf !== (array.dtype === 'f16') ||
      !this.#unused(array.storage)
    )
      throw shapeError('fill', `${data.length} numbers at ${at} do not fit, or commands wait for the array`, { array });
    const even = isHalf && data.length % 2 ? new Uint16Array([...data, 0]) : data;
    this.#queue.writeBuffer(array.storage.buffer, at * data.BYTES_PER_ELEMENT, even);
  }

  /** Write what `data` returns: now, or when recording, at each replay. For numbers that change from step to step. */
  feed(array: GpuArray, data: () => ArrayLike<number>): void {
    if (!this.#recorder) return this.write(array, data());
    this.#recorder.note({ kind: 'feed', to: array.storage, feed: () => encode(fits(array, data()), array.dtype) });
  }

  /** Copy bits from one array into another of the same size. */
  copy(from: GpuArray, to: GpuArray): void {
    from.check('copy');
    to.check('copy');
    if (from.size !== to.size) throw shapeError('copy', 'sizes differ', { from, to });
    if ((from.dtype === 'f16') !== (to.dtype === 'f16'))
      throw shapeError('copy', 'numbers differ in size', { from, to }, 'convert with castInto()');
    if (from.parts || to.parts) {
      if (from.parts?.map((part) => part.size).join() !== to.parts?.map((part) => part.size).join())
        throw shapeError('copy', 'arrays larger than one binding must be divided alike', { from, to });
      return from.parts!.forEach((part, i) => this.copy(part, to.parts![i]));
    }
    if (from.storage === to.storage || from.size === 0) return;
    this.#add({ kind: 'copy', from: from.storage, to: to.storage, bytes: bytesOf(from.size, from.dtype) });
  }

  /**
   * Append one dispatch. `uniforms` fill the kernel's uniform struct by field name, `arrays` its other bindings in order,
   * `grid` counts workgroups, `constants` replace the kernel's `const` tunables.
   */
  run(
    code: string,
    entry: string,
    uniforms: Readonly<Record<string, number>>,
    arrays: readonly GpuArray[],
    grid: readonly number[],
    constants?: Readonly<Record<string, number | boolean | string>>,
  ): void {
    this.#check();
    const pipeline = this.#pipelines.get(code, entry, constants, arrays);
    for (const array of arrays) {
      array.check(entry);
      if (array.parts) throw this.#tooLarge(array);
      if (array.gpu !== this) throw shapeError(entry, 'an operand belongs to another device', { operand: array });
    }
    const [x, y = 1, z = 1] = grid;
    if (x > 65535 || y > 65535 || z > 65535)
      throw shapeError(entry, 'grid exceeds 65535 workgroups', { grid }, 'use spread()');
    if (x === 0 || y === 0 || z === 0) return;
    const slot = this.#pipelines.slot(pipeline, uniforms, arrays);
    if (!this.#recorder) this.dispatches++;
    this.#add({ kind: 'run', pipeline, slot, storages: arrays.map((array) => array.storage), grid: [x, y, z] });
  }

  /**
   * Take down what `fn` would have the GPU do, and plan its memory. `fn` gets arrays that stand for the inputs of each replay,
   * and returns its outputs; arrays of its own that it neither returns nor frees are refused. Nothing runs yet.
   */
  record(inputs: readonly { shape: Shape; dtype: DType }[], fn: (inputs: GpuArray[]) => readonly GpuArray[]): Plan {
    if (this.#recorder) throw new GpuError('compile: recordings do not nest\n  call the inner function itself');
    const recorder = (this.#recorder = new Recorder());
    try {
      const given = inputs.map(({ shape, dtype }) => this.empty(shape, dtype));
      const outputs = fn(given);
      if ([...given, ...outputs].some(({ parts }) => parts))
        throw new GpuError('compile: an input or a result is larger than one binding\n  use a smaller batch or image');
      const plan = recorder.finish(this.#pool, given, outputs);
      for (const output of outputs) if (!output.storage.planned) output.dispose();
      for (const { to, data } of plan.constants) this.#put(to, data);
      return plan;
    } finally {
      recorder.abandon();
      this.#recorder = undefined;
    }
  }

  /** Whether calls are taken down instead of run. */
  get recording(): boolean {
    return this.#recorder !== undefined;
  }

  /** Do something for good while a recording is open, such as filling a cache. */
  unrecorded<T>(fn: () => T): T {
    const recorder = this.#recorder;
    this.#recorder = undefined;
    try {
      return fn();
    } finally {
      this.#recorder = recorder;
    }
  }

  /** Run a plan on these inputs. @returns new arrays */
  replay(plan: Plan, inputs: readonly GpuArray[]): GpuArray[] {
    this.#check();
    if (plan.disposed) throw new GpuError('compile: this plan was already freed');
    inputs.forEach((given, i) => {
      given.check('compile');
      checkInput(plan.inputs[i], given, i);
    });
    for (const { to, feed } of plan.feeds) this.#put(to, feed());
    inputs.forEach((given, i) => {
      const { shape, dtype, storage } = plan.inputs[i];
      using target = new GpuArray(this, storage, shape, dtype);
      this.copy(given, target);
    });
    for (const command of plan.commands) {
      this.#push(command.kind === 'feed' ? { kind: 'write', to: command.to, data: command.feed() } : command);
    }
    for (const storage of plan.storages) this.#touch(storage);
    this.dispatches += plan.dispatches;
    const outputs = plan.outputs.map(({ shape, dtype, storage }) => {
      using source = new GpuArray(this, storage, shape, dtype);
      const output = this.empty(shape, dtype);
      this.copy(source, output);
      return output;
    });
    if (plan.feeds.length) this.flush(); // so that the next ones are written without waiting in line
    return outputs;
  }

  /** Give back the memory of a plan. */
  forgetPlan(plan: Plan): void {
    if (plan.disposed) return;
    plan.disposed = true;
    for (const storage of plan.storages) this.release(storage);
  }

  /** Hand the open list to the GPU. Called by itself every 128 commands and before anything is read. */
  flush(): void {
    this.#check();
    if (!this.#commands.length) return;
    const commands = this.#commands;
    this.#batch++;
    this.#commands = [];
    const compiling = commands.flatMap((c) => (c.kind === 'run' && !c.pipeline.compiled ? [c.pipeline.ready] : []));
    const waiting = [...new Set(compiling), ...this.#pool.unsure];
    if (!waiting.length && !this.#backlog) return this.#submit(commands);
    const failures = this.#failures;
    const turn: Promise<void> = Promise.all([this.#backlog, ...waiting])
      .then(() => {
        if (failures === this.#failures) this.#submit(commands);
        else this.#submitted++;
      })
      .catch((error: Error) => this.#fail(error))
      .then(() => {
        if (this.#backlog === turn) this.#backlog = undefined;
      });
    this.#backlog = turn;
  }

  /** Wait until the GPU has done everything asked so far. @throws what went wrong since the last wait */
  async idle(): Promise<void> {
    this.#refuseWaiting('idle');
    await this.#allSubmitted();
    await wait(this.#queue.onSubmittedWorkDone());
    this.#check();
  }

  /** Read an array back. The only way numbers leave the GPU; never blocks. */
  async read(array: GpuArray): Promise<TypedArray> {
    array.check('read');
    this.#refuseWaiting('read');
    if (array.size === 0) return decode(new ArrayBuffer(0), 0, array.dtype);
    if (array.parts) {
      const parts = await Promise.all(array.parts.map((part) => this.read(part)));
      const all = decode(
        new ArrayBuffer(bytesOf(array.size, 'f32')),
        array.size,
        array.dtype === 'f16' ? 'f32' : array.dtype,
      );
      let at = 0;
      for (const part of parts) all.set(part, (at += part.length) - part.length);
      return all;
    }
    const bytes = bytesOf(array.size, array.dtype);
    const size = 2 ** Math.ceil(Math.log2(Math.max(256, bytes)));
    const staging = this.#staging.get(size)?.pop() ?? this.#pool.make(size, READ_BACK);
    this.#touch(array.storage);
    this.#push({ kind: 'copy', from: array.storage, to: staging, bytes });
    await this.#allSubmitted();
    const { buffer } = staging;
    let out: TypedArray;
    try {
      await wait(buffer.mapAsync(GPUMapMode.READ, 0, bytes));
      out = decode(buffer.getMappedRange(0, bytes).slice(0), array.size, array.dtype);
    } catch (error) {
      if ((error as Error).name === 'AbortError') await this.device.lost; // which says why
      throw this.#failure ?? new GpuError(`reading back ${array.size} numbers failed\n  ${(error as Error).message}`);
    }
    buffer.unmap();
    if (size > MOST_KEPT) buffer.destroy();
    else if (!this.#staging.has(size)) this.#staging.set(size, [staging]);
    else this.#staging.get(size)!.push(staging);
    this.#check();
    return out;
  }

  /** Compile pipelines ahead of their first use. */
  async warm(
    kernels: { code: string; entry: string; constants?: Record<string, number | boolean | string> }[],
  ): Promise<void> {
    await wait(Promise.all(kernels.map((k) => this.#pipelines.get(k.code, k.entry, k.constants).ready)));
  }

  /** Time every dispatch that `work` causes, by kernel. Slows it down. @throws GpuError without timestamps */
  async profile(work: () => unknown): Promise<KernelTime[]> {
    await this.idle();
    const profiler = (this.#profiler = new Profiler(this.device));
    try {
      await work();
      await this.idle();
    } finally {
      this.#profiler = undefined;
    }
    return profiler.result();
  }

  /** Bytes in use, bytes that wait for the next array, the peak of both, and what the garbage collector had to free. */
  memory(): Memory {
    return { ...this.#pool.memory };
  }

  /** What the garbage collector had to free so far, by the op that made it: see docs/memory.md. */
  leaks(): Leak[] {
    return this.#leaks.list();
  }

  /** Arrays that `work` makes are `op`'s, should they leak. */
  named<T>(op: string, work: () => T): T {
    const before = this.#leaks.op;
    this.#leaks.op = op;
    try {
      return work();
    } finally {
      this.#leaks.op = before;
    }
  }

  /** Forget the peak so far, to measure the next piece of work. */
  resetPeak(): void {
    this.#pool.memory.peak = this.#pool.memory.live + this.#pool.memory.pooled;
  }

  /** Return pooled memory to the driver. */
  async trim(): Promise<void> {
    await this.idle();
    this.#pipelines.forgetGroups();
    this.#pool.trim();
  }

  /** Close the device and free everything on it. Calls after this fail. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#fail(new DeviceLostError('destroyed', 'destroy() was called'));
    this.device.destroy();
  }

  /** @internal For GpuArray. */
  watch(array: GpuArray, storage: Storage): void {
    if (storage.planned) this.#recorder?.watch(array);
    else this.#leaks.watch(array, storage);
  }
  /** @internal */
  forget(array: GpuArray): void {
    if (array.storage.planned) this.#recorder?.forget(array);
    else this.#leaks.forget(array);
  }
  /** @internal */
  release(storage: Storage): void {
    if (--storage.refs > 0) return;
    if (storage.planned) this.#recorder?.release(storage);
    else this.#pool.give(storage);
  }

  #tooLarge(operand: GpuArray): Error {
    return shapeError(
      this.#leaks.op,
      `works on no array that is larger than this adapter binds at once (${mib(this.arrayLimit)})`,
      { operand },
      'use a smaller batch or image; src/kernels/split.ts says which ops work in parts',
    );
  }

  #collect(storage: Storage): number | undefined {
    if (this.#destroyed) return undefined;
    this.#pool.memory.leaked++;
    this.release(storage);
    return storage.refs ? 0 : storage.bytes;
  }

  #fail(error: Error): void {
    if (this.#failure && !(this.#failure instanceof OutOfMemoryError)) return;
    this.#failure = this.#last = error;
    this.#failures++;
  }

  /** @throws what went wrong. After a lack of memory the next call finds the device well, and all that waited forgotten. */
  #check(): void {
    const failure = this.#failure;
    if (!failure) return;
    if (failure instanceof OutOfMemoryError) {
      this.#failure = undefined;
      this.#commands = [];
    }
    throw failure;
  }

  /** Wait until all commands so far are submitted. @throws also when another call was told of the failure meanwhile */
  async #allSubmitted(): Promise<void> {
    this.flush();
    const failures = this.#failures;
    while (this.#backlog) await wait(this.#backlog);
    this.#check();
    if (failures !== this.#failures) throw this.#last!;
  }

  #refuseWaiting(what: string): void {
    if (this.#recorder)
      throw new GpuError(
        `${what}: a function that is being compiled has no numbers yet\n  return the tensor and read it after the call`,
      );
  }

  /** No command that waits touches it, and it is known to exist. */
  #unused(storage: Storage): boolean {
    return storage.batch < this.#batch && !this.#backlog && !this.#pool.unsure.size;
  }

  #put(storage: Storage, data: TypedArray): void {
    if (this.#unused(storage)) return this.#queue.writeBuffer(storage.buffer, 0, data);
    this.#touch(storage);
    this.#push({ kind: 'write', to: storage, data });
  }

  /** Note a command, or put it in line. */
  #add(command: Command): void {
    if (this.#recorder) return this.#recorder.note(command);
    for (const storage of touched(command)) this.#touch(storage);
    this.#push(command);
  }

  #touch(storage: Storage): void {
    storage.batch = this.#batch;
  }

  #push(command: Command): void {
    this.#commands.push(command);
    if (this.#commands.length >= BATCH) this.flush();
  }

  #submit(commands: Command[]): void {
    this.#submitted++;
    if (this.#destroyed) return;
    let encoder: GPUCommandEncoder | undefined;
    let pass: GPUComputePassEncoder | undefined;
    let bound: Pipeline | undefined;
    const endPass = () => {
      pass?.end();
      pass = bound = undefined;
    };
    for (const c of commands) {
      if (c.kind === 'run') {
        encoder ??= this.device.createCommandEncoder();
        if (this.#profiler) endPass();
        pass ??= encoder.beginComputePass(this.#profiler?.pass(c.pipeline.name));
        if (bound !== c.pipeline) pass.setPipeline((bound = c.pipeline).compiled!);
        pass.setBindGroup(0, (c.group ??= this.#pipelines.bind(c.pipeline, c.slot, c.storages)));
        pass.dispatchWorkgroups(c.grid[0], c.grid[1], c.grid[2]);
        continue;
      }
      endPass();
      if (c.kind === 'write') {
        if (encoder) this.#queue.submit([encoder.finish()]);
        encoder = undefined;
        this.#queue.writeBuffer(c.to.buffer, 0, c.data);
        continue;
      }
      encoder ??= this.device.createCommandEncoder();
      if (c.kind === 'copy') encoder.copyBufferToBuffer(c.from.buffer, 0, c.to.buffer, 0, c.bytes);
      else encoder.clearBuffer(c.to.buffer, 0, c.bytes);
    }
    endPass();
    if (encoder) this.#queue.submit([encoder.finish()]);
  }
}

/** @throws when these are not the numbers of an array that is there */
function fits(array: GpuArray, data: ArrayLike<number>): ArrayLike<number> {
  array.check('write');
  if (data.length !== array.size)
    throw shapeError('write', `${data.length} numbers for ${array.size} places`, { array });
  return data;
}

/** Workgroup counts for `n` workgroups in a row, folded where they exceed 65535. Kernels use `group.x + group.y * groups.x`. */
export const spread = (n: number): [number, number] => (n <= 65535 ? [n, 1] : [32768, Math.ceil(n / 32768)]);
