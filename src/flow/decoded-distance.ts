/** How different two latents look: through the frozen decoder, by LPIPS or by what its own blocks make of them. */
import type { AutoencoderKL, LPIPS } from '../nn/index.ts';
import { add, div, mean, mul, noGrad, square, sub, sum, tensor, upsampleBilinear } from '../tensor/index.ts';
import type { Tensor } from '../tensor/index.ts';
import { affine } from './latents.ts';
import type { LatentDistance } from './losses.ts';

/** LPIPS was fitted to patches of this side; smaller images are enlarged to it. */
const PATCH = 64;

/**
 * d(z, target) = LPIPS(decode(z), decode(target))        z, target: [B, h, w, C] at the flow's scale → [B]
 *
 * The gradient reaches z through LPIPS and the decoder, whose own weights ask for none.
 */
export function decodedDistance(vae: AutoencoderKL, lpips: LPIPS): LatentDistance {
  const image = (z: Tensor): Tensor => {
    const decoded = vae.decode(unscaled(vae, z));
    const [, H, W] = decoded.shape;
    const times = Math.ceil(PATCH / Math.min(H, W));
    return times > 1 ? upsampleBilinear(decoded, { size: [H * times, W * times] }) : decoded;
  };
  return (z, target) => lpips.forward(image(z), image(target));
}

/** Keeps the quotient finite where a pixel has no features. */
const EPS = 1e-6;

/**
 * The latent perceptual loss: how far apart the features of the decoder are, against how long those of the target are. No
 * network but the model's own.        z, target: [B, h, w, C] at the flow's scale → [B]
 *
 *     d(z, target) = mean over blocks l and pixels of |φ_l(z) − φ_l(target)|² / |φ_l(target)|²
 *
 * φ_l: [B, H, W, C'], what the middle block and each after it makes; lengths are those over the channels.
 *
 * @see Berrada et al. 2024, Boosting Latent Diffusion with Perceptual Objectives, §3. https://arxiv.org/abs/2411.04873
 */
export function decoderDistance(vae: AutoencoderKL): LatentDistance {
  return (z, target) => {
    const wanted = noGrad(() => vae.decoderFeatures(unscaled(vae, target)));
    const terms = vae.decoderFeatures(unscaled(vae, z)).map((f, l) => {
      const apart = squaredLength(sub(f, wanted[l]));
      return mean(div(apart, add(squaredLength(wanted[l]), EPS)), { axes: [1, 2] });
    });
    return mul(terms.reduce((a, b) => add(a, b)), 1 / terms.length); // prettier-ignore
  };
}

/** Over the channels: [B, H, W, C] → [B, H, W] */
const squaredLength = (x: Tensor): Tensor => sum(square(x), { axes: [3] });

/** From the flow's scale to the decoder's. */
function unscaled(vae: AutoencoderKL, z: Tensor): Tensor {
  const channels = vae.config.latent_channels;
  const { mean, factor } = affine(channels, vae.config);
  return add(mul(z, tensor(factor.map((f) => 1 / f), [channels])), tensor(mean, [channels])); // prettier-ignore
}
