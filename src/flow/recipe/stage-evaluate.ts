import { join } from 'node:path';
import { AutoencoderKL } from '../../nn/index.ts';
import { Evaluation } from '../metrics/evaluation.ts';
import type { Measured } from '../metrics/evaluation.ts';
import { smallFeatures } from '../metrics/feature-network.ts';
import { fewStepError } from '../metrics/straightness.ts';
import { guided } from '../guidance.ts';
import type { NetworkName } from '../pipelines/options.ts';
import { describeRow, drawEvaluation, evaluationSheet } from './evaluation-data.ts';
import { openModule, writeJson } from './model-folder.ts';
import type { Run } from './run.ts';
import { cachedLatents } from './stage-vae.ts';
import { conditional, encodeCaptions, openNetwork, teacherVelocity } from './student.ts';

/** All ways of sampling beside each other. */
export interface Metrics {
  count: number;
  rows: Measured[];
  /** S / cost of the teacher ÷ that of the reflowed flow. */
  straightnessGain: number;
  /** Root mean square difference in the latents from the same noise. */
  fewStepError: { teacher1: number; reflow1: number; reflow2: number; distilled: number };
  /** Fréchet distance of the images through the autoencoder alone: what no flow can beat. */
  autoencoderFrechetDistance: number;
  /** Distilled, in the steps it was distilled to, ÷ teacher in many. */
  frechetRatio: number;
}

/** The same prompts and noise through every network; numbers as JSON, pictures as a sheet. */
export async function evaluateStage(run: Run): Promise<Metrics> {
  const {
    seed,
    data: { specificCaption },
    evaluate: { count, steps, guidanceScale },
    distill: { steps: few = 1 },
    reflow: { windows = 1 },
  } = run.recipe;
  const data = await run.data();
  const { latents: realLatents, shape } = await cachedLatents(run);
  const texts = await encodeCaptions(run);
  const vae = await openModule(run.model, 'vae', (config) => new AutoencoderKL(config));
  const { prompts, noise } = drawEvaluation(data, { count, seed, specificCaption, shape });
  const mayBeDiffusion = (name: NetworkName) =>
    name === 'unet_teacher' || (name === 'unet_reflow' && run.recipe.reflow.predicts === 'epsilon');
  const evaluation = await Evaluation.begin({
    prompts,
    noise,
    shape,
    vae,
    real: data,
    features: smallFeatures,
    async open(name) {
      const unet = await openNetwork(run, name);
      return {
        velocity(part, alpha) {
          const nullText = alpha > 1 ? texts.batch(part.map(() => '')) : undefined;
          const network = mayBeDiffusion(name) ? teacherVelocity(run, unet) : conditional(unet);
          return guided(network, texts.batch(part), nullText, alpha);
        },
        dispose: () => unet.dispose(),
      };
    },
  });
  const measure = async (network: NetworkName, n: number, alpha: number) => {
    run.checkInterrupt();
    const row = await evaluation.measure({ network, steps: n, guidanceScale: alpha });
    run.say(`evaluate: ${describeRow(row, smallFeatures.distance)}`);
  };
  await measure('unet_teacher', steps, guidanceScale);
  await measure('unet_teacher', 1, guidanceScale);
  await measure('unet_reflow', steps, 1);
  await measure('unet_reflow', 1, 1);
  await measure('unet_reflow', 2, 1);
  if (windows > 2 && windows !== steps) await measure('unet_reflow', windows, 1);
  await measure('unet', few, 1);

  const { rows } = evaluation;
  const find = (network: NetworkName, n: number) => rows.find((row) => row.network === network && row.steps === n)!;
  const error = (network: NetworkName, n: number, of: NetworkName) =>
    fewStepError(evaluation.end({ network, steps: n }).latents, evaluation.end({ network: of, steps }).latents);
  const rebuilt = await evaluation.decode(realLatents);
  const metrics: Metrics = {
    count,
    rows,
    straightnessGain: find('unet_teacher', steps).straightness!.ratio / find('unet_reflow', steps).straightness!.ratio,
    fewStepError: {
      teacher1: error('unet_teacher', 1, 'unet_teacher'),
      reflow1: error('unet_reflow', 1, 'unet_reflow'),
      reflow2: error('unet_reflow', 2, 'unet_reflow'),
      distilled: error('unet', few, 'unet_reflow'),
    },
    autoencoderFrechetDistance: evaluation.real.distance(await smallFeatures.features(rebuilt.pixels, rebuilt.side)),
    frechetRatio: find('unet', few).frechetDistance / find('unet_teacher', steps).frechetDistance,
  };
  vae.dispose();
  await run.stageFolder('evaluate');
  await writeJson(join(run.folder, 'evaluate', 'metrics.json'), metrics);
  await run.sheet(
    'evaluate',
    evaluationSheet(
      evaluation,
      run.recipe.name,
      `straightness gain ${metrics.straightnessGain.toFixed(1)}, Fréchet ratio ${metrics.frechetRatio.toFixed(2)}`,
    ),
    'sheet',
  );
  await writeJson(join(run.model, 'metrics.json'), metrics);
  await run.finish('evaluate', { straightnessGain: metrics.straightnessGain, frechetRatio: metrics.frechetRatio });
  run.say(
    `evaluate: reflow makes the flow ${metrics.straightnessGain.toFixed(1)} times straighter; ` +
      `the distilled network has ${metrics.frechetRatio.toFixed(2)} times the teacher's Fréchet distance`,
  );
  return metrics;
}
