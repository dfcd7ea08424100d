/** The part of benchmark.js that measure.ts uses. */
declare module 'benchmark' {
  interface Options {
    defer: boolean;
    minSamples: number;
    maxTime: number;
    fn(run: { resolve(): void }): void;
    onComplete(event: { target: { stats: { sample: number[]; rme: number } } }): void;
  }
  export default class Benchmark {
    constructor(name: string, options: Options);
    run(options: { async: boolean }): void;
  }
}
