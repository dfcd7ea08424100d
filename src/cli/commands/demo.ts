import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { currentGpu, init } from '../../tensor/index.ts';
import { writeAtomic } from '../../tensor/io/files-node.ts';
import { openModelFolder, readJson } from '../../flow/recipe/model-folder.ts';
import type { NetworkName, SampleResult } from '../../flow/pipelines/options.ts';
import { command, int, text } from '../command.ts';
import { modelPath } from '../model-path.ts';
import { imagesFromFloats } from '../pictures/image.ts';
import { formatParameters, writePng } from '../pictures/png.ts';
import { drawSheet } from '../pictures/sheet.ts';
import { slug } from './sample.ts';

const prompts = ['red apple', 'pizza', 'rocket', 'sunflower', 'tiger face', 'blue heart', 'penguin', 'rainbow'];

const ways: { title: string; which: NetworkName; steps?: number }[] = [
  { title: 'teacher', which: 'unet_teacher' },
  { title: 'after reflow', which: 'unet_reflow', steps: 1 },
  { title: 'distilled', which: 'unet', steps: 1 },
];

export default command(
  'demo',
  'sample the model that ships, with a side-by-side sheet: the same noise through every network',
  {
    model: text(undefined, 'another model with its three networks: a folder, or an id of the hub'),
    out: text('demo', 'folder for the pictures'),
    seed: int(7, 'of the first prompt', { min: 0 }),
  },
  async ({ model: word, out, seed }) => {
    const model = await modelPath(word);
    const gpu = await init();
    try {
      console.log(`adapter: ${gpu.capabilities.name}`);
      const pipeline = await openModelFolder(model, { networks: ways.map(({ which }) => which) });
      await mkdir(out, { recursive: true });
      const results: SampleResult[] = [];
      for (const { title, which, steps } of ways) {
        // The first run compiles the kernels; the second is timed.
        await pipeline.sample({ prompts, seeds: seed, which, steps: 1 });
        const result = await pipeline.sample({ prompts, seeds: seed, which, steps });
        console.log(`${title}: ${describe(result)}`);
        results.push(result);
      }
      const distilled = results.at(-1)!;
      for (const [i, image] of imagesFromFloats(distilled.images, distilled.width).entries()) {
        const settings = {
          Steps: 1,
          Sampler: 'euler',
          'CFG scale': 1,
          Seed: seed + i,
          Size: `${image.width}x${image.height}`,
          Model: 'emoji',
        };
        const file = join(out, `${slug(prompts[i])}.png`);
        await writePng(file, image, formatParameters({ prompt: prompts[i], settings }));
        console.log(file);
      }
      const columns = results.map((result, i) => ({
        title: `${ways[i].title}, ${result.steps} step${result.steps > 1 ? 's' : ''}`,
        note: perImage(result),
      }));
      const pictures = results.map((result) => imagesFromFloats(result.images, result.width));
      const { attribution = '' } = await readJson(join(model, 'recipe.json')).catch(
        () => ({}) as { attribution?: string },
      );
      const sheet = join(out, 'side-by-side.png');
      await writeAtomic(
        sheet,
        await drawSheet({
          title: 'The same noise, three networks',
          subtitle: `U-Net time per image, ${prompts.length} at once, on ${gpu.capabilities.name}`,
          columns,
          rows: prompts.map((title, i) => ({ title, cells: pictures.map((column) => column[i]) })),
          footer: attribution ? `Trained on ${attribution}` : undefined,
        }),
      );
      console.log(sheet);
      pipeline.dispose();
    } finally {
      currentGpu().destroy();
    }
  },
);

const perImage = ({ timings, count }: SampleResult): string =>
  `${((1000 * timings.network) / count).toFixed(0)} ms an image`;

const describe = (result: SampleResult): string =>
  `${perImage(result)} (${result.steps} step${result.steps > 1 ? 's' : ''}${result.guidanceScale > 1 ? `, guidance ${result.guidanceScale}` : ''})`;
