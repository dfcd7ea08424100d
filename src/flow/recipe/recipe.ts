/** A recipe: every number that decides what a training run makes, as JSON. */
import type { CLIPTextConfig, UNetConfig, VAEConfig } from '../../nn/index.ts';
import type { Interpolation } from '../data/square.ts';
import type { LossOptions } from '../losses.ts';
import type { FixedStepSolver } from '../solvers.ts';
import type { TimeOptions } from '../times.ts';
import type { TrainOptions } from '../trainer.ts';

/** A stage of the recipe. */
export type StageName = 'tokenizer' | 'vae' | 'teacher' | 'pairs' | 'reflow' | 'distill' | 'evaluate';
export const stageNames = ['tokenizer', 'vae', 'teacher', 'pairs', 'reflow', 'distill', 'evaluate'] as const;

/** All of a run: data, networks, and how each stage trains. */
export interface Recipe {
  name: string;
  seed: number;
  data: {
    /** OpenMoji, unless trainDataDir names a folder of images with metadata. */
    set: 'popular' | 'all';
    trainDataDir?: string;
    imageColumn?: string;
    captionColumn?: string;
    /** Cut the middle of an image (true), or a place drawn from the seed. */
    centerCrop?: boolean;
    /** How an image is scaled ('lanczos'). */
    interpolation?: Interpolation;
    /** Leave out images that cannot be used. */
    skipBad?: boolean;
    /** Pixels on a side. */
    resolution: number;
    maxTrainSamples?: number;
    /** Share of samples that get an image's first caption, which is the specific one. */
    specificCaption: number;
  };
  tokenizer: { vocabSize: number; maxLength: number };
  vae: {
    config: Partial<VAEConfig>;
    train: TrainOptions;
    /** loss = l1·|x̂ − x| + l2·(x̂ − x)² + kl·KL, each a mean over its elements. */
    loss: { l1: number; l2: number; kl: number };
    randomFlip: boolean;
  };
  textEncoder: Partial<CLIPTextConfig>;
  unet: Partial<UNetConfig>;
  teacher: {
    train: TrainOptions;
    nullText: number;
    /** As --noise_offset and --input_perturbation: see training-noise.ts (0). */
    noiseOffset?: number;
    inputPerturbation?: number;
  };
  /** What teacher's flow makes of noise: the data of reflow. */
  pairs: PairOptions;
  reflow: ReflowOptions;
  distill: DistillOptions;
  /** Files with the weights of LPIPS, for losses that want it. */
  lpips?: string[];
  /** The scheduler_config.json of a teacher that is a network of diffusion; a rectified flow unless given. */
  diffusion?: Record<string, unknown>;
  evaluate: { count: number; steps: number; guidanceScale: number };
}

/** How reflow trains. What is not given is as in the paper. */
export interface ReflowOptions {
  train: TrainOptions;
  /** Share of samples whose text is dropped. */
  nullText: number;
  /** When on the paths (uniform). */
  times?: TimeOptions;
  /** L2 */
  loss?: LossOptions;
  /** 'epsilon' leaves a network of diffusion one, and trains it on its own curved paths. */
  predicts?: 'velocity' | 'epsilon';
  /** Begin with −ε where the teacher says ε. */
  negateEpsilon?: boolean;
  /** Straight in each of so many windows of time, from the data and without pairs: see piecewise.ts. */
  windows?: number;
  /** Steps of the teacher through a window (8). */
  solvingSteps?: number;
}

/** How the student of few steps is distilled. Pairs are made anew with the reflowed network, as InstaFlow does. */
export interface DistillOptions {
  train: TrainOptions;
  pairs: PairOptions;
  /** Steps that the student takes (1). */
  steps?: number;
  /** L2 */
  loss?: LossOptions;
  /** A loss for so many further steps; a budget of minutes is shared in the proportion of the steps. */
  then?: { loss: LossOptions; steps: number };
  /** Whose weights it begins with, and whose pairs it learns. 'unet_teacher' leaves out reflow. */
  from?: 'unet_reflow' | 'unet_teacher';
  /** 'stacked' is InstaFlow-1.7B. */
  student?: 'unet' | 'stacked';
}

