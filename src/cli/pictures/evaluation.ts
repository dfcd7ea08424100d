/** An evaluation as one picture: what each way of sampling makes of the same noise, over the errors of few steps. */
import sharp from 'sharp';
import type { Measured } from '../../flow/metrics/evaluation.ts';
import { networkTitles } from '../../flow/recipe/evaluation-data.ts';
import type { SampleSheet } from '../../flow/recipe/run.ts';
import { drawCurves } from './curves.ts';
import { imageFromFloats, renderSvg } from './image.ts';
import { drawSheet } from './sheet.ts';

export async function drawEvaluation({ rows, size, ...words }: SampleSheet, measured: Measured[]): Promise<Buffer> {
  const cells = rows.map(({ title, images }) => ({
    title,
    cells: images.map((image) => imageFromFloats(image, size)),
  }));
  const sheet = await drawSheet({ ...words, rows: cells, cellSize: 96 });
  const few = measured.filter(({ fewStepError }) => fewStepError !== undefined);
  if (few.length === 0) return sheet;
  const { width, height } = await sharp(sheet).metadata();
  const series = [...new Set(few.map(({ network }) => network))].map((name) => {
    const own = few.filter(({ network }) => network === name).sort((a, b) => a.steps - b.steps);
    return {
      name: networkTitles[name],
      x: own.map(({ steps }) => steps),
      y: own.map(({ fewStepError }) => fewStepError!),
    };
  });
  const most = Math.max(...measured.map(({ steps }) => steps));
  const curves = drawCurves(series, {
    title: `How far few steps are from ${most}`,
    xLabel: 'steps',
    yLabel: 'root mean square in the latents',
    width: Math.min(width, 900),
    height: 360,
  });
  const below = await renderSvg(curves);
  return sharp({ create: { width, height: height + 360, channels: 3, background: 'white' } })
    .composite([
      { input: sheet, left: 0, top: 0 },
      { input: below, left: 0, top: height },
    ])
    .png()
    .toBuffer();
}
