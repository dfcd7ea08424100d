import { fixText } from './fix-text.ts';

export const START = '<|startoftext|>';
export const END = '<|endoftext|>';

/** CLIP cuts text into contractions, words, single digits and runs of anything else. */
export const piecePattern = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";

/**
 * The printable character that stands for each byte in vocab.json, in the order of CLIP's first 256 ids: visible Latin-1
 * stands for itself, the other 68 bytes are moved to U+0100 and up.
 */
export const byteSymbols: [byte: number, symbol: string][] = (() => {
  const visible = (b: number) => (b > 32 && b < 127) || (b > 160 && b < 256 && b !== 173);
  const bytes = Array.from({ length: 256 }, (_, b) => b);
  const moved = bytes.filter((b) => !visible(b)).map((b, i) => [b, String.fromCharCode(256 + i)]);
  return [...bytes.filter(visible).map((b) => [b, String.fromCharCode(b)]), ...moved] as [number, string][];
})();

/** Text → pieces, as the tokenizer sees them before merging. */
export function splitPieces(text: string): string[] {
  return fixText(text).replace(/\s+/g, ' ').toLowerCase().match(new RegExp(piecePattern, 'gu')) ?? [];
}
