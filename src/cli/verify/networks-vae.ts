import { add, exp, mean, mul, square, sub, sum, type Tensor } from '../../tensor/index.ts';
import { AutoencoderKL } from '../../nn/index.ts';
import { actChecks, gradientChecks, inputGradient, loadRule, ours, theirs, watch } from './networks-common.ts';
import { tolerance, type Check, type Runner } from './runner.ts';

/** An autoencoder with weights from the rule: latents, images, divergence, every block, all gradients. */
export const runVae: Runner = async (c, context) => {
  await context.gpu();
  const file = await context.tensors(c);
  const { acts: stats, grads } = await context.json(c.json!);
  using model = await loadRule(() => new AutoencoderKL(c.config), c.weights);
  model.requiresGrad(true);
  const image = ours(file['in.image'], { requiresGrad: true }),
    z = ours(file['in.z'], { requiresGrad: true });
  const B = image.shape[0];

  const {
    result: { posterior, decoded },
    acts,
  } = watch(model, stats, () => ({ posterior: model.encode(image), decoded: model.decode(z) }));
  const sample = model.sample(posterior, ours(file['in.noise']));
  const recon = model.decode(sample);
  const std = exp(mul(posterior.logvar, 0.5));
  const each = sub(add(square(posterior.mean), exp(posterior.logvar)), posterior.logvar);
  const total = mul(sum(each), 0.5 / B); // without the constant −1 per element
  const limit = tolerance(c, 'out'),
    gradLimit = tolerance(c, 'grad');
  const checks = await actChecks(acts, stats, limit);
  const outputs: Record<string, Tensor> = { ...posterior, std, decoded, sample, recon };
  for (const [name, output] of Object.entries(outputs)) {
    checks.push({ name, got: await theirs(output), want: file[`out.${name}`].data, tolerance: limit });
  }
  checks.push(klCheck(await theirs(each), file['out.kl'].data, tolerance(c, 'kl')));
  const loss = add(add(mean(square(sub(recon, image))), mul(total, 1e-4)), mean(square(decoded)));
  const constant = (1e-4 * 0.5 * posterior.mean.size) / B;
  checks.push({ name: 'loss', got: [(await loss.item()) - constant], want: [c.loss], tolerance: limit });
  loss.backward();
  checks.push(...(await inputGradient('image', image, c, file, gradLimit)));
  checks.push(...(await inputGradient('z', z, c, file, gradLimit)));
  checks.push(...(await gradientChecks(model, c, file, grads, gradLimit)));
  return checks;
};

/** 0.5 Σ (mean² + var − 1 − logvar) per image. */
function klCheck(each: ArrayLike<number>, want: ArrayLike<number>, limit: number): Check {
  const got = new Float64Array(want.length),
    size = each.length / want.length;
  for (let i = 0; i < each.length; i++) got[Math.floor(i / size)] += 0.5 * (each[i] - 1);
  return { name: 'kl', got, want, tolerance: limit };
}
