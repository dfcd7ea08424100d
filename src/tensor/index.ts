export { compile } from './compile.ts';
export type { Compiled, Recordable } from './compile.ts';
export { apply, currentGpu, init, Tensor, tensor, useGpu, zeros } from './tensor.ts';
export { noGrad } from './tape.ts';
export { checkpoint } from './checkpoint.ts';
export { keep, scope } from './scope.ts';
export * from './functions/index.ts';
