import type { GpuArray } from '../kernels/index.ts';
import { scope } from './scope.ts';
import { isRecording, Node, noting, withGrad } from './tape.ts';
import type { Segment } from './tape.ts';
import { Tensor } from './tensor.ts';

const list = (made: Tensor | readonly Tensor[]): readonly Tensor[] => (made instanceof Tensor ? [made] : made);

/**
 * `fn(...inputs)` that keeps its inputs and outputs only; backward runs it again for the rest. Costs one more forward
 * pass, saves all that `fn` would have kept in between. Gradients are those of a plain call, to the bit.
 *
 * `fn` must do the same each time: same ops, same random numbers. Tensors that it takes from around it, such as the weights
 * of a layer, get their gradients too; what was computed outside and is freed before `backward()` must be an input.
 *
 *     x = checkpoint((x) => block.forward(x), x);
 *
 * @see Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost, §4. https://arxiv.org/abs/1604.06174
 */
export function checkpoint<I extends readonly Tensor[], O extends Tensor | readonly Tensor[]>(
  fn: (...inputs: I) => O,
  ...inputs: I
): O {
  if (!isRecording()) return fn(...inputs);
  let single = false;
  const [outputs, used] = noting(() =>
    scope(() => {
      const made = fn(...inputs);
      single = made instanceof Tensor;
      return list(made).map((y) => ({ array: y.array.view(), node: y.node }));
    }),
  );
  // An output that is an input, or from outside, still has its node.
  const from = [...new Set([...used, ...outputs.flatMap(({ node }) => node ?? [])])];
  const segment: Segment = { nodes: [], again: againFrom(fn, inputs) };
  if (from.length > 0) {
    segment.nodes = outputs.map(() => {
      const kept = inputs.map((t) => t.array.view());
      return new Node(undefined, {}, from, kept, undefined, segment);
    });
  }
  const tensors = outputs.map(({ array }, i) => new Tensor(array, segment.nodes[i]));
  return (single ? tensors[0] : tensors) as unknown as O;
}

/** Run `fn` on stand-ins for its inputs that have the same numbers and the same place in the graph. */
function againFrom<I extends readonly Tensor[]>(fn: (...inputs: I) => Tensor | readonly Tensor[], inputs: I) {
  const nodes = inputs.map((t) => t.node);
  return (arrays: readonly GpuArray[]): (Node | undefined)[] =>
    withGrad(() =>
      scope(() => {
        const standIns = arrays.map((array, i) => {
          nodes[i]?.ref();
          return new Tensor(array, nodes[i]);
        });
        return list(fn(...(standIns as readonly Tensor[] as I))).map((y) => y.node?.ref());
      }),
    );
}
