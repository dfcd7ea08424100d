/** The same prompts and noise through several networks, in few steps and in many, and what comes out in numbers. */
import type { AutoencoderKL, LPIPS } from '../../nn/index.ts';
import { currentGpu, tensor, upsampleBilinear } from '../../tensor/index.ts';
import type { CaptionedImages } from '../data/captioned-images.ts';
import { latentSize, unscaleLatents } from '../latents.ts';
import type { LatentShape } from '../latents.ts';
import { concatenate } from '../pipelines/arrays.ts';
import type { NetworkName } from '../pipelines/options.ts';
import type { Velocity } from '../rectified-flow.ts';
import { euler } from '../solvers.ts';
import type { ClipScore } from './clip-score.ts';
import { read } from './feature-network.ts';
import type { FeatureNetwork } from './feature-network.ts';
import { RealImages } from './real-images.ts';
import { fewStepError, Straightness } from './straightness.ts';
import type { StraightnessResult } from './straightness.ts';

/** One way of sampling. */
export interface Way {
  network: NetworkName;
  /** Of Euler. */
  steps: number;
  guidanceScale: number;
}

/** One way of sampling, measured. */
export interface Measured extends Way {
  /** In the space of the feature network, to all real images. */
  frechetDistance: number;
  /** Share of images whose nearest real image carries the caption that was asked for. */
  captionAccuracy: number;
  /** Of the path as sampled; only with many steps. */
  straightness?: StraightnessResult;
  /** Root mean square difference in the latents from what the same network makes of the same noise in many steps. */
  fewStepError?: number;
  /** Mean cosine of images and prompts, with CLIP. */
  clipScore?: number;
  /** Mean LPIPS to the teacher's images in many steps, from the same noise. */
  lpipsToTeacher?: number;
  secondsPerImage: number;
}

/** A network that is ready to be asked. */
export interface OpenNetwork {
  /** For these prompts; guidance of 1 or less asks for none. */
  velocity(prompts: string[], guidanceScale: number): Velocity;
  dispose(): void;
}

export interface EvaluationOptions {
  prompts: string[];
  /** Of each prompt: [N, h, w, C] */
  noise: Float32Array;
  shape: LatentShape;
  vae: AutoencoderKL;
  real: CaptionedImages;
  features: FeatureNetwork;
  clip?: ClipScore;
  lpips?: LPIPS;
  open(network: NetworkName): Promise<OpenNetwork> | OpenNetwork;
  batchSize?: number;
  /** Images of each way that are kept to be shown. */
  shown?: number;
}

/** What came out of one way. */
interface End {
  latents: Float32Array;
  /** The first few: [shown, side, side, 3] */
  images: Float32Array;
}

/** LPIPS was made for images of about this size; smaller ones are enlarged. */
const LPIPS_SIDE = 64;

export class Evaluation {
  readonly rows: Measured[] = [];
  readonly #ends = new Map<string, End>();
  readonly #batch: number;
  readonly #each: number;
  /** Images of the teacher, for LPIPS. */
  #teacher: Float32Array[] | undefined;

  private constructor(
    readonly options: EvaluationOptions,
    readonly real: RealImages,
  ) {
    this.#batch = options.batchSize ?? 64;
    this.#each = latentSize(options.shape);
  }

  static async begin(options: EvaluationOptions): Promise<Evaluation> {
    return new Evaluation(options, await RealImages.of(options.real, options.features, options.batchSize ?? 64));
  }

