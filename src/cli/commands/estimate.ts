import { init } from '../../tensor/index.ts';
import { doesNotFit, fits, places } from '../../flow/estimate/fit.ts';
import { builtIn } from '../../flow/estimate/outline.ts';
import { measureRates } from '../../flow/estimate/rates.ts';
import type { Expected } from '../../flow/estimate/rates.ts';
import { rehearse } from '../../flow/estimate/rehearse.ts';
import type { Rehearsal } from '../../flow/estimate/rehearse.ts';
import { networkNames } from '../../flow/pipelines/options.ts';
import { findConfigs } from '../../flow/recipe/hub-model.ts';
import { readOutline } from '../../flow/recipe/model-outline.ts';
import { additions, controlConfigs } from '../additions.ts';
import { choice, command, flag, float, int, text } from '../command.ts';
import { shippedModel } from '../default-model.ts';
import { estimateStep, stepFlags } from '../estimate-step.ts';
import { availableMemory } from '../memory.ts';
import { safetyOption, wantsSafetyChecker } from '../safety.ts';
import * as show from '../units.ts';

export default command(
  'estimate',
  'what a model takes before it runs, or is downloaded: memory, arithmetic, time on this adapter, and whether it fits',
  {
    model: text(
      undefined,
      `a folder, with or without its weights, a file, owner/name on the Hugging Face hub (only its configurations are ` +
        `fetched), or ${Object.keys(builtIn).join(', ')} (the one that ships)`,
    ),
    rectified_flow: flag(false, 'the network is one of a flow, as InstaFlow, and its files do not say so'),
    which: choice('unet', networkNames, 'which of its networks'),
    height: int(undefined, 'pixels', { min: 1 }),
    width: int(undefined, 'likewise', { min: 1 }),
    steps: int(undefined, "steps of the scheduler (the model's own)", { min: 1 }),
    num: int(1, 'images', { min: 1 }),
    batch_size: int(4, 'of them at once', { min: 1 }),
    guidance_scale: float(undefined, 'above 1 costs twice', { min: 0 }),
    scheduler: text(undefined, 'as for sample'),
    vae_tile: int(undefined, 'as for sample', { min: 8 }),
    controlnet: additions.controlnet,
    safety_checker: safetyOption,
    dtype: choice('f32', ['f32', 'f16'], 'how weights and activations are kept'),
    memory: float(undefined, "GiB that the GPU has (a software adapter: the machine's free memory)", { min: 0 }),
    time: flag(true, 'measure how fast this adapter is at the ops of this model'),
    budget: float(6, 'seconds for that', { min: 0 }),
    json: flag(false, 'print everything as JSON'),
    ...stepFlags,
  },
  async (options) => {
    const gpu = await init();
    try {
      const path = await place(options.model);
      const safetyChecker = await wantsSafetyChecker(path, options.safety_checker);
      const rectifiedFlow = options.rectified_flow || undefined;
      const outline = await readOutline(path, options.which, { rectifiedFlow, safetyChecker });
      const { num, batch_size, guidance_scale, vae_tile, ...rest } = options;
      const controls = await controlConfigs(
        await Promise.all((options.controlnet ?? []).map((word) => findConfigs(word))),
      );
      const plan = {
        ...rest,
        controls,
        vaeTile: vae_tile,
        count: num,
        batchSize: batch_size,
        guidanceScale: guidance_scale,
      };
      const available = options.memory === undefined ? availableMemory(gpu) : options.memory * 2 ** 30;
      if (options.train) {
        for (const line of await estimateStep(outline, options, available)) console.log(line);
        return;
      }
      const need = await rehearse(outline, plan);
      const expected = options.time ? await measureRates(need, { budget: options.budget }) : undefined;
      const problem = fits(need, available) ? undefined : await doesNotFit(outline, plan, need, available);
      if (options.json) {
        const { calls: _, ...figures } = need;
        const adapter = gpu.capabilities.name;
        const summary = { model: outline.name, adapter, ...figures, available, fits: !problem, expected };
        console.log(JSON.stringify(summary, null, 2));
        return;
      }
      console.log(title(outline.name, need));
      for (const line of show.table(rows(need, expected))) console.log(`  ${line}`);
      const there = available === undefined ? 'nothing tells how much this GPU has; give --memory' : 'available';
      console.log(`GPU memory at its peak ${show.bytes(need.peak)}, ${places[need.peakIn]}`);
      console.log(available === undefined ? `  ${there}` : `  ${there} ${show.bytes(available)}`);
      console.log(`on ${gpu.capabilities.name}`);
      if (expected) for (const line of speeds(expected)) console.log(`  ${line}`);
      console.log(problem ? problem.message : 'fits');
    } finally {
      gpu.destroy();
    }
  },
);

/** A name that is built in stays one. */
const place = async (model?: string): Promise<string> =>
  model === undefined ? shippedModel() : model.includes('/') ? findConfigs(model) : model;

function title(name: string, { count, width, height, steps, guidanceScale, evaluations, dtype }: Rehearsal): string {
  const images = `${count} image${count > 1 ? 's' : ''} of ${width} × ${height}`;
  const asked = `${evaluations} evaluation${evaluations > 1 ? 's' : ''} of the U-Net${guidanceScale > 1 ? ' on twice the batch' : ''}`;
  return `${name}: ${images}, ${steps} step${steps > 1 ? 's' : ''}, guidance ${guidanceScale}, ${asked}, ${dtype}`;
}

function rows({ parts, flops, dtype }: Rehearsal, expected?: Expected): string[][] {
  const each = dtype === 'f16' ? 2 : 4;
  const time = (...stages: (keyof Expected['seconds'])[]) =>
    expected ? [show.seconds(stages.reduce((n, stage) => n + expected.seconds[stage], 0))] : [];
  const row = (name: string, { parameters }: { parameters: number }, flop: number, seconds: string[]) => [
    name,
    show.count(parameters),
    show.bytes(each * parameters),
    show.flop(flop),
    ...seconds,
  ];
  const all = { parameters: Object.values(parts).reduce((n, part) => n + part.parameters, 0) };
  const both = { parameters: parts.network.parameters + parts.controls.parameters };
  const unet: [string, { parameters: number }] = parts.controls.parameters
    ? ['U-Net and ControlNets', both]
    : ['U-Net', parts.network];
  const total = Object.values(flops).reduce((a, b) => a + b, 0);
  return [
    ['', 'parameters', 'weights', 'FLOP', ...(expected ? ['expected'] : [])],
    row('text encoder', parts.textEncoder, flops.text, time('text')),
    row(...unet, flops.network, time('network')),
    row('autoencoder', parts.vae, flops.encoder + flops.decoder, time('encoder', 'decoder')),
    ...(parts.safetyChecker.parameters
      ? [row('safety checker', parts.safetyChecker, flops.safety, time('safety'))]
      : []),
    row('all', all, total, expected ? [show.seconds(expected.total)] : []),
  ];
}

function speeds({ matmul, rates, measured }: Expected): string[] {
  const list = Object.entries(rates).map(([kind, rate]) => `${kind} ${show.flop(rate)}`);
  return [
    `FLOP/s of its ops: ${list.join(', ')}; of a square matrix product ${show.flop(matmul)}`,
    `${Math.round(100 * measured)} % of the expected time was tried op by op; the first run compiles kernels besides`,
  ];
}
