import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { AutoencoderKL } from '../src/nn/index.ts';
import { decodeTiled, encodeTiled } from '../src/nn/models/vae-tiles.ts';
import { currentGpu, narrow, noGrad, scope, tensor, useGpu, type Tensor } from '../src/tensor/index.ts';
import { assertClose, testGpu } from './check-op.ts';
import { randoms } from './randoms.ts';

const test = suite('nn-vae-tiles');
let vae: AutoencoderKL;
test.before(async () => {
  useGpu(await testGpu());
  const config = { block_out_channels: [8, 8], layers_per_block: 1, norm_num_groups: 4, sample_size: 16 };
  vae = new AutoencoderKL(config).initialize(1);
});

/** diffusers' tiled_decode and tiled_encode, pixel by pixel.   x: [1, H, W, C] */
async function reference(
  x: Tensor,
  side: number,
  made: number,
  run: (tile: Tensor) => Tensor,
): Promise<{ shape: number[]; data: number[] }> {
  const [, H, W] = x.shape;
  const step = side * 0.75,
    fade = made * 0.25,
    limit = made - fade;
  const rows: { h: number; w: number; data: Float32Array }[][] = [];
  let C = 0;
  for (let i = 0; i < H; i += step) {
    const row = [];
    for (let j = 0; j < W; j += step) {
      const rowsOf = narrow(x, { axis: 1, start: i, length: Math.min(side, H - i) });
      const tile = run(narrow(rowsOf, { axis: 2, start: j, length: Math.min(side, W - j) }));
      const [, h, w, channels] = tile.shape;
      C = channels;
      row.push({ h, w, data: ((await tile.read()) as Float32Array).slice() });
    }
    rows.push(row);
  }
  const lines: number[][] = [];
  rows.forEach((row, i) => {
    const kept: number[][] = [];
    row.forEach((b, j) => {
      const at = (t: { w: number }, y: number, x: number, c: number) => (y * t.w + x) * C + c;
      if (i > 0) {
        const a = rows[i - 1][j];
        const extent = Math.min(a.h, b.h, fade);
        for (let y = 0; y < extent; y++)
          for (let x = 0; x < b.w; x++)
            for (let c = 0; c < C; c++)
              b.data[at(b, y, x, c)] =
                a.data[at(a, a.h - extent + y, x, c)] * (1 - y / extent) + b.data[at(b, y, x, c)] * (y / extent);
      }
      if (j > 0) {
        const a = row[j - 1];
        const extent = Math.min(a.w, b.w, fade);
        for (let x = 0; x < extent; x++)
          for (let y = 0; y < b.h; y++)
            for (let c = 0; c < C; c++)
              b.data[at(b, y, x, c)] =
                a.data[at(a, y, a.w - extent + x, c)] * (1 - x / extent) + b.data[at(b, y, x, c)] * (x / extent);
      }
      for (let y = 0; y < Math.min(b.h, limit); y++) {
        kept[y] ??= [];
        for (let x = 0; x < Math.min(b.w, limit); x++) for (let c = 0; c < C; c++) kept[y].push(b.data[at(b, y, x, c)]);
      }
    });
    lines.push(...kept);
  });
  return { shape: [1, lines.length, lines[0].length / C, C], data: lines.flat() };
}

test('tiles are those of diffusers, blended as there', async () => {
  const z = tensor(randoms(19 * 13 * 4, 1, [-1, 1]), [1, 19, 13, 4]);
  const image = noGrad(() => decodeTiled(vae, z));
  const want = await noGrad(() => reference(z, 8, 16, (tile) => vae.decode(tile)));
  assert.equal(image.shape, [1, 38, 26, 3]);
  assert.equal(image.shape, want.shape);
  assertClose(await image.read(), want.data, 1e-6, 'decoded');

  const { mean, logvar } = noGrad(() => encodeTiled(vae, image));
  const moments = await noGrad(() => reference(image, 16, 8, (tile) => vae.moments(tile)));
  assert.equal(mean.shape, [1, 19, 13, 4]);
  assertClose(
    await mean.read(),
    moments.data.filter((_, i) => i % 8 < 4),
    1e-6,
    'mean',
  );
  assertClose(
    await logvar.read(),
    moments.data.filter((_, i) => i % 8 >= 4),
    1e-6,
    'logvar',
  );
});

test('an image of one tile is decoded as a whole', async () => {
  const z = tensor(randoms(2 * 6 * 6 * 4, 1, [-1, 1]), [2, 6, 6, 4]);
  const [want, got] = noGrad(() => [vae.decode(z), decodeTiled(vae, z)]);
  assert.equal(await got.read(), await want.read());
});

test('without overlap tiles lie side by side', async () => {
  const z = tensor(randoms(8 * 16 * 4, 1, [-1, 1]), [1, 8, 16, 4]);
  const half = noGrad(() => vae.decode(narrow(z, { axis: 2, start: 8, length: 8 })));
  const both = noGrad(() => narrow(decodeTiled(vae, z, { overlap: 0 }), { axis: 2, start: 16, length: 16 }));
  assert.equal(await both.read(), await half.read());
});

test('memory is that of a tile, not of the image', async () => {
  const gpu = currentGpu();
  const z = tensor(randoms(64 * 64 * 4, 1, [-1, 1]), [1, 64, 64, 4]);
  const peaks: number[] = [];
  for (const decode of [() => vae.decode(z), () => decodeTiled(vae, z)]) {
    await gpu.trim();
    gpu.resetPeak();
    const before = gpu.memory().peak;
    const image = noGrad(() => scope(decode));
    peaks.push(gpu.memory().peak - before);
    await gpu.idle();
    image.dispose();
  }
  assert.ok(peaks[1] < peaks[0] / 4, `${peaks}`);
});

test('a tile that is no whole number of latents, or an overlap of all of it, is refused', () => {
  const z = tensor(randoms(64, 1), [1, 4, 4, 4]);
  assert.throws(() => decodeTiled(vae, z, { tile: 15 }), /tile/);
  assert.throws(() => decodeTiled(vae, z, { overlap: 1 }), /overlap is 1/);
  assert.throws(() => decodeTiled(vae, z, { overlap: NaN }), /overlap is NaN/);
});

test.run();
