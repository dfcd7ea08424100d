import { totalmem, freemem, cpus } from 'node:os';
import { Gpu } from '../../kernels/index.ts';
import { mib } from '../../kernels/errors.ts';
import { command, flag, text } from '../command.ts';
import { selfTest } from '../self-test.ts';
import { selfTestCases, unitsTestCases } from '../self-test-cases.ts';
import { runSetup } from './setup.ts';

export default command(
  'doctor',
  'the GPU adapter, what it can do, and a self-test of the kernels',
  {
    fix: flag(false, 'find or install an adapter first'),
    adapter: text(undefined, 'a part of the name of the adapter to use'),
    json: flag(false, 'print everything as JSON'),
  },
  async ({ fix, adapter, json }) => {
    if (fix && runSetup() !== 0)
      throw new Error('doctor: set-up did not find or install an adapter; its messages above say why');
    const gpu = await Gpu.create({ adapter }).catch((error: Error) => {
      throw new Error(`${error.message}\n${advice()}`);
    });
    const report = describe(gpu);
    const tests = [];
    if (!json) for (const [title, rows] of Object.entries(report)) print(title, rows);
    if (!json) console.log('self-test       op                 forward     gradient');
    for (const c of [...selfTestCases, ...(gpu.capabilities.matrixUnits.length ? unitsTestCases : [])]) {
      const result = await selfTest(gpu, c);
      tests.push(result);
      if (!json) {
        const { name, forward, backward, ok } = result;
        console.log(
          `  ${ok ? 'ok   ' : 'WRONG'}         ${name.padEnd(16)} ${forward.toExponential(1)}     ${backward.toExponential(1)}`,
        );
      }
    }
    const wrong = tests.filter((t) => !t.ok);
    if (json) console.log(JSON.stringify({ ...report, tests }, null, 2));
    else
      console.log(
        wrong.length
          ? `${wrong.length} of ${tests.length} kernels are wrong on this adapter`
          : `all ${tests.length} kernels agree with their references`,
      );
    gpu.destroy();
    if (wrong.length) process.exitCode = 1;
  },
);

type Rows = Record<string, string>;

function describe(gpu: Gpu): Record<string, Rows> {
  const { capabilities: c, limits, adapter } = gpu;
  return {
    machine: {
      system: `${process.platform} ${process.arch}, Node ${process.versions.node}`,
      processors: `${cpus().length} × ${cpus()[0]?.model.trim() ?? 'unknown'}`,
      memory: `${gib(totalmem())}, ${gib(freemem())} free`,
    },
    adapter: {
      name: c.name,
      kind: c.family === 'cpu' ? 'software: kernels for processors are used' : 'GPU: kernels for GPUs are used',
      features: [...adapter.features].sort().join(', '),
      'in use': [
        c.subgroups && `subgroups of ${c.subgroupSize || 'varying size'}`,
        c.timestamps && 'timestamps',
        c.f16 && 'shader-f16',
      ]
        .filter(Boolean)
        .join(', '),
      'matrix units': c.matrixUnits.map((u) => `${u.M}×${u.N}×${u.K} ${u.inputs} → ${u.sums}`).join(', ') || 'none',
      toggles: gpu.toggles.join(', ') || 'none',
    },
    limits: {
      'one buffer': mib(limits.maxBufferSize),
      'one binding': mib(limits.maxStorageBufferBindingSize),
      'workgroup memory': `${limits.maxComputeWorkgroupStorageSize / 1024} KiB`,
      'workgroup size': String(limits.maxComputeInvocationsPerWorkgroup),
      'storage buffers': String(limits.maxStorageBuffersPerShaderStage),
    },
  };
}

function print(title: string, rows: Rows): void {
  console.log(title);
  for (const [name, value] of Object.entries(rows)) console.log(`  ${name.padEnd(17)} ${value}`);
}

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;

function advice(): string {
  switch (process.platform) {
    case 'linux':
      return [
        'a GPU: install its Vulkan driver and the loader (Debian and Ubuntu: libvulkan1)',
        'no GPU: Mesa 24.2 or newer (Debian and Ubuntu: mesa-vulkan-drivers; on Debian 12 from bookworm-backports)',
        'or "node cli doctor --fix", which can also use a software adapter from npm',
      ].join('\n');
    case 'win32':
      return 'update the graphics driver; without a GPU use the adapter that Windows has: set RECTIFLOW_ADAPTER=Microsoft';
    default:
      return 'macOS has Metal: update the system, and Node to 20 or newer';
  }
}