/** How many pairs, and how the flow that makes them is solved. */
export interface PairOptions {
  count: number;
  steps: number;
  /** Euler for a flow, DPM-Solver++ 2M for a diffusion, unless said. */
  solver?: FixedStepSolver;
  guidanceScale: number;
  batchSize: number;
  /** Stop early after this many minutes, with the pairs made so far. */
  minutes?: number;
}

const training: Omit<TrainOptions, 'steps'> = {
  batchSize: 32,
  learningRate: 1e-3,
  scheduler: 'cosine',
  warmupSteps: 50,
  maxGradNorm: 1,
  weightDecay: 1e-2,
  emaDecay: 0.999,
  checkpointingSteps: 1000,
  checkpointingMinutes: 3,
};

/**
 * The model that ships: 256 OpenMoji at 32 × 32 pixels, by way of 8 × 8 × 8 latents. Sized to about three hours on two
 * cores with a software adapter; a GPU is done long before the minutes are up.
 */
const emoji: Recipe = {
  name: 'emoji',
  seed: 20240601,
  data: { set: 'popular', resolution: 32, specificCaption: 0.7 },
  tokenizer: { vocabSize: 1700, maxLength: 16 },
  vae: {
    config: {
      sample_size: 32,
      in_channels: 3,
      out_channels: 3,
      latent_channels: 8,
      block_out_channels: [32, 64, 64],
      layers_per_block: 1,
      norm_num_groups: 8,
      scaling_factor: 1,
    },
    train: {
      ...training,
      steps: 3000,
      minutes: 15,
      batchSize: 8,
      learningRate: 1.5e-3,
      weightDecay: 0,
      emaDecay: 0.995,
    },
    loss: { l1: 1, l2: 0.5, kl: 5e-4 },
    randomFlip: true,
  },
  textEncoder: {
    hidden_size: 64,
    intermediate_size: 256,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    hidden_act: 'quick_gelu',
    max_position_embeddings: 16,
  },
  unet: {
    sample_size: 8,
    in_channels: 8,
    out_channels: 8,
    block_out_channels: [64, 96],
    layers_per_block: 1,
    down_block_types: ['DownBlock2D', 'CrossAttnDownBlock2D'],
    up_block_types: ['CrossAttnUpBlock2D', 'UpBlock2D'],
    cross_attention_dim: 64,
    attention_head_dim: 4,
    norm_num_groups: 8,
  },
  teacher: { train: { ...training, steps: 20000, minutes: 47, batchSize: 16 }, nullText: 0.1 },
  pairs: { count: 12_288, steps: 8, solver: 'adams-bashforth', guidanceScale: 1.5, batchSize: 128, minutes: 28 },
  reflow: { train: { ...training, steps: 20000, minutes: 35, batchSize: 64, learningRate: 5e-4 }, nullText: 0.05 },
  distill: {
    train: { ...training, steps: 20000, minutes: 35, batchSize: 64, learningRate: 5e-4 },
    pairs: { count: 25_600, steps: 4, solver: 'adams-bashforth', guidanceScale: 1, batchSize: 128, minutes: 17 },
  },
  evaluate: { count: 256, steps: 25, guidanceScale: 1.5 },
};

