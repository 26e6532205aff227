import { fileURLToPath } from 'node:url';
import { build, stop } from 'esbuild';

const ENTRY = fileURLToPath(new URL('./plugin.ts', import.meta.url));
const OUTPUT = fileURLToPath(new URL('../dist/plugin/mcp-mesh.cjs', import.meta.url));

/** Bundles the plugin into the one file that Kong's plugin server loads; returns its path. */
export async function buildPlugin(outfile = OUTPUT): Promise<string> {
  // Named .cjs: as .js it would be read as ESM under our "type": "module".
  await build({
    entryPoints: [ENTRY],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node24',
  });
  // esbuild keeps a process of its own for the next build.
  await stop();
  return outfile;
}

if (import.meta.main) await buildPlugin();
