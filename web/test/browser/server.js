/**
 * Serves web/ as the server does, with its security policy, and with a made-up store in place of
 * the core: `?scene=…` chooses what is in it (fake.js). For tests of the interface alone.
 */
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

const WEB = fileURLToPath(new URL('../..', import.meta.url));
const ASSETS = '/a/test';
const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
  + "img-src 'self' blob: data:; media-src 'self' blob:; worker-src 'self'; manifest-src 'self'; "
  + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
  + "require-trusted-types-for 'script'; trusted-types sw";
const TYPES = {
  '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css',
  '.svg': 'image/svg+xml', '.png': 'image/png', '.webmanifest': 'application/manifest+json',
};
const FAKE_MAIN = `import { start } from './ui/app.js';
import { fakeStore } from '../test/browser/fake.js';
start(window.store = fakeStore(new URLSearchParams(location.search)));`;

/**
 * @param {number} [port]
 * @returns {Promise<{url: string, close: () => void}>}
 */
export async function serve(port = 0) {
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost');
    const headers = { 'Content-Security-Policy': POLICY, 'X-Content-Type-Options': 'nosniff' };
    try {
      const [path, body] = await content(pathname);
      response.writeHead(200, {
        ...headers, 'Content-Type': TYPES[extname(path)] ?? 'application/octet-stream',
      });
      response.end(body);
    } catch {
      response.writeHead(404, headers);
      response.end();
    }
  });
  await new Promise((resolve) => server.listen(port, '127.0.0.1', () => resolve(null)));
  const address = /** @type {import('node:net').AddressInfo} */ (server.address());
  return { url: `http://127.0.0.1:${address.port}`, close: () => server.close() };
}

/**
 * @param {string} pathname
 * @returns {Promise<[string, string | Buffer]>}
 */
async function content(pathname) {
  if (pathname === '/' || pathname === '/manifest.webmanifest') {
    const name = pathname === '/' ? 'index.html' : 'manifest.webmanifest';
    const text = await readFile(join(WEB, name), 'utf8');
    return [name, text.replaceAll('%ASSETS%', ASSETS)];
  }
  if (pathname === `${ASSETS}/src/main.js`) return ['main.js', FAKE_MAIN];
  const path = normalize(pathname.slice(ASSETS.length + 1));
  if (!pathname.startsWith(`${ASSETS}/`) || path.startsWith('..')) throw new Error('not found');
  return [path, await readFile(join(WEB, path))];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  console.log((await serve(Number(process.argv[2] ?? 0))).url);
}
