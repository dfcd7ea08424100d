import { wantWhole } from '../../kernels/index.ts';
import { silu, tensor } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import { Module } from '../module.ts';
import { Linear } from './linear.ts';

/** In which order the waves come, and how their lengths fall. */
export interface TimestepOptions {
  /** cos before sin. */
  flipSinToCos?: boolean;
  freqShift?: number;
}

/**
 * Waves of different lengths at each time, in float64, rounded once.   times: [B] → [B, channels]
 *
 *     e = [sin(t ωᵢ), cos(t ωᵢ)]    ωᵢ = 10000^(−i / (n − shift)),  n = channels / 2,  i < n
 *
 * @see Ho et al. 2020, Denoising Diffusion Probabilistic Models, appendix B. https://arxiv.org/abs/2006.11239
 */
export function timesteps(times: readonly number[], channels: number, options: TimestepOptions = {}): Tensor {
  return tensor(timestepWaves(times, channels, options), [times.length, channels]);
}

/** The same on the host. */
export function timestepWaves(times: readonly number[], channels: number, options: TimestepOptions = {}): Float32Array {
  const { flipSinToCos = false, freqShift = 0 } = options;
  wantWhole('timesteps', 'channels', channels, 1);
  const half = channels >> 1;
  const waves = new Float32Array(times.length * channels); // an odd last channel stays zero
  const [sinAt, cosAt] = flipSinToCos ? [half, 0] : [0, half];
  for (const [b, t] of times.entries()) {
    for (let i = 0; i < half; i++) {
      const angle = t * Math.exp((-Math.log(10000) * i) / (half - freqShift));
      waves[b * channels + sinAt + i] = Math.sin(angle);
      waves[b * channels + cosAt + i] = Math.cos(angle);
    }
  }
  return waves;
}

/** Two linear layers with SiLU between. */
export class TimestepEmbedding extends Module {
  linear_1: Linear;
  linear_2: Linear;

  constructor(inputs: number, channels: number) {
    super();
    this.linear_1 = new Linear(inputs, channels);
    this.linear_2 = new Linear(channels, channels);
  }

  /** x: [B, I] → [B, C] */
  forward(x: Tensor): Tensor {
    return this.linear_2.forward(silu(this.linear_1.forward(x)));
  }
}
