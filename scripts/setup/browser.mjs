// The Chromium for the browser test: found, or installed where that is one command.
import { existsSync } from 'node:fs';
import { available, canApt, install } from './apt.mjs';
import { say } from './shell.mjs';

const PLACES = {
  linux: ['chromium', 'google-chrome', 'google-chrome-stable', 'chromium-browser', 'microsoft-edge'].map(
    (name) => `/usr/bin/${name}`,
  ),
  darwin: [
    '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
    '/Applications/Chromium.app/Contents/MacOS/Chromium',
    '/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge',
  ],
  win32: [process.env.ProgramFiles, process.env['ProgramFiles(x86)'], process.env.LOCALAPPDATA]
    .filter(Boolean)
    .flatMap((folder) => [
      `${folder}\\Google\\Chrome\\Application\\chrome.exe`,
      `${folder}\\Microsoft\\Edge\\Application\\msedge.exe`,
    ]),
};

/** The path of a Chromium, Chrome or Edge, or undefined. RECTIFLOW_CHROMIUM comes first. */
export function findBrowser() {
  return [process.env.RECTIFLOW_CHROMIUM, ...(PLACES[process.platform] ?? [])].find((path) => path && existsSync(path));
}

/** Look for one, and on Debian as root install it. Never fatal: without one the browser test is skipped. */
export function setUpBrowser(checkOnly) {
  const found = findBrowser();
  if (found) return say(`browser: ${found}`);
  if (!checkOnly && canApt() && available('chromium') && install(['chromium']) && findBrowser())
    return say(`browser: ${findBrowser()}`);
  say(
    'no Chromium, Chrome or Edge: the browser test will be skipped (set RECTIFLOW_CHROMIUM if there is one elsewhere)',
  );
}
