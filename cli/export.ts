import { join, resolve } from 'node:path';
import type { JsonObject } from '../mesh/jsonrpc.ts';
import { MCP_PATH } from '../mesh/names.ts';
import { findService, loadRegistry } from '../mesh/registry.ts';
import { clientSettings, registryEnvironment, startSettings } from '../mesh/settings.ts';
import { type Bridge, CLIENT_IDS, type ClientFormat, KEY_VARIABLE } from './clients/client-format.ts';
import { clientOption } from './clients/formats.ts';
import { type CommonOptions, EXIT, type MeshCommand, UsageError } from './command.ts';
import { readUrl } from './option-values.ts';
import { answer, tell } from './output.ts';

const ABOUT = `Prints an MCP client's configuration for services of the mesh: by URL, or, for a client whose file knows no URLs, by \`mesh connect\`, a program that speaks stdio. The API key stands in it as a reference in that client's own syntax, never as it is.`;
const NOTE = 'Exit codes: 0 done; 1 the registry cannot be used, or has no such service; 2 wrong usage.';
const PROGRAM = join(import.meta.dirname, 'mesh.ts');

interface Options extends CommonOptions {
  client?: ClientFormat;
  registry?: string;
  url?: string;
  stdio?: boolean;
  keyFile?: string;
  /** false: --no-key */
  key: boolean;
}

/** `mesh export [service…]` */
export function exportCommand(command: MeshCommand): void {
  command
    .description(ABOUT)
    .argument('[service...]', 'default: all of the registry')
    .addOption(clientOption('whose configuration'))
    .registryOption()
    .gatewayOption()
    .option('--stdio', 'by `mesh connect`, for a client that speaks no Streamable HTTP')
    .option('--no-key', 'without an API key, for a mesh that lets everybody in')
    .option('--key-file <path>', 'with --stdio: the file that holds the API key')
    .note(NOTE)
    .run(exportServices);
}

function exportServices(services: string[], options: Options): number {
  const { client: format } = options;
  if (!format) throw new UsageError(`--client is missing: one of ${CLIENT_IDS.join(', ')}`);
  const base = options.url ?? readUrl('MESH_URL')(clientSettings().url);
  const names = serviceNames(services, options.registry ?? startSettings().registryPath);
  const isStdio = options.stdio === true || !format.speaksHttp;
  if (options.keyFile !== undefined && !isStdio) throw new UsageError('--key-file goes with --stdio');
  const keyFile = options.keyFile === undefined ? undefined : resolve(options.keyFile);
  const entries = new Map<string, JsonObject>();
  for (const service of names) {
    const bridge: Bridge | undefined = isStdio
      ? {
          command: process.execPath,
          args: [PROGRAM, 'connect', service, '--url', base],
          keyFile,
        }
      : undefined;
    const url = `${base}${MCP_PATH}/${service}`;
    entries.set(service, format.meshEntry({ service, url, bridge, key: options.key }));
  }
  const withKey = options.key && options.keyFile === undefined;
  const text = format.print(entries, withKey);
  const document = { client: format.id, where: format.where, servers: Object.fromEntries(entries), text };
  answer(options.json, document, text);
  tell(`for ${format.where}${keyHint(format, { ...options, isStdio })}`);
  return EXIT.ok;
}

/** Names alone are asked for: no variable of the registry has to be set. */
function serviceNames(wanted: readonly string[], path: string): string[] {
  const registry = loadRegistry(path, { env: registryEnvironment(), only: '' });
  if (wanted.length === 0) return registry.services.map(({ name }) => name);
  return [...new Set(wanted)].map(name => findService(registry, name).name);
}

/** How the API key gets to where the configuration refers to. */
function keyHint(format: ClientFormat, { key, keyFile, isStdio }: Options & { isStdio: boolean }): string {
  if (!key) return '';
  if (keyFile !== undefined) return `; ${keyFile} has to hold the API key`;
  if (format.id === 'vscode') return '; VS Code asks for the API key once and keeps it';
  if (format.id === 'claude' && isStdio)
    return '; it has no variables: --key-file names a file that holds the API key';
  return `; ${KEY_VARIABLE} has to hold the API key where ${format.title} is started`;
}
