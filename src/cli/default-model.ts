import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The model that ships with the package: models/emoji beside dist/, or in the checkout. */
export function shippedModel(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  for (let i = 0; i < 5; i++, folder = dirname(folder)) {
    const model = join(folder, 'models', 'emoji');
    if (existsSync(join(model, 'model_index.json'))) return model;
  }
  throw new Error(
    'the model that ships with rectiflow is not here\n  train one with: rectiflow train, then give --model runs/emoji/model',
  );
}
