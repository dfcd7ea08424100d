import { openGpu, platform, toggles } from '#platform';
import { GpuError } from './errors.ts';
import { FEATURE, matrixUnitsOf, NEEDS } from './subgroup-matrix.ts';
import type { MatrixUnit } from './subgroup-matrix.ts';

/** Which adapter to open, and with what. */
export interface DeviceOptions {
  /** A part of the adapter's name, or 'null' for Dawn's validation-only adapter (Node). Also RECTIFLOW_ADAPTER. */
  adapter?: string;
  /** Ask for no feature beyond WebGPU's core, as an old browser would have it. */
  coreOnly?: boolean;
  /** Pin kernel variants by op, `{ matmul: 'naive' }`, or how halves lie, `{ f16: 'packed' }`. For tests and benches. */
  force?: Record<string, string>;
  /** Dawn features to switch on or off beside the usual ones (Node). */
  enable?: string[];
  disable?: string[];
  /** Remember where each array was made, for `gpu.leaks()`. Slow. */
  traceLeaks?: boolean;
  /**
   * 'minimum': what every WebGPU adapter has and no feature beyond its core, to see that all works there. Or limits of our
   * own, for checks: kernels and arrays keep to them even where the device would allow more.
   */
  limits?: 'minimum' | Partial<Limits>;
}

const LIMITS = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
] as const;

/** How much the device takes at once. */
export type Limits = Record<(typeof LIMITS)[number], number>;

/** What kernels may use on this adapter. `pick` functions choose variants from this alone. */
export interface Capabilities {
  /** 'cpu' adapters (lavapipe, SwiftShader, WARP) want few loads and no workgroup memory; 'gpu' adapters the opposite. */
  family: 'cpu' | 'gpu';
  /** Vendor, architecture, device and driver, as the adapter tells them. */
  name: string;
  subgroups: boolean;
  /** Lanes in a subgroup when that is certain, else 0. */
  subgroupSize: number;
  f16: boolean;
  /** Products that subgroups make at once, in the adapter's order; none without shader-f16. */
  matrixUnits: readonly MatrixUnit[];
  /** Whether `profile` works. */
  timestamps: boolean;
  /** Bytes. */
  workgroupStorage: number;
  /** Threads in a workgroup, at most. */
  invocations: number;
  force: Record<string, string>;
}

const WANTED: GPUFeatureName[] = ['subgroups' as GPUFeatureName, 'shader-f16', 'timestamp-query'];

/** A device, and what is known of it. */
export interface Opened {
  adapter: GPUAdapter;
  device: GPUDevice;
  capabilities: Capabilities;
  limits: Limits;
  toggles: readonly string[];
}

/** Finds an adapter, preferring a real GPU, and opens a device on it with all the limits it has. */
export async function openDevice(options: DeviceOptions = {}): Promise<Opened> {
  const gpu = await openGpu(options);
  const adapter =
    (await gpu.requestAdapter({ powerPreference: 'high-performance' }).catch(() => null)) ??
    (await gpu.requestAdapter({ forceFallbackAdapter: true }).catch(() => null));
  if (!adapter) throw new GpuError(noAdapter());
  const minimum = options.limits === 'minimum';
  const features = options.coreOnly || minimum ? [] : WANTED.filter((f) => adapter.features.has(f));
  if (adapter.features.has(FEATURE) && NEEDS.every((f) => features.includes(f))) features.push(FEATURE);
  const requiredLimits = minimum ? {} : each((name) => adapter.limits[name]);
  const device = await adapter.requestDevice({ requiredFeatures: features, requiredLimits });
  const own: Partial<Limits> = typeof options.limits === 'object' ? options.limits : {};
  const limits = each((name) => Math.min(device.limits[name], own[name] ?? Infinity));
  return { adapter, device, capabilities: capabilitiesOf(adapter, device, limits, options), limits, toggles };
}

const each = (value: (name: (typeof LIMITS)[number]) => number): Limits =>
  Object.fromEntries(LIMITS.map((name) => [name, value(name)])) as Limits;

function capabilitiesOf(adapter: GPUAdapter, device: GPUDevice, limits: Limits, options: DeviceOptions): Capabilities {
  const info = adapter.info as GPUAdapterInfo & {
    isFallbackAdapter?: boolean;
    subgroupMinSize?: number;
    subgroupMaxSize?: number;
  };
  const name = [info.vendor, info.architecture, info.device, info.description].filter(Boolean).join(' · ');
  const subgroups = device.features.has('subgroups' as GPUFeatureName);
  const fixed = subgroups && info.subgroupMinSize === info.subgroupMaxSize;
  return {
    family: info.isFallbackAdapter || /llvmpipe|lavapipe|swiftshader|software|basic render/i.test(name) ? 'cpu' : 'gpu',
    name,
    subgroups,
    subgroupSize: fixed ? (info.subgroupMinSize ?? 0) : 0,
    f16: device.features.has('shader-f16'),
    matrixUnits: device.features.has(FEATURE) ? matrixUnitsOf(adapter.info) : [],
    timestamps: device.features.has('timestamp-query'),
    workgroupStorage: limits.maxComputeWorkgroupStorageSize,
    invocations: limits.maxComputeInvocationsPerWorkgroup,
    force: options.force ?? {},
  };
}

function noAdapter(): string {
  return platform === 'node'
    ? 'no WebGPU adapter on this machine\n  run "node cli doctor --fix" (or "npm run setup"): it finds or installs a software adapter'
    : 'this browser has WebGPU, but offers no adapter\n  check chrome://gpu; on Linux start with --enable-unsafe-webgpu';
}