  /** Sample and measure. `many`: the way that errors of few steps are to; `isTeacher`: what LPIPS of the others is to. */
  async measure(way: Way, { many, isTeacher = false }: { many?: Way; isTeacher?: boolean } = {}): Promise<Measured> {
    const { prompts, features, clip, lpips, shown = 12 } = this.options;
    const { latents, straightness, seconds } = await this.#sample(way);
    const vectors: Float32Array[] = [];
    const images: Float32Array[] = [];
    const scores: number[] = [];
    const distances: number[] = [];
    if (isTeacher && lpips) this.#teacher = [];
    for (let from = 0; from < prompts.length; from += this.#batch) {
      const part = prompts.slice(from, from + this.#batch);
      const { pixels, side } = await this.decode(
        latents.subarray(from * this.#each, (from + part.length) * this.#each),
      );
      vectors.push(await features.features(pixels, side));
      if (from < shown) images.push(pixels.slice(0, (shown - from) * side * side * 3));
      if (clip) scores.push(...(await clip.of(pixels, side, part)));
      if (isTeacher) this.#teacher?.push(pixels);
      else if (lpips && this.#teacher)
        distances.push(...(await perceptual(lpips, pixels, this.#teacher[from / this.#batch], side)));
    }
    const made = concatenate(vectors);
    const row: Measured = {
      ...way,
      frechetDistance: this.real.distance(made),
      captionAccuracy: this.real.captionAccuracy(made, prompts),
      secondsPerImage: seconds / prompts.length,
      ...(straightness ? { straightness } : {}),
      ...(many ? { fewStepError: fewStepError(latents, this.end(many).latents) } : {}),
      ...(clip ? { clipScore: mean(scores) } : {}),
      ...(distances.length ? { lpipsToTeacher: mean(distances) } : {}),
    };
    this.rows.push(row);
    this.#ends.set(keyOf(way), { latents, images: concatenate(images) });
    return row;
  }

  /** What a way that was measured came to. */
  end(way: Pick<Way, 'network' | 'steps'>): End {
    const end = this.#ends.get(keyOf(way));
    if (!end) throw new Error(`evaluation: ${keyOf(way)} has not been measured`);
    return end;
  }

  /** [n, h, w, C] → [n, side, side, 3] in −1 … 1, a batch at a time */
  async decode(latents: Float32Array): Promise<{ pixels: Float32Array; side: number }> {
    const { vae, shape } = this.options;
    const size = this.#batch * this.#each;
    const parts: Float32Array[] = [];
    for (let from = 0; from < latents.length; from += size) {
      const part = unscaleLatents(latents.slice(from, from + size), shape[2], vae.config);
      parts.push(await read(() => vae.decode(tensor(part, [part.length / this.#each, ...shape]))));
    }
    return { pixels: concatenate(parts), side: shape[0] * vae.factor };
  }

  async #sample({ network, steps, guidanceScale }: Way) {
    const { prompts, noise, shape } = this.options;
    const opened = await this.options.open(network);
    const straight = new Straightness();
    const parts: Float32Array[] = [];
    await currentGpu().idle();
    const start = performance.now();
    for (let from = 0; from < prompts.length; from += this.#batch) {
      const part = prompts.slice(from, from + this.#batch);
      const velocities: Promise<ArrayLike<number>>[] = [];
      const latents = await read(() => {
        const velocity = opened.velocity(part, guidanceScale);
        const x0 = tensor(noise.subarray(from * this.#each, (from + part.length) * this.#each), [
          part.length,
          ...shape,
        ]);
        const heard: Velocity = (z, t) => {
          const v = velocity(z, t);
          if (steps > 2) velocities.push(v.read());
          return v;
        };
        return euler(heard, x0, steps);
      });
      parts.push(latents);
      if (steps > 2) straight.add(await Promise.all(velocities), part.length);
    }
    const seconds = (performance.now() - start) / 1000;
    opened.dispose();
    return { latents: concatenate(parts), straightness: steps > 2 ? straight.result() : undefined, seconds };
  }
}

const keyOf = ({ network, steps }: Pick<Way, 'network' | 'steps'>): string => `${network} in ${steps} steps`;
const mean = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0) / numbers.length;

/** a, b: [n, side, side, 3] in −1 … 1 → [n] */
async function perceptual(lpips: LPIPS, a: Float32Array, b: Float32Array, side: number): Promise<Float32Array> {
  const shape = [a.length / (side * side * 3), side, side, 3];
  const large = (x: Float32Array) => {
    const image = tensor(x, shape);
    return side < LPIPS_SIDE ? upsampleBilinear(image, { size: [LPIPS_SIDE, LPIPS_SIDE] }) : image;
  };
  return read(() => lpips.forward(large(a), large(b)));
}
