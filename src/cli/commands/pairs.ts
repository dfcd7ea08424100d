import type { Group } from '../command-group.ts';
import { generate } from '../pairs/generate.ts';
import { inspect } from '../pairs/inspect.ts';

const pairs: Group = {
  name: 'pairs',
  help: 'what a teacher makes of noise, as WebDataset shards: the data of reflow and distillation',
  commands: { generate, inspect },
};
export default pairs;
