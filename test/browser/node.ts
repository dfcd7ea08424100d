import { run } from './suite.ts';

process.stdout.write(JSON.stringify(await run()));
