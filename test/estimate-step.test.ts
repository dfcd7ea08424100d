import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { measureStep, STEPS } from '../bench/step.ts';
import { estimateStep } from '../src/cli/estimate-step.ts';
import type { StepFlags } from '../src/cli/estimate-step.ts';
import { builtIn } from '../src/flow/estimate/outline.ts';
import { rehearseStep, trainStep } from '../src/flow/estimate/train-step.ts';
import type { StepPlan } from '../src/flow/estimate/train-step.ts';
import { readOutline } from '../src/flow/recipe/model-outline.ts';
import { currentGpu, init } from '../src/tensor/index.ts';

const test = suite('estimate of a training step');
const gpu = await init();
test.after(() => gpu.destroy());
const shipped = await readOutline('models/emoji');

const plans: StepPlan[] = [
  {},
  { batchSize: 3, gradientCheckpointing: true, emaDecay: 0.9 },
  { rank: 4, gradientCheckpointing: true },
  { accumulationSteps: 2 },
  { loss: 'lpips', height: 16, width: 16 },
];
for (const plan of plans) {
  test(`memory is known before the step: ${JSON.stringify(plan)}`, async () => {
    const { memory: expected, trained } = await rehearseStep(shipped, plan);
    const start = gpu.memory().live;
    const report = await trainStep(shipped, { ...plan, steps: 2 }, (module) => void module.initialize(1));
    const { memory: measured } = report;
    assert.is(report.trained, trained);
    assert.ok(report.log.every(({ loss, gradNorm }) => Number.isFinite(loss) && gradNorm > 0));
    for (const [part, bytes] of Object.entries(measured)) {
      const apart = Math.abs(bytes - expected[part as keyof typeof expected]);
      assert.ok(apart <= 0.01 * measured.peak, `${part}: ${bytes} bytes, ${expected[part as keyof typeof expected]} expected`); // prettier-ignore
    }
    const sum = Object.values(measured).reduce((a, b) => a + b) - measured.peak;
    assert.is(sum, measured.peak, 'the parts make up the peak');
    assert.ok(gpu.memory().live - start <= 256, 'nothing stays behind but the array that stands for none');
  });
}

test('a step of Stable Diffusion fits into 24 GB with all of its weights, and as a LoRA into 8 GB; nothing is allocated', async () => {
  const before = gpu.memory();
  const whole = await rehearseStep(builtIn.sd15, STEPS.step);
  assert.equal([whole.trained, whole.height, whole.batchSize], [859_520_964, 512, 1]);
  const { weights, optimiser, gradients, activations, peak } = whole.memory;
  const each = 4 * whole.parameters;
  for (const [bytes, of] of [
    [weights, each],
    [gradients, each],
    [optimiser, 2 * each],
  ])
    // prettier-ignore
    assert.ok(bytes >= of && bytes < 1.15 * of, `${bytes} bytes of ${of}`);
  assert.ok(peak < 24e9 && activations > 0, String(peak));
  const lora = await rehearseStep(builtIn.sd15, STEPS['step-lora']);
  assert.ok(lora.memory.peak < 8e9 && lora.trained < 1e6, String(lora.memory.peak));
  assert.ok(lora.memory.gradients === 4 * lora.trained);
  const longer = await rehearseStep(builtIn.sd15, { ...STEPS.step, gradientCheckpointing: false });
  assert.ok(longer.memory.activations > 1.3 * activations);
  assert.equal([gpu.memory().live, currentGpu()], [before.live, gpu]);
  assert.ok(process.resourceUsage().maxRSS < 2 ** 20, 'KiB: the host holds none of it either');
});

test('the bench makes the step that it says, and holds it to what was expected', async () => {
  const printed: string[] = [];
  const outline = { ...shipped, name: 'small' };
  const step = await measureStep('step', { outline, plan: STEPS.step }, (text) => printed.push(text));
  assert.is(step.measured.log.length, 1);
  assert.ok(step.resident > step.measured.memory.peak);
  assert.match(printed.join('\n'), /measured +expected\nweights +10\.7 MiB +10\.7 MiB\n/);
  assert.match(printed.join('\n'), /step: [\d.]+ m?s, loss [\d.]+, \|g\| [\d.]+, process [\d.]+ [MG]iB at its most/);
});

test('estimate --train says what a step takes, and what would fit when it does not', async () => {
  const flags: StepFlags = {
    ...{ train: true, train_batch_size: 2, gradient_accumulation_steps: 1, gradient_checkpointing: false },
    ...{ mixed_precision: 'no', rank: undefined, use_ema: true, loss_type: 'l2', json: false },
  };
  const ask = async (change: object, available?: number) =>
    (await estimateStep(shipped, { ...flags, ...change }, available)).join('\n');
  assert.match(
    await ask({}, 2 ** 30),
    /^emoji\/unet: a training step, 2 images of 32 × 32, EMA; 2\.50 M parameters, all learn\n[^]*\nfits$/,
  );
  const small = await ask({}, 40 * 2 ** 20);
  assert.match(small, /\ndoes not fit: [\d.]+ MiB of GPU memory needed, 40\.0 MiB available\n/);
  assert.match(small, /\n {2}try --rank 4: [\d.]+ MiB/);
  assert.match(await ask({}, 2 ** 20), /neither checkpointing nor a LoRA makes it fit$/);
  assert.match(await ask({ rank: 4 }), /LoRA of rank 4; 2\.50 M parameters, [\d.]+ k learn\n/);
  const json = JSON.parse(await ask({ json: true, gradient_checkpointing: true }, 2 ** 30));
  const refused = await rehearseStep(builtIn['sdxl-refiner']).catch((e: Error) => e);
  assert.match(String(refused), /SDXL refiner 1\.0: there is no training of the refiner/);
  assert.is(currentGpu(), gpu);
  assert.equal([json.model, json.fits, json.parameters, json.batchSize], ['emoji/unet', true, 2_495_784, 2]);
});

test.run();
