export * from './layers/index.ts';
export * from './models/index.ts';
export * from './optim/index.ts';
export { constant, gaussian, kaimingUniform, onesInit, zerosInit } from './initializers.ts';
export type { Initializer } from './initializers.ts';
export { Module, outlineOf, parameter, Parameter, residualEnds } from './module.ts';
export type { StateDict } from './module.ts';
export { StateDictError } from './state-dict.ts';
export { observe } from './observe.ts';
