import { frechetDistance, gaussianOf, type Gaussian } from '../../flow/metrics/frechet.ts';
import { tolerance, type Runner } from './runner.ts';

/** Means, covariances and the distance between the Gaussians of X and Y. Plain JavaScript, no GPU. */
export const runFrechet: Runner = async (c, context) => {
  const { X, Y, mu1, mu2, sigma1, sigma2 } = await context.tensors(c);
  const x = gaussianOf(X.data, X.shape[1]),
    y = gaussianOf(Y.data, Y.shape[1]);
  const limit = tolerance(c);
  const given = (of: Gaussian, mean: Float32Array, covariance: Float32Array): Gaussian => ({
    ...of,
    mean: Float64Array.from(mean),
    covariance: Float64Array.from(covariance),
  });
  return [
    { name: 'mu1', got: x.mean, want: mu1.data, tolerance: limit },
    { name: 'mu2', got: y.mean, want: mu2.data, tolerance: limit },
    { name: 'sigma1', got: x.covariance, want: sigma1.data, tolerance: limit },
    { name: 'sigma2', got: y.covariance, want: sigma2.data, tolerance: limit },
    { name: 'distance', got: [frechetDistance(x, y)], want: [c.distance], tolerance: limit },
    {
      name: 'distance from given moments',
      want: [c.distance],
      tolerance: limit,
      got: [frechetDistance(given(x, mu1.data, sigma1.data), given(y, mu2.data, sigma2.data))],
    },
    { name: 'self', got: [frechetDistance(x, x)], want: [0], tolerance: limit, scale: c.distance },
  ];
};