/** Every stage in a few seconds, on twelve images: what the tests train. */
const quick: Omit<TrainOptions, 'steps'> = {
  ...training,
  batchSize: 4,
  warmupSteps: 2,
  emaDecay: 0.9,
  checkpointingSteps: 4,
};
const tiny: Recipe = {
  name: 'tiny',
  seed: 7,
  data: { set: 'popular', resolution: 16, maxTrainSamples: 12, specificCaption: 0.7 },
  tokenizer: { vocabSize: 560, maxLength: 8 },
  vae: {
    config: {
      ...emoji.vae.config,
      sample_size: 16,
      latent_channels: 4,
      block_out_channels: [8, 16],
      norm_num_groups: 4,
    },
    train: { ...quick, steps: 8 },
    loss: { l1: 1, l2: 0.5, kl: 5e-4 },
    randomFlip: true,
  },
  textEncoder: {
    ...emoji.textEncoder,
    hidden_size: 16,
    intermediate_size: 32,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    max_position_embeddings: 8,
  },
  unet: {
    ...emoji.unet,
    sample_size: 8,
    in_channels: 4,
    out_channels: 4,
    block_out_channels: [8, 16],
    cross_attention_dim: 16,
    attention_head_dim: 2,
    norm_num_groups: 4,
  },
  teacher: { train: { ...quick, steps: 8 }, nullText: 0.1 },
  pairs: { count: 16, steps: 4, guidanceScale: 1.5, batchSize: 8 },
  reflow: { train: { ...quick, steps: 6 }, nullText: 0.05 },
  distill: { train: { ...quick, steps: 6 }, pairs: { count: 16, steps: 4, guidanceScale: 1, batchSize: 8 } },
  evaluate: { count: 12, steps: 4, guidanceScale: 1.5 },
};

/** For a machine with a GPU: all of OpenMoji at 64 × 64 through 16 × 16 × 4 latents, about 60 million parameters. */
const large: Recipe = {
  ...emoji,
  name: 'large',
  data: { set: 'all', resolution: 64, specificCaption: 0.6 },
  tokenizer: { vocabSize: 4000, maxLength: 32 },
  vae: {
    ...emoji.vae,
    config: {
      ...emoji.vae.config,
      sample_size: 64,
      latent_channels: 4,
      block_out_channels: [64, 128, 256],
      layers_per_block: 2,
      norm_num_groups: 32,
    },
    train: { ...training, steps: 40_000, batchSize: 32, learningRate: 5e-4, weightDecay: 0 },
  },
  textEncoder: {
    ...emoji.textEncoder,
    hidden_size: 256,
    intermediate_size: 1024,
    num_hidden_layers: 6,
    num_attention_heads: 8,
    max_position_embeddings: 32,
  },
  unet: {
    ...emoji.unet,
    sample_size: 16,
    in_channels: 4,
    out_channels: 4,
    block_out_channels: [128, 256, 512],
    layers_per_block: 2,
    down_block_types: ['CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D'],
    up_block_types: ['CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D'],
    cross_attention_dim: 256,
    attention_head_dim: 8,
    norm_num_groups: 32,
  },
  teacher: {
    train: { ...training, steps: 200_000, batchSize: 128, learningRate: 2e-4, emaDecay: 0.9999, warmupSteps: 1000 },
    nullText: 0.1,
  },
  pairs: { count: 100_000, steps: 25, guidanceScale: 1.5, batchSize: 256 },
  reflow: {
    train: { ...training, steps: 50_000, batchSize: 128, learningRate: 1e-4, emaDecay: 0.9999, warmupSteps: 1000 },
    nullText: 0.1,
  },
  distill: {
    train: { ...training, steps: 50_000, batchSize: 128, learningRate: 1e-4, emaDecay: 0.9999, warmupSteps: 1000 },
    pairs: { count: 100_000, steps: 25, guidanceScale: 1, batchSize: 256 },
  },
  evaluate: { count: 1024, steps: 25, guidanceScale: 1.5 },
};

export const presets = { emoji, tiny, large } satisfies Record<string, Recipe>;
/** A recipe that comes with the library. */
export type PresetName = keyof typeof presets;
/** 'emoji', 'tiny', 'large' */
export const presetNames = Object.keys(presets) as PresetName[];

/** A preset of one's own to change. */
export const preset = (name: PresetName): Recipe => structuredClone(presets[name]);
