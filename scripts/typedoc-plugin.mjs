// A typedoc plugin: an export's category is the part of the engine that its source lies in, and a field without a doc
// comment is described by what stands behind it:   weight: Parameter; // [O, I]
import { Comment, CommentTag, Converter, ReflectionKind } from 'typedoc';

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
  app.converter.on(Converter.EVENT_CREATE_DECLARATION, (context, reflection) => {
    if (reflection.comment || reflection.kind !== ReflectionKind.Property) return;
    const declaration = context.getSymbolFromReflection(reflection)?.declarations?.[0];
    const behind = declaration?.getSourceFile().text.slice(declaration.end);
    const words = /^[;,]?[ \t]*\/\/ (.*)/.exec(behind ?? '')?.[1];
    if (words) reflection.comment = new Comment([{ kind: 'text', text: words }]);
  });
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => {
    for (const reflection of project.children ?? []) {
      const file = project.getSymbolIdFromReflection(reflection)?.packagePath ?? '';
      const category = categories.find(([pattern]) => pattern.test(file))?.[1];
      // Only where there is a comment already: an empty one would hide that it is missing.
      const { comment } = reflection.signatures?.[0] ?? reflection;
      if (category) comment?.blockTags.push(new CommentTag('@category', [{ kind: 'text', text: category }]));
    }
  });
}
