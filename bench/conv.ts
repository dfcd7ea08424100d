// 3×3 convolutions at the sizes that training and sampling use: GFLOP/s of forward, dx and dw.
//   node scripts/run.mjs bench/conv.ts [variant …]
// Variants are measured in turn, batch by batch, so that a busy moment hits all of them.
import { Gpu } from '../src/kernels/index.ts';
import { conv2d } from '../src/kernels/conv2d.ts';

const SHAPES: [B: number, H: number, W: number, C: number, O: number][] = [
  [32, 16, 16, 32, 32],
  [32, 16, 16, 32, 64],
  [32, 8, 8, 64, 64],
  [32, 8, 8, 128, 64],
  [32, 4, 4, 128, 128],
  [32, 4, 4, 256, 128],
  [32, 32, 32, 3, 32],
  [32, 32, 32, 32, 3],
  [1, 64, 64, 64, 64],
  [4, 16, 16, 128, 128],
  [1, 32, 32, 320, 320],
];
const BATCHES = 7;
const attrs = { padding: 1 };
const median = (list: number[]) => [...list].sort((a, b) => a - b)[list.length >> 1];

const gpu = await Gpu.create();
const variants = process.argv.slice(2).length ? process.argv.slice(2) : [''];
console.log(`${gpu.capabilities.name}\nGFLOP/s: median by the clock (by processor time of both cores)`);
for (const [B, H, W, C, O] of SHAPES) {
  const fill = (shape: number[]) =>
    gpu.array(
      shape,
      Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => Math.sin(i)),
    );
  const x = fill([B, H, W, C]);
  const weight = fill([O, 3, 3, C]);
  const bias = fill([O]);
  const dy = fill([B, H, W, O]);
  const flops = 2 * B * H * W * C * O * 9;
  const work: Record<string, () => void> = {
    forward: () => conv2d.forward(gpu, [x, weight, bias], attrs).output.dispose(),
    dx: () => conv2d.backward!(gpu, dy, [x, weight], attrs, [true, false, false, false, false])[0]!.dispose(),
    dw: () => conv2d.backward!(gpu, dy, [x, weight], attrs, [false, true, false, false, false])[1]!.dispose(),
    db: () => conv2d.backward!(gpu, dy, [x, weight], attrs, [false, false, true, false, false])[2]!.dispose(),
  };
  for (const [name, run] of Object.entries(work)) {
    const clock: Record<string, number[]> = {};
    const cpu: Record<string, number[]> = {};
    const times = Math.max(1, Math.round(1e9 / flops));
    for (let batch = -1; batch < BATCHES; batch++) {
      for (const variant of variants) {
        if (variant) gpu.capabilities.force.conv2d = variant;
        const used = process.cpuUsage();
        const start = performance.now();
        for (let i = 0; i < times; i++) run();
        await gpu.idle();
        const u = process.cpuUsage(used);
        if (batch < 0) continue;
        (clock[variant] ??= []).push((performance.now() - start) / times);
        (cpu[variant] ??= []).push((u.user + u.system) / 2000 / times);
      }
    }
    const line = variants.map(
      (v) =>
        `${v} ${(flops / median(clock[v]) / 1e6).toFixed(1).padStart(5)} (${(flops / median(cpu[v]) / 1e6).toFixed(1).padStart(4)}) ${median(clock[v]).toFixed(2)} ms`,
    );
    console.log(`${`[${B}, ${H}, ${W}, ${C}] → ${O}`.padEnd(24)} ${name.padEnd(8)} ${line.join('   ')}`);
  }
  for (const array of [x, weight, bias, dy]) array.dispose();
}
process.exit(0);
