import { normal, uniform } from '../tensor/random.ts';

/** First values of a parameter: `size` numbers that depend on the seed and the key alone. */
export type Initializer = (seed: number, key: string, size: number) => Float32Array;

/** The same number everywhere. */
export const constant =
  (value: number): Initializer =>
  (_seed, _key, size) =>
    new Float32Array(size).fill(value);
/** 0 everywhere: biases, and the ends of residual branches. */
export const zerosInit = constant(0);
/** 1 everywhere: the scales of norms. */
export const onesInit = constant(1);

/** N(0, deviation²) */
export const gaussian =
  (deviation: number): Initializer =>
  (seed, key, size) =>
    normal(seed, key, size).map((x) => x * deviation);

/**
 * U(−b, b) with b = 1 / √fanIn: PyTorch's default for the weights and biases of linear and convolution layers.
 * @see He et al. 2015, Delving Deep into Rectifiers, with a = √5. https://arxiv.org/abs/1502.01852
 */
export const kaimingUniform =
  (fanIn: number): Initializer =>
  (seed, key, size) => {
    const bound = fanIn > 0 ? 1 / Math.sqrt(fanIn) : 0;
    return uniform(seed, key, size).map((u) => (2 * u - 1) * bound);
  };
