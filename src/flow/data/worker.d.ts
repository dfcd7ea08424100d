/** The code of a thread, bundled to one text: see scripts/bundle.mjs. */
declare module 'worker:*' {
  const source: string;
  export default source;
}
