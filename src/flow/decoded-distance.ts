/** How different two latents look: LPIPS between what the frozen decoder makes of them. */
import type { AutoencoderKL, LPIPS } from '../nn/index.ts';
import { add, mul, tensor, upsampleBilinear } from '../tensor/index.ts';
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
  const channels = vae.config.latent_channels;
  const { mean, factor } = affine(channels, vae.config);
  const image = (z: Tensor): Tensor => {
    const unscaled = add(mul(z, tensor(factor.map((f) => 1 / f), [channels])), tensor(mean, [channels])); // prettier-ignore
    const decoded = vae.decode(unscaled);
    const [, H, W] = decoded.shape;
    const times = Math.ceil(PATCH / Math.min(H, W));
    return times > 1 ? upsampleBilinear(decoded, { size: [H * times, W * times] }) : decoded;
  };
  return (z, target) => lpips.forward(image(z), image(target));
}
