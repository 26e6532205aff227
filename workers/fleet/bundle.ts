import { existsSync, globSync, readFileSync, statSync } from 'node:fs';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { builtinModules } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Plugin } from 'esbuild';
import { inAscii } from '../../mesh/json-text.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const ENTRY = join(ROOT, 'workers/main.ts');
const OUTPUT = join(ROOT, 'dist/worker/worker.mjs');
const SOURCES = ['{mesh,workers}/**/*.ts', 'package-lock.json'];
/** Bundled CommonJS packages call it. */
const BANNER =
  "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);";
const BUILTINS = new Set(builtinModules.flatMap(name => [name, `node:${name}`]));

/**
 * Bundles the worker and returns the path of its program; what it loads only when it is wanted (Redis, OpenTelemetry,
 * Ajv) lies beside it, in files named by their content. Measured on 2 cores, CPU until the MCP server is ready: from
 * workers/main.ts 0.5 s (300 modules to find, types to strip), in one file 0.25 s, with what is wanted late apart 0.20 s,
 * with Node's own modules required 0.18 s, and with its compile cache (node-flags.ts) 0.15 s.
 */
export async function buildWorker(outfile = OUTPUT): Promise<string> {
  const folder = dirname(outfile);
  const sources = describeSources();
  const { build, stop } = await import('esbuild');
  const { outputFiles } = await build({
    entryPoints: { [basename(outfile, '.mjs')]: ENTRY },
    outdir: folder,
    outExtension: { '.js': '.mjs' },
    chunkNames: 'part-[hash]',
    bundle: true,
    splitting: true,
    platform: 'node',
    format: 'esm',
    target: 'node24',
    banner: { js: BANNER },
    plugins: [requireBuiltins],
    write: false,
  });
  // esbuild keeps a process of its own for the next build.
  await stop();
  await mkdir(folder, { recursive: true });
  // The program comes after its parts: whoever starts a worker at this moment has all of one version.
  const last = (path: string) => Number(path === outfile);
  for (const { path, text } of outputFiles.toSorted((a, b) => last(a.path) - last(b.path))) {
    // One other letter, in a comment (esbuild escapes the rest itself), and V8 keeps the source with two bytes for each.
    await replaceFile(path, inAscii(text));
  }
  await replaceFile(sourcesOf(outfile), sources);
  return outfile;
}

async function replaceFile(path: string, text: string): Promise<void> {
  const part = `${path}.${process.pid}`;
  await writeFile(part, text);
  await rename(part, path);
}

/** The program as its sources are now, in the same place: bundled unless the last bundle is of just these. */
export async function currentWorker(outfile = OUTPUT): Promise<string> {
  const list = sourcesOf(outfile);
  const isCurrent =
    existsSync(outfile) && existsSync(list) && readFileSync(list, 'utf8') === describeSources();
  return isCurrent ? outfile : await buildWorker(outfile);
}

/** What the sources were before the bundle was made. */
function sourcesOf(outfile: string): string {
  return `${outfile}.sources`;
}

function describeSources(): string {
  return globSync(SOURCES, { cwd: ROOT })
    .sort()
    .map(path => {
      const { size, mtimeMs } = statSync(join(ROOT, path));
      return `${path} ${size} ${mtimeMs}\n`;
    })
    .join('');
}

/**
 * Has Node's own modules required where they are imported: an import reads each of their members, and one of node:http
 * (WebSocket) loads undici, for 30 ms.
 */
const requireBuiltins: Plugin = {
  name: 'require-builtins',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^(node:)?[a-z_/0-9]+$/ }, ({ path, namespace, kind }) => {
      if (!BUILTINS.has(path) || kind === 'require-call') return undefined;
      return namespace === 'builtin' ? { path, external: true } : { path, namespace: 'builtin' };
    });
    onLoad({ filter: /.*/, namespace: 'builtin' }, ({ path }) => ({
      contents: `module.exports = require(${JSON.stringify(path)});`,
      loader: 'js',
    }));
  },
};

if (import.meta.main) await buildWorker();
