import { glyphs } from './glyphs.ts';

/** Text as SVG outlines: no font needed, and its width is known before it is drawn. */

export const ink = { text: '#1f2328', muted: '#656d76', line: '#d0d7de', grid: '#eaeef2', paper: '#ffffff' };

export interface TextStyle {
  size?: number; // pixels to the em (14)
  anchor?: 'start' | 'middle' | 'end'; // what of the text lies at x
  bold?: boolean;
  colour?: string;
  rotate?: number; // degrees around (x, y)
}

const em = 400; // glyph units

export function textWidth(text: string, size: number): number {
  let units = 0;
  for (const letter of text.normalize('NFC')) units += glyphs[letter]?.[0] ?? em;
  return (units * size) / em;
}

/** One line of text; (x, y) is on the baseline. What we have no outlines for is left to the machine's fonts. */
export function drawText(text: string, x: number, y: number, style: TextStyle = {}): string {
  const { size = 14, anchor = 'start', bold = false, colour = ink.text, rotate = 0 } = style;
  const letters = [...text.normalize('NFC')];
  const turn = rotate ? ` rotate(${rotate})` : '';
  if (letters.some((letter) => !glyphs[letter])) {
    return (
      `<text transform="translate(${x} ${y})${turn}" font-family="sans-serif" font-size="${size}" fill="${colour}"` +
      ` text-anchor="${anchor}"${bold ? ' font-weight="bold"' : ''}>${escapeXml(text)}</text>`
    );
  }
  const shift = { start: 0, middle: 0.5, end: 1 }[anchor] * textWidth(text, size);
  let at = 0,
    path = '';
  for (const letter of letters) {
    const [advance, outline] = glyphs[letter];
    if (outline) path += `M${at} 0${outline}`;
    at += advance;
  }
  const heavy = bold ? ` stroke="${colour}" stroke-width="14"` : '';
  const place = `translate(${round(x)} ${round(y)})${turn} translate(${round(-shift)} 0) scale(${size / em})`;
  return `<path transform="${place}" fill="${colour}"${heavy} d="${path}"/>`;
}

/** Text → lines no wider than `width`, at most `most` of them; what does not fit ends in '…'. A line break is kept. */
export function wrapText(text: string, size: number, width: number, most = 2): string[] {
  const [first, ...rest] = text.split('\n');
  const lines = wrapLine(first, size, width, Math.max(1, most - rest.length));
  return rest.length > 0 && lines.length < most
    ? [...lines, ...wrapText(rest.join('\n'), size, width, most - lines.length)]
    : lines;
}

/** As wrapText, with lines of about the same width: 'teacher, / 25 steps' and not 'teacher, 25 / steps'. */
export function wrapEvenly(text: string, size: number, width: number, most = 2): string[] {
  const lines = wrapText(text, size, width, most);
  if (lines.length < 2 || lines.at(-1)!.endsWith('…')) return lines;
  let best = lines;
  for (let narrower = width; ; narrower -= size / 4) {
    const tried = wrapText(text, size, narrower, most);
    if (tried.length > lines.length || tried.some((line) => line.endsWith('…'))) return best;
    best = tried;
  }
}

function wrapLine(text: string, size: number, width: number, most: number): string[] {
  const lines: string[] = [];
  let line = '';
  const words = text
    .trim()
    .split(/\s+/)
    .filter((word) => word !== '');
  for (const [i, word] of words.entries()) {
    const longer = line ? `${line} ${word}` : word;
    if (textWidth(longer, size) <= width) {
      line = longer;
    } else if (line === '' || lines.length === most - 1) {
      return [...lines, shorten([longer, ...words.slice(i + 1)].join(' '), size, width)];
    } else {
      lines.push(line);
      line = textWidth(word, size) <= width ? word : shorten(word, size, width);
    }
  }
  return line ? [...lines, line] : lines;
}

function shorten(text: string, size: number, width: number): string {
  const letters = [...text];
  while (letters.length > 1 && textWidth(`${letters.join('')}…`, size) > width) letters.pop();
  return `${letters.join('').trimEnd()}…`;
}

export function escapeXml(text: string): string {
  return text
    .replace(/[\x00-\x08\x0B\x0C\x0E-\x1F]/g, '')
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}

export function round(value: number): number {
  return Math.round(value * 100) / 100;
}
