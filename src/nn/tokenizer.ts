import { Tokenizer } from '@huggingface/tokenizers';
import { byteSymbols, END, piecePattern, START } from './byte-pairs.ts';
import { fixText } from './fix-text.ts';
export { trainBytePairTokenizer } from './train-tokenizer.ts';

/** What a tokenizer folder holds. `vocab` is vocab.json, `merges` is merges.txt, `config` tokenizer_config.json. */
export interface TokenizerFiles {
  vocab: string | Record<string, number>;
  merges: string;
  config?: { model_max_length?: number; pad_token?: string | { content: string } };
}

/** One text as the network takes it. */
export interface Encoded {
  ids: Int32Array; // [T], padded or cut to maxLength
  length: number; // tokens before padding, start and end included
  cut: string; // the end of the text that did not fit, '' when all of it did
}

/**
 * CLIP's byte-pair tokenizer: text → `[T]` ids, `start … end pad pad`.
 *
 * Text is repaired, put in NFC and lower case, cut into pieces, and each piece's UTF-8 bytes are merged pair by pair in
 * the order of merges.txt. The last symbol of a piece carries `</w>`.
 * @see Sennrich et al. 2016, Neural Machine Translation of Rare Words with Subword Units. https://arxiv.org/abs/1508.07909
 */
export class ClipTokenizer {
  readonly vocab: Record<string, number>;
  readonly vocabSize: number;
  readonly maxLength: number;
  readonly startId: number;
  readonly endId: number;
  readonly padId: number;
  #model: Tokenizer;
  #fixText: boolean;
  #symbols: string[] = [];

  /** `fixText: false` leaves out the repairs of fix-text.ts, as transformers does where ftfy is not installed. */
  constructor(files: TokenizerFiles, options: { maxLength?: number; fixText?: boolean } = {}) {
    this.vocab = typeof files.vocab === 'string' ? parseVocab(files.vocab) : files.vocab;
    const merges = parseMerges(files.merges, this.vocab);
    this.startId = this.#special(START);
    this.endId = this.#special(END);
    const pad = files.config?.pad_token;
    this.padId = pad === undefined ? this.endId : this.#special(typeof pad === 'string' ? pad : pad.content);
    const configured = files.config?.model_max_length; // transformers writes 1e30 for "no limit"
    this.maxLength = options.maxLength ?? (configured !== undefined && configured < 1e6 ? configured : 77);
    this.#fixText = options.fixText ?? true;
    for (const [symbol, id] of Object.entries(this.vocab)) this.#symbols[id] = symbol;
    this.vocabSize = this.#symbols.length;
    this.#model = buildModel(this.vocab, merges, this.startId, this.endId);
  }

  /** Ids of the whole text, start and end included, neither cut nor padded. */
  ids(text: string): number[] {
    return this.#model.encode(this.#fixText ? fixText(text) : text).ids;
  }

  /** text → ids: [maxLength] */
  encode(text: string): Encoded {
    const all = this.ids(text);
    const ids = new Int32Array(this.maxLength).fill(this.padId);
    if (all.length <= this.maxLength) {
      ids.set(all);
      return { ids, length: all.length, cut: '' };
    }
    ids.set(all.slice(0, this.maxLength - 1));
    ids[this.maxLength - 1] = this.endId;
    return { ids, length: this.maxLength, cut: this.decode(all.slice(this.maxLength - 1)) };
  }

  /** texts → ids: [B, maxLength] */
  encodeBatch(texts: string[]): { ids: Int32Array; lengths: number[]; cut: string[] } {
    const rows = texts.map((text) => this.encode(text));
    const ids = new Int32Array(rows.length * this.maxLength);
    rows.forEach((row, i) => ids.set(row.ids, i * this.maxLength));
    return { ids, lengths: rows.map((row) => row.length), cut: rows.map((row) => row.cut) };
  }

  /** ids → text, lower case, without start, end and padding; one space after every piece. */
  decode(ids: ArrayLike<number>): string {
    const skip = new Set([this.startId, this.endId]);
    const symbols = Array.from(ids)
      .filter((id) => !skip.has(id))
      .map((id) => this.#symbols[id] ?? '');
    const bytes = symbols.flatMap((symbol) => {
      const last = symbol.endsWith('</w>');
      const letters = [...(last ? symbol.slice(0, -4) : symbol)].map((letter) => byteOf.get(letter) ?? 0x3f);
      return last ? [...letters, 0x20] : letters;
    });
    return new TextDecoder().decode(Uint8Array.from(bytes)).trim();
  }

  #special(token: string): number {
    const id = this.vocab[token];
    if (id === undefined) throw new Error(`tokenizer: vocab.json has no '${token}'; is it from a CLIP text encoder?`);
    return id;
  }
}

const byteOf = new Map(byteSymbols.map(([byte, symbol]) => [symbol, byte]));

function parseVocab(json: string): Record<string, number> {
  let vocab: unknown;
  try {
    vocab = JSON.parse(json);
  } catch (error) {
    throw new Error(`tokenizer: vocab.json is not JSON (${(error as Error).message})`);
  }
  if (typeof vocab !== 'object' || vocab === null || !Object.values(vocab).every(Number.isInteger)) {
    throw new Error('tokenizer: vocab.json must be an object of token → id');
  }
  return vocab as Record<string, number>;
}

function parseMerges(text: string, vocab: Record<string, number>): [string, string][] {
  const merges: [string, string][] = [];
  text.split(/\r?\n/).forEach((line, i) => {
    if (line === '' || (i === 0 && line.startsWith('#version'))) return;
    const [left, right, ...rest] = line.split(' ');
    const wrong =
      !left || !right || rest.length > 0
        ? 'should be two symbols and a space'
        : vocab[left + right] === undefined
          ? `'${left + right}' is not in vocab.json`
          : '';
    if (wrong) throw new Error(`tokenizer: merges.txt:${i + 1}: ${wrong}\n  ${line}`);
    merges.push([left, right]);
  });
  return merges;
}

/** The pipeline that openai/clip-vit-large-patch14 has in its tokenizer.json. */
function buildModel(vocab: Record<string, number>, merges: [string, string][], start: number, end: number): Tokenizer {
  const special = (id: number, content: string) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
  return new Tokenizer(
    {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: [special(start, START), special(end, END)],
      normalizer: {
        type: 'Sequence',
        normalizers: [
          { type: 'NFC' },
          { type: 'Replace', pattern: { Regex: '\\s+' }, content: ' ' },
          { type: 'Lowercase' },
        ],
      },
      pre_tokenizer: {
        type: 'Sequence',
        pretokenizers: [
          { type: 'Split', pattern: { Regex: piecePattern }, behavior: 'Removed', invert: true },
          { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
        ],
      },
      post_processor: {
        type: 'RobertaProcessing',
        sep: [END, end],
        cls: [START, start],
        trim_offsets: false,
        add_prefix_space: false,
      },
      decoder: { type: 'ByteLevel' },
      model: {
        type: 'BPE',
        dropout: null,
        unk_token: END,
        continuing_subword_prefix: '',
        end_of_word_suffix: '</w>',
        fuse_unk: false,
        vocab,
        merges,
      },
    },
    {},
  );
}
