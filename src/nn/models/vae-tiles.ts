/**
 * An autoencoder by overlapping tiles, as diffusers does it with `enable_vae_tiling()`: memory for one tile, whatever the
 * size of the image. Where tiles overlap, each fades into the next. A tile's norms know of no other, so colours may drift
 * a little from tile to tile.
 */
import { add, chunk, clamp, concat, mul, narrow, scope, tensor } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { wantWhole } from '../../kernels/index.ts';
import type { AutoencoderKL, Posterior } from './vae.ts';

/** How an image is divided. */
export interface Tiling {
  /** Side of a tile in pixels, a multiple of the autoencoder's factor; its configuration's `sample_size` if left out. */
  tile?: number;
  /** Share of a tile that overlaps the next, 0 … 1. */
  overlap?: number;
}

/** z: [B, h, w, Z], not scaled → image [B, H, W, 3] */
export function decodeTiled(vae: AutoencoderKL, z: Tensor, options: Tiling = {}): Tensor {
  const { pixels, latents } = sides(vae, options);
  return tiled(z, latents, pixels, (tile) => vae.decode(tile));
}

/** image: [B, H, W, 3] in −1 … 1 → mean and log-variance of its latents, [B, h, w, Z] each */
export function encodeTiled(vae: AutoencoderKL, image: Tensor, options: Tiling = {}): Posterior {
  const { pixels, latents } = sides(vae, options);
  const [mean, logvar] = chunk(
    tiled(image, pixels, latents, (tile) => vae.moments(tile)),
    2,
  );
  return { mean, logvar: clamp(logvar, { min: -30, max: 20 }) };
}

/** A tile, how far it is to the next, and how many rows fade: of images and of latents. */
interface Sides {
  side: number;
  step: number;
  fade: number;
}

function sides({ factor, config }: AutoencoderKL, { tile = config.sample_size, overlap = 0.25 }: Tiling) {
  wantWhole('tiling', 'tile / factor', tile / factor, 1);
  const side = tile / factor;
  const step = Math.floor(side * (1 - overlap));
  if (!(overlap >= 0) || step < 1)
    throw new Error(`tiling: overlap is ${overlap}, must be 0 or more, and less than a tile of ${side} latents`);
  const fade = side - step;
  return {
    latents: { side, step, fade },
    pixels: { side: tile, step: factor * step, fade: factor * fade },
  };
}

/** `run` on tiles of x, put together. Of the tiles above only those of one row stay in memory. */
function tiled(x: Tensor, from: Sides, to: Sides, run: (tile: Tensor) => Tensor): Tensor {
  const [, H, W] = x.shape;
  return scope(() => {
    let above: Tensor[] = [];
    const rows: Tensor[] = [];
    for (let top = 0; top < H; top += from.step) {
      const { made, row } = scope(() => {
        const made: Tensor[] = [];
        for (let left = 0; left < W; left += from.step) {
          const tile = scope(() => {
            const alone = run(cut(cut(x, 1, top, from.side), 2, left, from.side));
            const below = above.length ? faded(above[made.length], alone, 1, to.fade) : alone;
            return made.length ? faded(made.at(-1)!, below, 2, to.fade) : below;
          });
          made.push(tile);
        }
        const kept = made.map((tile) => cut(cut(tile, 1, 0, to.step), 2, 0, to.step));
        return { made, row: concat(kept, { axis: 2 }) };
      });
      for (const tile of above) tile.dispose();
      above = made;
      rows.push(row);
    }
    return concat(rows, { axis: 1 });
  });
}

/** Up to `length` rows or columns from `start`. */
function cut(x: Tensor, axis: 1 | 2, start: number, length: number): Tensor {
  const most = Math.min(length, x.shape[axis] - start);
  return most === x.shape[axis] ? x : narrow(x, { axis, start, length: most });
}

/** b, whose first rows or columns go over from the last ones of a. */
function faded(a: Tensor, b: Tensor, axis: 1 | 2, fade: number): Tensor {
  const extent = Math.min(a.shape[axis], b.shape[axis], fade);
  if (extent === 0) return b;
  const shape = axis === 1 ? [extent, 1, 1] : [extent, 1];
  const share = (f: (i: number) => number) =>
    tensor(
      Array.from({ length: extent }, (_, i) => f(i / extent)),
      shape,
    );
  const both = add(
    mul(
      cut(a, axis, a.shape[axis] - extent, extent),
      share((t) => 1 - t),
    ),
    mul(
      cut(b, axis, 0, extent),
      share((t) => t),
    ),
  );
  return extent === b.shape[axis] ? both : concat([both, cut(b, axis, extent, b.shape[axis])], { axis });
}
