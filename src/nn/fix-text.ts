/**
 * Repairs text as CLIP's tokenizer expects it: the part of ftfy's `fix_text` that changes prompts in practice.
 *
 * HTML entities, UTF-8 that was read as Windows-1252 ("cafÃ©"), ligatures, full-width letters, curly quotes,
 * line breaks and control characters; then Unicode NFC.
 * @see Speer 2019, ftfy. https://github.com/rspeer/python-ftfy
 */
export function fixText(text: string): string {
  if (!text.includes('<')) text = unescapeHtml(text); // ftfy leaves text alone that looks like real markup
  return unmangle(text)
    .replace(/[\uFB00-\uFB06\u0132\u0133]/g, (ligature) => ligature.normalize('NFKC'))
    .replace(/[\uFF01-\uFFEF\u3000]/g, (wide) => wide.normalize('NFKC'))
    .replace(/[\u02BC\u2018-\u201B]/g, "'")
    .replace(/[\u201C-\u201F]/g, '"')
    .replace(/\r\n?|[\u2028\u2029\x85]/g, '\n')
    .replace(/[\x00-\x08\x0B\x0E-\x1F\x7F\u206A-\u206F\uFEFF\uFFF9-\uFFFC]/g, '')
    .replace(/[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g, '\uFFFD')
    .normalize('NFC');
}

const entities: Record<string, string> = {
  amp: '&',
  lt: '<',
  gt: '>',
  quot: '"',
  apos: "'",
  nbsp: '\xA0',
  copy: '©',
  reg: '®',
  trade: '™',
  deg: '°',
  hellip: '…',
  mdash: '—',
  ndash: '–',
  lsquo: '‘',
  rsquo: '’',
  ldquo: '“',
  rdquo: '”',
  laquo: '«',
  raquo: '»',
  times: '×',
  middot: '·',
  bull: '•',
  euro: '€',
  pound: '£',
  yen: '¥',
  eacute: 'é',
  egrave: 'è',
  agrave: 'à',
  ccedil: 'ç',
  ntilde: 'ñ',
  auml: 'ä',
  ouml: 'ö',
  uuml: 'ü',
  Auml: 'Ä',
  Ouml: 'Ö',
  Uuml: 'Ü',
  szlig: 'ß',
};

function unescapeHtml(text: string): string {
  return text.replace(/&(?:#(\d{1,7})|#[xX]([\da-fA-F]{1,6})|([a-zA-Z]{2,8}));/g, (whole, decimal, hex, name) => {
    if (name) return Object.hasOwn(entities, name) ? entities[name] : whole;
    const code = decimal ? Number(decimal) : parseInt(hex, 16);
    return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });
}

// Windows-1252 gives bytes 0x80 … 0x9F these characters; the five holes keep their code.
const upper = '€\x81‚ƒ„…†‡ˆ‰Š‹Œ\x8DŽ\x8F\x90‘’“”•–—˜™š›œ\x9DžŸ';
const tail = `[\\x80-\\xBF${upper}]`;
const mangled = new RegExp(`[ÂÃ]${tail}|â${tail}{2}|ð${tail}{3}`, 'g');

/** "cafÃ©" → "café", and so on for what hardly anyone means to write: Ã·, â€·, ðŸ·· */
function unmangle(text: string): string {
  return text.replace(mangled, (found) => {
    const bytes = Uint8Array.from(found, (c) => (upper.includes(c) ? 0x80 + upper.indexOf(c) : c.charCodeAt(0)));
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    } catch {
      return found;
    }
  });
}
