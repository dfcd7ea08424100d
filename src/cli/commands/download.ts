import { command, flag, positional, required, text } from '../command.ts';
import { modelPath } from '../model-path.ts';

export default command(
  'download',
  'fetch a model of the Hugging Face hub ahead of time, into the cache that Python shares; prints where it lies',
  {
    id: positional(text(required, 'owner/name, owner/name@revision, or owner/name/weights.safetensors')),
    variant: text(undefined, 'such as fp16: half the bytes, where the model has it'),
    safety_checker: flag(false, 'also the safety checker'),
  },
  async ({ id, variant, safety_checker }) => {
    console.log(await modelPath(id, { variant, safetyChecker: safety_checker, refresh: true }));
  },
);
