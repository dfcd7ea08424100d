/** Draws what training asks for: sample sheets and loss curves as PNG files, a report as a page. */
import { writeAtomic } from '../tensor/io/files-node.ts';
import type { Artist } from '../flow/recipe/run.ts';
import { drawCurves } from './pictures/curves.ts';
import { imageFromFloats, renderSvg } from './pictures/image.ts';
import { drawSheet } from './pictures/sheet.ts';
import { reportPage } from './report/page.ts';

export const artist: Artist = {
  async sheet(file, { size, rows, ...words }) {
    const cells = rows.map(({ title, images }) => ({
      title,
      cells: images.map((image) => imageFromFloats(image, size)),
    }));
    await writeAtomic(file, await drawSheet({ ...words, rows: cells, cellSize: 96 }));
  },
  async curve(file, { title, log }) {
    const x = log.map((line) => line.step);
    const svg = drawCurves([{ name: 'loss', x, y: log.map((line) => line.loss) }], {
      title,
      xLabel: 'step',
      yLabel: 'loss',
      logY: true,
      smoothing: 0.98,
    });
    await writeAtomic(file, await renderSvg(svg));
  },
  report: (file, report) => writeAtomic(file, reportPage(report)),
};
