// Draw the diagrams of docs/ into docs/pictures/*.svg:   node scripts/doc-pictures.mjs
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './bundle.mjs';

const blue = '#0072b2';
const orange = '#d55e00';
const green = '#009e73';
const pink = '#cc79a7';
const grey = '#8c959f';
const pale = '#eaeef2';
const ink = '#1f2328';

const rect = (x, y, w, h, { fill = 'none', stroke = grey, opacity = 1, width = 1, dash = '' } = {}) =>
  `<rect x="${x}" y="${y}" width="${w}" height="${h}" fill="${fill}" fill-opacity="${opacity}" stroke="${stroke}"` +
  ` stroke-width="${width}"${dash && ` stroke-dasharray="${dash}"`}/>`;
const escape = (s) => s.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
const text = (x, y, s, { size = 13, anchor = 'start', fill = ink, bold = false, turn = 0 } = {}) =>
  `<text x="${x}" y="${y}" font-size="${size}" text-anchor="${anchor}" fill="${fill}"${bold ? ' font-weight="bold"' : ''}` +
  `${turn ? ` transform="rotate(${turn} ${x} ${y})"` : ''}>${escape(s)}</text>`;
const lines = (x, y, list, style = {}) => list.map((s, i) => text(x, y + 17 * i, s, style)).join('');
const arrow = (x1, y1, x2, y2, { stroke = ink, dash = '' } = {}) =>
  `<path d="M${x1} ${y1}L${x2} ${y2}" stroke="${stroke}" fill="none" stroke-width="1.5" marker-end="url(#tip${stroke === ink ? '' : 'O'})"${dash && ` stroke-dasharray="${dash}"`}/>`;
const cells = (x, y, columns, rows, width, paint, height = width) => {
  let out = '';
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < columns; c++) out += rect(x + c * width, y + r * height, width, height, paint(c, r));
  return out;
};

function picture(name, width, height, parts) {
  const marker = (id, fill) =>
    `<marker id="${id}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">` +
    `<path d="M0 0L8 4L0 8z" fill="${fill}"/></marker>`;
  const tip = `<defs>${marker('tip', ink)}${marker('tipO', orange)}</defs>`;
  const svg =
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" ` +
    `font-family="Helvetica, Arial, 'DejaVu Sans', sans-serif">${tip}${rect(0, 0, width, height, { fill: '#ffffff', stroke: 'none' })}` +
    `${parts.flat(3).join('')}</svg>\n`;
  writeFileSync(join(root, 'docs', 'pictures', `${name}.svg`), svg);
  console.log(`docs/pictures/${name}.svg`);
}

/** Two ways to make a tile of y = A·B: in the registers of one subgroup, and through workgroup memory. */
function matmul() {
  const lane = [blue, orange, green, pink, '#e69f00', '#56b4e9', '#999999', '#f0e442'];
  const thin = { stroke: '#ffffff', width: 0.5 };
  const muted = { fill: '#57606a' };
  const left = [
    text(20, 28, 'subgroup-tile: software adapters', { bold: true, size: 15 }),
    text(276, 62, 'B: 8 steps of k × 64 columns', { anchor: 'middle' }),
    cells(116, 72, 64, 1, 5, (c) => ({ fill: lane[c % 8], opacity: 0.2, ...thin }), 48),
    cells(116, 84, 64, 1, 5, (c) => ({ fill: lane[c % 8], opacity: 0.95, ...thin }), 6),
    text(60, 126, '16 rows × 8 k', { anchor: 'middle' }),
    cells(20, 136, 8, 1, 10, (c) => ({ fill: lane[c], opacity: c === 2 ? 0.95 : 0.3, ...thin }), 160),
    cells(116, 136, 64, 1, 5, (c) => ({ fill: lane[c % 8], opacity: 0.35, ...thin }), 160),
    Array.from({ length: 15 }, (_, r) => rect(20, 146 + 10 * r, 416, 0, { stroke: '#ffffff' })),
    text(60, 314, 'A', { anchor: 'middle' }),
    text(276, 314, 'y: 16 × 64, a colour for each of the 8 lanes', { anchor: 'middle' }),
    lines(
      20,
      342,
      [
        'Each lane loads A at its own k, once for 8 steps, and hands it',
        'round by shuffles; it loads B for its own 8 columns at each step.',
        '80 loads for 1,024 multiply-adds a lane.',
      ],
      muted,
    ),
  ];
  const hot = (on, fill) => ({ fill: on ? fill : pale, opacity: on ? 0.9 : 1, stroke: '#ffffff' });
  const right = [
    text(490, 28, 'workgroup-tile: GPUs', { bold: true, size: 15 }),
    text(690, 56, 'B: 16 × 64', { anchor: 'middle' }),
    rect(604, 66, 172, 52, { dash: '4 3' }),
    cells(610, 72, 16, 4, 10, (c) => hot(c === 5, blue)),
    text(530, 128, 'A: 64 × 16', { anchor: 'middle' }),
    rect(504, 138, 52, 172, { dash: '4 3' }),
    cells(510, 144, 4, 16, 10, (c, r) => hot(r === 9, orange)),
    cells(610, 144, 16, 16, 10, (c, r) => hot(c === 5 && r === 9, green)),
    text(690, 328, 'y: 64 × 64; a thread makes 4 × 4 (green)', { anchor: 'middle' }),
    lines(
      490,
      352,
      [
        'A square is 4 × 4 numbers. 256 threads fetch the dashed',
        'slices into workgroup memory, 8 loads each, and make',
        '256 multiply-adds each from there; then the next 16 of K.',
      ],
      muted,
    ),
  ];
  picture('matmul', 880, 400, [left, right]);
}

