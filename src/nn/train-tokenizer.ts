import { byteSymbols, END, splitPieces, START } from './byte-pairs.ts';

/** The two files of a CLIP tokenizer. */
export interface TrainedTokenizer {
  vocab: Record<string, number>;
  vocabJson: string;
  merges: string;
}

/**
 * Learn a byte-pair vocabulary from texts: start from the 256 bytes, with and without `</w>`, then merge the most frequent
 * neighbours again and again. Equal counts go by spelling, so the same texts in any order give the same files.
 *
 * `vocabSize` counts everything (at least 514); the result is smaller when no pair is left that occurs twice.
 * @see Sennrich et al. 2016, algorithm 1. https://arxiv.org/abs/1508.07909
 */
export function trainBytePairTokenizer(texts: Iterable<string>, vocabSize: number): TrainedTokenizer {
  const smallest = 2 * byteSymbols.length + 2;
  if (!(vocabSize >= smallest)) {
    throw new Error(`trainBytePairTokenizer: vocabSize ${vocabSize} is below ${smallest} (2 × 256 bytes, start, end)`);
  }
  const words = countWords(texts);
  const pairs = new Map<string, number>(); // 'left right' → how often they are neighbours
  const add = (symbols: string[], count: number) => {
    for (let i = 0; i + 1 < symbols.length; i++) {
      const pair = `${symbols[i]} ${symbols[i + 1]}`;
      pairs.set(pair, (pairs.get(pair) ?? 0) + count);
    }
  };
  for (const { symbols, count } of words) add(symbols, count);

  const merges: string[] = [];
  const known = new Set<string>(); // two merges can spell the same symbol
  while (smallest + known.size < vocabSize) {
    const best = mostFrequent(pairs);
    if (best === undefined) break;
    const [left, right] = best.split(' ');
    merges.push(best);
    known.add(left + right);
    for (const word of words) {
      if (!neighbours(word.symbols, left, right)) continue;
      add(word.symbols, -word.count);
      word.symbols = merge(word.symbols, left, right);
      add(word.symbols, word.count);
    }
    pairs.delete(best);
  }

  const symbols = byteSymbols.map(([, symbol]) => symbol);
  const tokens = [...symbols, ...symbols.map((symbol) => `${symbol}</w>`), ...known, START, END];
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  return { vocab, vocabJson: JSON.stringify(vocab), merges: ['#version: 0.2', ...merges, ''].join('\n') };
}

interface Word {
  symbols: string[];
  count: number;
}

function countWords(texts: Iterable<string>): Word[] {
  const symbolOf = new Map(byteSymbols);
  const counts = new Map<string, number>();
  for (const text of texts) for (const piece of splitPieces(text)) counts.set(piece, (counts.get(piece) ?? 0) + 1);
  return [...counts].map(([piece, count]) => {
    const symbols = Array.from(new TextEncoder().encode(piece), (byte) => symbolOf.get(byte)!);
    symbols[symbols.length - 1] += '</w>';
    return { symbols, count };
  });
}

function mostFrequent(pairs: Map<string, number>): string | undefined {
  let best: string | undefined;
  let most = 1; // a pair seen once is not worth a token
  for (const [pair, count] of pairs) {
    if (count > most || (count === most && best !== undefined && pair < best)) [best, most] = [pair, count];
  }
  return best;
}

function neighbours(symbols: string[], left: string, right: string): boolean {
  for (let i = 0; i + 1 < symbols.length; i++) if (symbols[i] === left && symbols[i + 1] === right) return true;
  return false;
}

function merge(symbols: string[], left: string, right: string): string[] {
  const merged: string[] = [];
  for (let i = 0; i < symbols.length; i++) {
    const pair = symbols[i] === left && symbols[i + 1] === right;
    merged.push(pair ? left + right : symbols[i]);
    if (pair) i++;
  }
  return merged;
}
