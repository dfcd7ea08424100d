/** What a browser does differently from Node: WebGPU is there, and waiting costs nothing. */
export const platform = 'browser';
export const toggles: string[] = [];

/** @throws when the browser has no WebGPU */
export async function openGpu(
  _options: { adapter?: string; enable?: string[]; disable?: string[] } = {},
): Promise<GPU> {
  if (!navigator.gpu) {
    throw new Error(
      'this browser has no WebGPU\n  use a current Chrome, Edge, Safari or Firefox, over https or localhost',
    );
  }
  return navigator.gpu;
}

export const packagedAdapterFolders = (): string[] => [];

export const wait = <T>(promise: Promise<T>): Promise<T> => promise;