/** Convolution as a product whose left matrix is gathered from the picture and never stored. */
function conv2d() {
  const size = 22;
  const muted = { fill: '#57606a' };
  const white = { fill: pale, stroke: '#ffffff' };
  const taps = (c, r) => c >= 2 && c <= 4 && r >= 1 && r <= 3;
  const shade = (c, r) => 0.35 + 0.6 * (((r - 1) * 3 + (c - 2)) / 8);
  const parts = [
    text(20, 30, 'x: [B, H, W, C]', { bold: true, size: 15 }),
    cells(20, 46, 8, 8, size, (c, r) => (taps(c, r) ? { fill: blue, opacity: shade(c, r), stroke: '#ffffff' } : white)),
    rect(20 + 3 * size, 46 + 2 * size, size, size, { stroke: orange, width: 3 }),
    lines(
      20,
      268,
      ['The 3 × 3 taps of output', 'pixel q. A cell is C numbers,', 'side by side in memory:', 'channels come last.'],
      muted,
    ),
    arrow(204, 46 + 3.5 * size, 262, 46 + 3.5 * size),
    text(290, 30, 'A: [pixels, taps · C]', { bold: true, size: 15 }),
    text(282, 46 + 3.7 * size, 'q', { anchor: 'end', fill: orange, bold: true }),
    cells(290, 46, 9, 8, size, (c, r) =>
      r === 3 ? { fill: blue, opacity: 0.35 + (0.6 * c) / 8, stroke: '#ffffff' } : { fill: '#ffffff', stroke: pale },
    ),
    lines(
      290,
      268,
      [
        'Row q is gathered while the',
        'sum runs; A is never stored.',
        'Taps that fall on the padding',
        'count as zeros.',
      ],
      muted,
    ),
    text(514, 46 + 4.2 * size, '·', { size: 34, anchor: 'middle' }),
    text(544, 30, 'w: [taps · C, O]', { bold: true, size: 15 }),
    cells(544, 46, 4, 9, size, (c, r) => ({
      fill: green,
      opacity: c === 1 ? 0.25 + (0.6 * r) / 8 : 0.12,
      stroke: '#ffffff',
    })),
    lines(544, 268, ['A column for each', 'output channel.'], muted),
    text(672, 46 + 4.2 * size, '=', { size: 26, anchor: 'middle' }),
    text(714, 30, 'y: [pixels, O]', { bold: true, size: 15 }),
    cells(714, 46, 4, 8, size, (c, r) =>
      r === 3 && c === 1 ? { fill: orange, opacity: 0.9, stroke: '#ffffff' } : white,
    ),
    lines(714, 268, ['+ bias[o]', '+ temb[image, o]', '+ residual[q, o]'], muted),
  ];
  picture('conv2d', 880, 336, parts);
}

/** A block of query rows passes over the keys; what it has passed is forgotten but for a maximum, a sum and an output. */
function attention() {
  const [x, y] = [150, 84];
  const parts = [
    text(20, 30, 'The scores of one head, a block of 16 queries at a time', { bold: true, size: 15 }),
    rect(x, y, 360, 240, { fill: '#ffffff', dash: '4 3' }),
    text(x + 180, y - 14, 'keys: all of them, up to 32 at a time', { anchor: 'middle' }),
    text(x - 14, y + 120, 'queries', { anchor: 'middle', turn: -90 }),
    rect(x, y + 80, 180, 40, { fill: blue, opacity: 0.12, stroke: 'none' }),
    rect(x + 180, y + 80, 60, 40, { fill: blue, opacity: 0.8, stroke: blue }),
    text(x + 210, y + 105, 'now', { anchor: 'middle', fill: '#ffffff', bold: true }),
    text(x + 90, y + 105, 'passed, forgotten', { anchor: 'middle', fill: '#57606a' }),
    text(x + 300, y + 105, 'to come', { anchor: 'middle', fill: '#57606a' }),
    arrow(x + 244, y + 130, x + 330, y + 130),
    rect(40, y + 80, 76, 40, { fill: orange, opacity: 0.7, stroke: orange }),
    text(78, y + 105, 'q', { anchor: 'middle', fill: '#ffffff', bold: true }),
    text(78, y + 138, 'held', { anchor: 'middle', fill: '#57606a' }),
    lines(560, 74, [
      'In registers, for each of the 16 queries:',
      '',
      'top: the largest score so far',
      'total: Σ exp(score − top)',
      'out: Σ exp(score − top) · v',
      '',
      'A new block of scores may raise top. Then',
      'total and out shrink by exp(old − new) and',
      'the block is added to both.',
      '',
      'At the end',
      'y = out / total',
      'logSumExp = top + ln total',
      '',
      'Stored: y, and one number for each query.',
    ]),
    text(x + 180, y + 264, 'The dashed matrix is never in memory: [Tq, Tk] for each head', {
      anchor: 'middle',
      fill: '#57606a',
    }),
  ];
  picture('attention', 860, 370, parts);
}

