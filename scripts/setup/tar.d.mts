export function readTar(archive: Uint8Array): Generator<{ name: string; data: Uint8Array; link?: string }>;
