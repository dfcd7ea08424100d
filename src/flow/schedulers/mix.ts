/** Sums of a few tensors with weights of their own: all that a scheduler does on the GPU. */
import { shapeError } from '../../kernels/index.ts';
import { addScaled, mul, scope, tensor } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';
import type { PredictionType } from './config.ts';

/** Σ weight · x, all x of one shape. What has the weight 0 is not looked at. */
export function combine(...terms: readonly (readonly [weight: number, x: Tensor])[]): Tensor {
  return scope(() => {
    const [[weight, x] = [0, terms[0][1]], ...rest] = terms.filter(([w]) => w !== 0);
    return rest.reduce((sum, [w, y]) => addScaled(sum, y, { s: w }), mul(x, weight));
  });
}

/** The same with a weight for each sample of the batch.   x: [B, …], weights: [B] or one for all */
export function combineSamples(...terms: readonly (readonly [weights: readonly number[], x: Tensor])[]): Tensor {
  if (terms.every(([weights]) => weights.length === 1)) return combine(...terms.map(([[w], x]) => [w, x] as const));
  return scope(() =>
    terms
      .map(([weights, x]) => {
        if (weights.length !== x.shape[0])
          throw shapeError('addNoise', `${weights.length} timesteps for ${x.shape[0]} samples`, { x });
        return mul(x, tensor(weights, [weights.length, ...x.shape.slice(1).map(() => 1)]));
      })
      .reduce((sum, x) => addScaled(sum, x, { s: 1 })),
  );
}

/** A tensor as a sum of the sample and of the network's output. */
export type Mix = readonly [sample: number, output: number];

export const mixed = (mix: Mix, sample: Tensor, output: Tensor): Tensor => combine([mix[0], sample], [mix[1], output]);

/** The image that the network believes in.   sample = α · image + σ · noise */
export function imageMix(type: PredictionType, { alpha, sigma }: { alpha: number; sigma: number }): Mix {
  if (type === 'sample') return [0, 1];
  if (type === 'v_prediction') return [alpha, -sigma];
  if (alpha > 0) return [1 / alpha, -sigma / alpha];
  throw new RangeError(
    'at this timestep there is only noise, of which the image cannot be told\n  prediction_type  epsilon',
  );
}

/** The noise that the network believes in.   sample = α · image + σ · noise */
export function noiseMix(type: PredictionType, { alpha, sigma }: { alpha: number; sigma: number }): Mix {
  if (type === 'epsilon') return [0, 1];
  return type === 'v_prediction' ? [sigma, alpha] : [1 / sigma, -alpha / sigma];
}
