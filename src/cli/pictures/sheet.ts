import sharp from 'sharp';
import { encodePng, renderSvg, type RgbImage } from './image.ts';
import { drawText, ink, textWidth, wrapEvenly, wrapText } from './text.ts';

export interface SheetCell {
  image: RgbImage;
  caption?: string;
}

/** Pictures in rows and columns, with words around them. */
export interface Sheet {
  title?: string;
  subtitle?: string;
  columns?: { title: string; note?: string }[]; // e.g. 'distilled 1 step' and '0.05 s'
  rows: { title?: string; cells: (SheetCell | RgbImage | undefined)[] }[];
  footer?: string; // a credit, for one
  cellSize?: number; // about how many pixels wide a picture is shown (128)
}

const margin = 24,
  gap = 12;
const size = { title: 20, subtitle: 14, column: 14, note: 13, row: 14, caption: 13, footer: 12 };
const leading = 1.3;

/** Draw a sheet as PNG. Small pictures are enlarged in whole pixels, so that what the model made is what one sees. */
export async function drawSheet(sheet: Sheet): Promise<Buffer> {
  const rows = sheet.rows.map(({ title, cells }) => ({ title, cells: cells.map(asCell) }));
  const cells = rows.flatMap((row) => row.cells).filter((cell) => cell !== undefined);
  if (cells.length === 0) throw new Error('sheet: there are no pictures to show');
  const cell = shownSize(
    Math.max(...cells.map(({ image }) => image.width)),
    Math.max(...cells.map(({ image }) => image.height)),
    sheet.cellSize ?? 128,
  );
  const columns = Math.max(sheet.columns?.length ?? 0, ...rows.map((row) => row.cells.length));

  const rowTitles = rows.map((row) => wrapEvenly(row.title ?? '', size.row, 150, 3));
  const titleWidth = Math.ceil(Math.max(0, ...rowTitles.flat().map((line) => textWidth(line, size.row))));
  const left = margin + (titleWidth ? titleWidth + gap : 0);
  const headings = Array.from({ length: columns }, (_, i) => ({
    title: wrapEvenly(sheet.columns?.[i]?.title ?? '', size.column * 1.06, cell.width, 3),
    note: wrapText(sheet.columns?.[i]?.note ?? '', size.note, cell.width, 2),
  }));
  const gridWidth = columns * (cell.width + gap) - gap;
  const words = [sheet.title ?? '', sheet.subtitle ?? ''].map((text, i) =>
    textWidth(text, i ? size.subtitle : size.title * 1.06),
  );
  const width = Math.ceil(Math.max(left + gridWidth, margin + Math.min(Math.max(...words), 640)) + margin);

  const svg: string[] = [];
  const pictures: { input: Buffer; left: number; top: number }[] = [];
  let y = margin;
  const write = (lines: string[], x: number, style: { size: number; bold?: boolean; colour?: string }) => {
    for (const line of lines) {
      svg.push(drawText(line, x, y + style.size * 0.95, style));
      y += Math.round(style.size * leading);
    }
  };
  write(wrapText(sheet.title ?? '', size.title * 1.06, width - 2 * margin), margin, { size: size.title, bold: true });
  write(wrapText(sheet.subtitle ?? '', size.subtitle, width - 2 * margin, 4), margin, {
    size: size.subtitle,
    colour: ink.muted,
  });
  if (y > margin) y += gap;

  if (sheet.columns?.length) {
    const heights = headings.map(
      ({ title, note }) =>
        title.length * Math.round(size.column * leading) + note.length * Math.round(size.note * leading),
    );
    const bottom = y + Math.max(...heights);
    headings.forEach((heading, i) => {
      y = bottom - heights[i]; // all end on one line, just above the pictures
      write(heading.title, left + i * (cell.width + gap), { size: size.column, bold: true });
      write(heading.note, left + i * (cell.width + gap), { size: size.note, colour: ink.muted });
    });
    y = bottom + gap / 2;
  }

  for (const [r, row] of rows.entries()) {
    const top = y;
    const titleHeight = rowTitles[r].length * size.row * leading;
    y = top + Math.max(0, (cell.height - titleHeight) / 2);
    write(rowTitles[r], margin, { size: size.row });
    let bottom = top + cell.height;
    for (const [c, item] of row.cells.entries()) {
      const x = left + c * (cell.width + gap);
      svg.push(
        `<rect x="${x - 0.5}" y="${top - 0.5}" width="${cell.width + 1}" height="${cell.height + 1}"` +
          ` fill="${ink.grid}" stroke="${ink.line}"/>`,
      );
      if (!item) continue;
      pictures.push({ input: await encodePng(item.image, cell.width, cell.height), left: x, top });
      y = top + cell.height + 5;
      write(wrapEvenly(item.caption ?? '', size.caption, cell.width, 3), x, { size: size.caption });
      if (item.caption) bottom = Math.max(bottom, y);
    }
    y = bottom + gap;
  }
  if (sheet.footer) {
    y += gap / 2;
    write(wrapText(sheet.footer, size.footer, width - 2 * margin, 4), margin, { size: size.footer, colour: ink.muted });
  }
  const height = Math.ceil(y - (sheet.footer ? 0 : gap) + margin);
  const background = await renderSvg(
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">` +
      `<rect width="100%" height="100%" fill="${ink.paper}"/>${svg.join('')}</svg>`,
  );
  return sharp(background).composite(pictures).removeAlpha().png().toBuffer();
}

/** Pictures one after the other, `perRow` to a row, each over its caption. */
export async function drawGrid(
  cells: (SheetCell | RgbImage)[],
  options: Omit<Sheet, 'rows' | 'columns'> & { perRow?: number } = {},
): Promise<Buffer> {
  const perRow = options.perRow ?? Math.max(1, Math.ceil(Math.sqrt(cells.length)));
  const rows = Array.from({ length: Math.ceil(cells.length / perRow) }, (_, r) => ({
    cells: cells.slice(r * perRow, (r + 1) * perRow),
  }));
  return drawSheet({ ...options, rows });
}

function asCell(cell: SheetCell | RgbImage | undefined): SheetCell | undefined {
  return cell === undefined || 'image' in cell ? cell : { image: cell };
}

/** A whole multiple of the size for small pictures, `wanted` for larger ones. */
function shownSize(width: number, height: number, wanted: number): { width: number; height: number } {
  const scale = width <= wanted ? Math.max(1, Math.round(wanted / width)) : wanted / width;
  return { width: Math.round(width * scale), height: Math.round(height * scale) };
}
