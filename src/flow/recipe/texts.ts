/** What the frozen text encoder says about every caption, kept on the host. */
import type { CLIPTextModel } from '../../nn/index.ts';
import type { ClipTokenizer } from '../../nn/tokenizer.ts';
import { noGrad, scope, tensor } from '../../tensor/index.ts';
import type { Tensor } from '../../tensor/index.ts';

export class TextTable {
  readonly #rows = new Map<string, Float32Array>();

  private constructor(
    readonly tokens: number,
    readonly width: number,
  ) {}

  static async encode(
    texts: Iterable<string>,
    tokenizer: ClipTokenizer,
    encoder: CLIPTextModel,
    batchSize = 64,
  ): Promise<TextTable> {
    const unique = [...new Set(texts)];
    const table = new TextTable(tokenizer.maxLength, encoder.config.hidden_size);
    const size = table.tokens * table.width;
    for (let from = 0; from < unique.length; from += batchSize) {
      const part = unique.slice(from, from + batchSize);
      const { ids } = tokenizer.encodeBatch(part);
      const output = noGrad(() =>
        scope(() => encoder.forward(tensor(ids, [part.length, table.tokens], { dtype: 'i32' })).lastHiddenState),
      );
      const rows = (await output.read()) as Float32Array;
      output.dispose();
      part.forEach((text, i) => table.#rows.set(text, rows.slice(i * size, (i + 1) * size)));
    }
    return table;
  }

  /** → [B, T, D] */
  batch(texts: readonly string[]): Tensor {
    const size = this.tokens * this.width;
    const rows = new Float32Array(texts.length * size);
    texts.forEach((text, i) => {
      const row = this.#rows.get(text);
      if (!row) throw new Error(`no encoding of "${text}"`);
      rows.set(row, i * size);
    });
    return tensor(rows, [texts.length, this.tokens, this.width]);
  }
}
