/** Where numbers stopped being numbers: the first place, in the order of the forward pass. */
import { observe } from '../nn/observe.ts';
import { noGrad, scope, sum } from '../tensor/index.ts';
import type { Tensor } from '../tensor/index.ts';
import type { Learner } from './learner.ts';

/** Run the step again and look at weights, batch, the output of each layer, loss and gradients. → lines about the first that is wrong */
export async function firstBad(learner: Learner, step: number): Promise<string[]> {
  const weights: string[] = [];
  for (const [key, p] of learner.parameters) if (!allFinite(await p.read())) weights.push(`the weights of ${key}`);
  if (weights.length) return list(weights);
  for (const { batch, pass } of learner.repeat(step)) {
    const found = await inPass(learner, batch, pass);
    if (found.length) return list(found);
  }
  return [];
}

type Pass = Parameters<typeof inPass>[2];

async function inPass(
  { task, parameters }: Learner,
  batch: readonly Tensor[],
  pass: (watch: <T>(run: () => T) => T) => Tensor,
): Promise<string[]> {
  for (const [i, t] of batch.entries()) if (!allFinite(await t.read())) return [`input ${i} of the batch`];
  const { loss, outputs } = observed(task.modules, pass);
  const value = await loss.item();
  loss.dispose();
  for (const { key, total } of outputs) if (!allFinite(await total)) return [`the output of ${key}`];
  if (!Number.isFinite(value)) return ['the loss; all layers before it are finite'];

  const order = new Map(outputs.map(({ key }, i) => [key, i]));
  const place = (key: string) => order.get(key.replace(/\.(weight|bias)$/, '')) ?? -1;
  const gradients: string[] = [];
  for (const [key, p] of [...parameters].sort(([a], [b]) => place(a) - place(b))) {
    if (p.grad && !allFinite(await p.grad.read())) gradients.push(`the gradient of ${key}`);
  }
  return gradients;
}

/** A pass, and the sum over what each layer made in it: one number to look at in place of a feature map. */
function observed(modules: Learner['task']['modules'], pass: Pass) {
  const outputs: { key: string; total: Promise<ArrayLike<number>> }[] = [];
  const seen = (name: string) => (key: string, output: Tensor) => {
    const total = noGrad(() => scope(() => sum(output.detach().to('f32'))));
    outputs.push({ key: `${name}.${key}`, total: total.read() });
    total.dispose();
  };
  const loss = pass((run) => {
    let watched = run;
    for (const [name, module] of Object.entries(modules)) {
      const inner = watched;
      watched = () => observe(module, seen(name), inner);
    }
    return watched();
  });
  return { loss, outputs };
}

function list(names: string[]): string[] {
  const more = names.length > 3 ? [`  … and ${names.length - 3} more`] : [];
  return [...names.slice(0, 3).map((name) => `  not finite: ${name}`), ...more];
}

/** Are all of them numbers, and none infinite? */
export function allFinite(numbers: ArrayLike<number>): boolean {
  for (let i = 0; i < numbers.length; i++) if (!Number.isFinite(numbers[i])) return false;
  return true;
}
