/** What a teacher makes of noise: x1 = ODE[teacher](x0 | prompt). */
import { createHash } from 'node:crypto';
import { floatsToHalves, halvesToFloats } from '../../../tensor/io/half.ts';
import { mul, scope, tensor } from '../../../tensor/index.ts';
import { guided } from '../../guidance.ts';
import { latentSize, seededNoise } from '../../latents.ts';
import type { LatentScale, LatentShape } from '../../latents.ts';
import type { Pipeline } from '../../pipeline.ts';
import { concatenate } from '../../pipelines/arrays.ts';
import { chooseScheduler, samplerName } from '../../pipelines/choose-scheduler.ts';
import type { NetworkName } from '../../pipelines/options.ts';
import type { Scheduler } from '../../schedulers/index.ts';
import { PairError } from './manifest.ts';
import type { PairFacts } from './manifest.ts';

/** A teacher, how its flow is followed, and what is kept. */
export interface Teaching {
  pipeline: Pipeline;
  which: NetworkName;
  /** The model as it was named, and the sha256 of its U-Net. */
  teacher: { model: string; sha256: string };
  /** Pair n gets prompt n; after the last the first comes again, with other noise. */
  prompts: readonly string[];
  firstSeed?: number;
  /** As for `sample`: DPM-Solver++ 2M for a diffusion, Adams–Bashforth for a flow, unless given. It must add no noise. */
  scheduler?: string;
  /** 25 */
  steps?: number;
  /** 5 for a diffusion, as InstaFlow's pairs of Stable Diffusion 1.5; 1.5 for a flow, as those of 2-Rectified Flow. */
  guidanceScale?: number;
  /** [h, w, C]; what the network was trained on. */
  shape?: LatentShape;
  /** Pairs in a file (1024). */
  shardSize?: number;
  /** How x1 is kept (f16). */
  latentsDtype?: 'f16' | 'f32';
  /** Keep x0 too, for readers that cannot draw it from its seed. */
  storeNoise?: boolean;
  /** Leave out pairs whose x1 has a root mean square above or below. */
  maxLatentRms?: number;
  minLatentRms?: number;
}

/** A pair, or why it is left out.   x0 (where it is kept), x1: [h, w, C] */
export interface SolvedPair {
  x0?: Float32Array;
  x1: Float32Array;
  problem?: string;
}

/** Add noise on their way: x1 is then no function of x0. */
const stochastic = ['DDPMScheduler', 'EulerAncestralDiscreteScheduler', 'LCMScheduler'];

export class PairSolver {
  readonly shape: LatentShape;
  readonly facts: PairFacts;
  readonly #scheduler: Scheduler;
  readonly #cut = new Set<string>();

  constructor(readonly teaching: Teaching) {
    const { pipeline, which, teacher, prompts, firstSeed = 0, shardSize = 1024, storeNoise = false } = teaching;
    const own = pipeline.parts.defaults[which]?.scheduler ??
      pipeline.parts.scheduler ?? { _class_name: 'RectifiedFlow' };
    const isFlow = own._class_name === 'RectifiedFlow';
    const { scheduler = isFlow ? 'adams-bashforth' : 'dpm++', steps = 25, guidanceScale = isFlow ? 1.5 : 5 } = teaching;
    this.#scheduler = chooseScheduler(own, scheduler);
    if (stochastic.includes(this.#scheduler.name))
      throw new PairError(
        `${scheduler} adds noise on its way, so what comes of x0 is another x1 each time\n  take ${isFlow ? 'euler, heun or adams-bashforth' : 'dpm++, ddim, pndm or euler'}`,
      );
    this.shape = teaching.shape ?? pipeline.latentShape;
    const [h, w, c] = this.shape;
    const { scaling_factor, shift_factor, latents_mean, latents_std } = pipeline.parts.vae.config as LatentScale;
    const [[, weight]] = pipeline.parts.textEncoder.namedParameters();
    this.facts = {
      format: 'rectiflow pairs 1',
      teacher: { sha256: teacher.sha256, network: which },
      scheduler: samplerName(this.#scheduler),
      steps,
      guidance_scale: guidanceScale,
      dtype: weight.dtype === 'f16' ? 'f16' : 'f32',
      latents_dtype: teaching.latentsDtype ?? 'f16',
      latent_shape: [c, h, w],
      scaling: {
        scaling_factor: scaling_factor ?? 1,
        ...(shift_factor ? { shift_factor } : {}),
        ...(latents_mean ? { latents_mean } : {}),
        ...(latents_std ? { latents_std } : {}),
      },
      noise: storeNoise ? 'torch cpu, stored' : 'torch cpu',
      first_seed: firstSeed,
      shard_size: shardSize,
      prompts_sha256: createHash('sha256').update(prompts.join('\n')).digest('hex'),
      max_latent_rms: teaching.maxLatentRms ?? null,
      min_latent_rms: teaching.minLatentRms ?? null,
    };
  }

  /** Some pairs together, each from its own seed. */
  async solve(samples: readonly { seed: number; prompt: string }[]): Promise<SolvedPair[]> {
    const { pipeline, which, storeNoise } = this.teaching;
    const { steps, guidance_scale: alpha } = this.facts;
    const noises = samples.map(({ seed }) => seededNoise(seed, this.shape));
    const solved = await scope(async () => {
      this.#scheduler.setTimesteps(steps);
      const { text, warnings } = pipeline.encodePrompts(samples.map(({ prompt }) => prompt));
      for (const warning of warnings) this.#cut.add(warning);
      const nullText = alpha > 1 ? pipeline.encodePrompts(samples.map(() => '')).text : undefined;
      const x0 = tensor(concatenate(noises), [samples.length, ...this.shape]);
      const network = guided(pipeline.conditional(which), text, nullText, alpha);
      const x1 = await this.#scheduler.run(network, mul(x0, this.#scheduler.initNoiseSigma));
      return (await x1.read()) as Float32Array;
    });
    const size = latentSize(this.shape);
    return noises.map((x0, i) => {
      const x1 = solved.slice(i * size, (i + 1) * size);
      return { x1, problem: this.#problemOf(x1), ...(storeNoise ? { x0 } : {}) };
    });
  }

  /** What people should know, once it is over. */
  notes(): string[] {
    if (this.#cut.size === 0) return [];
    return [`${this.#cut.size} prompts were cut to what the text encoder takes, such as ${[...this.#cut][0]}`];
  }

  dispose(): void {
    this.#scheduler.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #problemOf(x1: Float32Array): string | undefined {
    const { max_latent_rms: most, min_latent_rms: least, latents_dtype } = this.facts;
    const stored = latents_dtype === 'f16' ? halvesToFloats(floatsToHalves(x1)) : x1;
    if (!stored.every(Number.isFinite)) return 'not finite';
    const rms = Math.sqrt(x1.reduce((sum, value) => sum + value * value, 0) / x1.length);
    if (most !== null && rms > most) return `a root mean square of ${rms.toPrecision(3)}, above ${most}`;
    if (least !== null && rms < least) return `a root mean square of ${rms.toPrecision(3)}, below ${least}`;
    return undefined;
  }
}
