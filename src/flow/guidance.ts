/**
 * Classifier-free guidance: push away from what the network does without a text. v is what the network predicts: the
 * velocity of a flow, or the noise of a diffusion.
 *
 *     v = v(z, t | null) + α (v(z, t | text) − v(z, t | null))
 *
 * @see Ho & Salimans 2022, Classifier-Free Diffusion Guidance. https://arxiv.org/abs/2207.12598
 */
import { addScaled, concat, narrow, scope, sub } from '../tensor/index.ts';
import type { Tensor } from '../tensor/index.ts';

/** The network: z: [B, H, W, C], t: its time or timestep, text: [B, T, D] → [B, H, W, C]. */
export type ConditionalNetwork = (z: Tensor, t: number, text: Tensor) => Tensor;

/**
 * The network for given texts. Both halves run as one batch, the one without text first; α ≤ 1 asks for the text alone
 * and costs half. nullText may be a negative prompt: [B, T, D] like text.
 */
export function guided(
  network: ConditionalNetwork,
  text: Tensor,
  nullText: Tensor | undefined,
  alpha: number,
): (z: Tensor, t: number) => Tensor {
  if (Number.isNaN(alpha)) throw new RangeError('guided: alpha is NaN');
  if (alpha <= 1 || !nullText) return (z, t) => scope(() => network(z, t, text));
  return (z, t) =>
    scope(() => {
      const batch = z.shape[0];
      const both = network(concat([z, z], { axis: 0 }), t, concat([nullText, text], { axis: 0 }));
      const without = narrow(both, { axis: 0, start: 0, length: batch });
      const withText = narrow(both, { axis: 0, start: batch, length: batch });
      return addScaled(without, sub(withText, without), { s: alpha });
    });
}
