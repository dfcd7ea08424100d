export * from './elementwise.ts';
export * from './reduce.ts';
export * from './shape.ts';
export * from './norm.ts';
export * from './loss.ts';
export * from './linear.ts';
export * from './conv.ts';