/** Sums by channel and chunk of pixels; merged for each group; one multiply-add for each number. */
function groupNorm() {
  const size = 16;
  const colours = [blue, orange, green];
  const sheet = (x, y, opacity) =>
    cells(x, y, 6, 12, size, (c, r) => ({ fill: colours[c >> 1], opacity: opacity(c, r), stroke: '#ffffff' }));
  const parts = [
    text(20, 30, 'x: pixels × channels of one image', { bold: true, size: 15 }),
    sheet(60, 62, (c, r) => 0.25 + 0.5 * ((r >> 2) % 2)),
    text(108, 54, '3 groups of 2 channels', { anchor: 'middle', fill: '#57606a' }),
    text(50, 62 + 6 * size, 'pixels, in chunks', { anchor: 'middle', turn: -90, fill: '#57606a' }),
    arrow(170, 158, 250, 158),
    text(210, 146, 'sums', { anchor: 'middle', bold: true }),
    cells(268, 122, 6, 3, size, (c) => ({ fill: colours[c >> 1], opacity: 0.55, stroke: '#ffffff' })),
    lines(268, 196, ['Σ d and Σ d²', 'for each channel', 'and chunk;', 'd = x − first pixel'], { fill: '#57606a' }),
    arrow(378, 146, 462, 146),
    text(420, 134, 'finish', { anchor: 'middle', bold: true }),
    cells(480, 138, 3, 1, size, (c) => ({ fill: colours[c], opacity: 0.9, stroke: '#ffffff' })),
    lines(480, 190, ['mean and 1/σ of each group,', 'and from them for each', 'channel a scale and a shift'], {
      fill: '#57606a',
    }),
    arrow(542, 146, 680, 146),
    text(611, 134, 'apply', { anchor: 'middle', bold: true }),
    sheet(698, 62, () => 0.45),
    lines(668, 276, ['y = act(x · scale + shift)'], { fill: '#57606a' }),
  ];
  picture('group-norm', 860, 300, parts);
}

/** The graph that remains after loss = mse(silu(linear(x, w)), target). */
function autograd() {
  const node = (x, y, title, saved, colour = blue) => [
    rect(x, y, 150, 62, { fill: colour, opacity: 0.12, stroke: colour, width: 1.5 }),
    text(x + 75, y + 25, title, { anchor: 'middle', bold: true, size: 15 }),
    text(x + 75, y + 47, saved, { anchor: 'middle', fill: '#57606a', size: 12 }),
  ];
  const parts = [
    text(20, 30, 'loss = mse(silu(linear(x, w)), target)', { bold: true, size: 15 }),
    node(30, 110, 'w', 'a leaf: gets .grad', green),
    node(250, 110, 'linear', 'saves x, w'),
    node(470, 110, 'silu', 'saves h'),
    node(690, 110, 'mse', 'saves y, target'),
    arrow(250, 128, 184, 128),
    arrow(470, 128, 404, 128),
    arrow(690, 128, 624, 128),
    text(437, 100, 'parents', { anchor: 'middle', fill: '#57606a', size: 12 }),
    text(765, 62, 'loss', { anchor: 'middle', bold: true }),
    arrow(765, 70, 765, 104),
    ...[
      [765, 'dy = 1'],
      [545, '∂loss/∂y'],
      [325, '∂loss/∂h'],
      [105, '∂loss/∂w'],
    ]
      .map(([x, s]) => [arrow(x, 226, x, 178), text(x, 244, s, { anchor: 'middle', fill: orange })])
      .flat(),
    arrow(735, 239, 590, 239, { stroke: orange }),
    arrow(500, 239, 370, 239, { stroke: orange }),
    arrow(280, 239, 150, 239, { stroke: orange }),
    lines(
      20,
      280,
      [
        'backward() goes from the latest node to the earliest and frees what each had saved.',
        'x and target ask for no gradient, so they have no node.',
      ],
      { fill: '#57606a' },
    ),
  ];
  picture('autograd', 880, 316, parts);
}

mkdirSync(join(root, 'docs', 'pictures'), { recursive: true });
for (const draw of [matmul, conv2d, attention, groupNorm, autograd]) draw();
