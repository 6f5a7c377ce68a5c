/**
 * Starts Chromium for the tests.
 */
import { existsSync } from 'node:fs';
import { chromium } from 'playwright-core';

const PATHS = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

/** The browser to test with; empty where there is none. */
export const browserPath = process.env.CHROMIUM ?? PATHS.find((path) => existsSync(path)) ?? '';

/** @param {string[]} [options] more of the command line */
export const launch = (options = []) => chromium.launch({
  executablePath: browserPath,
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync', ...options],
});
