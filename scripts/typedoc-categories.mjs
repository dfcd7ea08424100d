// A typedoc plugin: an export's category is the part of the engine that its source lies in.
import { Comment, CommentTag, Converter } from 'typedoc';

const categories = [
  [/tensor\/functions\//, 'Ops'],
  [/tensor\//, 'Tensor'],
  [/nn\/optim\//, 'Optimisers'],
  [/nn\/layers\//, 'Layers'],
  [/nn\/models\/|nn\/tokenizer/, 'Models'],
  [/nn\//, 'Modules'],
  [/flow\//, 'Flow'],
  [/kernels\//, 'Kernels'],
];

export function load(app) {
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => {
    for (const reflection of project.children ?? []) {
      const file = project.getSymbolIdFromReflection(reflection)?.packagePath ?? '';
      const category = categories.find(([pattern]) => pattern.test(file))?.[1];
      if (!category) continue;
      reflection.comment ??= new Comment();
      reflection.comment.blockTags.push(new CommentTag('@category', [{ kind: 'text', text: category }]));
    }
  });
}
