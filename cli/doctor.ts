import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { findService } from '../mesh/registry.ts';
import { startSettings } from '../mesh/settings.ts';
import { ControlError } from '../workers/fleet/control-client.ts';
import type { FleetStatus } from '../workers/fleet/status.ts';
import { EXIT, parseOptions, UsageError } from './command.ts';
import { connectSupervisor } from './control.ts';
import { shorten } from './doctor/ask.ts';
import { examine, type Finding, type Instruments, LINKS, readRegistry } from './doctor/examine.ts';
import { plain } from './table.ts';

const DEFAULT_TIMEOUT_S = 15;

const USAGE = `Usage: mesh doctor [service] [options]

Looks at every link between the registry and a caller, and names for each service the first one that is broken and how
to mend it:

  registry   the file can be read, and the supervisor uses it
  command    the program is there, in the server's own PATH and folder
  server     it starts and shakes hands; where none runs, one is started here for a moment
  worker     its worker answers at its address
  consul     it is registered, at the address where it listens
  reachable  Consul gets through to that address
  gateway    the gateway knows it and has instances to send calls to
  call       tools/list goes there and back

Options:
  --key KEY        API key or token of a caller, or @FILE that holds it
  --gateway URL    default: http://127.0.0.1:$MESH_PORT (10010)
  --consul URL     default: $CONSUL_HTTP_ADDR, else what the workers on this host were told
  --timeout S      longest time for a server's start and for a call, in seconds (default: ${DEFAULT_TIMEOUT_S})
  --registry FILE  default: $MESH_REGISTRY or config/mcp-mesh-registry.yaml
  --json           print the findings as JSON

Exit codes: 0 nothing is broken, 1 something is, 2 wrong usage.
`;

const OPTIONS = {
  key: { type: 'string' },
  gateway: { type: 'string' },
  consul: { type: 'string' },
  timeout: { type: 'string' },
  registry: { type: 'string' },
  json: { type: 'boolean' },
} as const;
/** Each may start a server of its own. */
const AT_ONCE = 4;
const TIMEOUT_MAX_S = 600;
const LINK_WIDTH = Math.max(...LINKS.map(link => link.length));

type Values = { [name in Exclude<keyof typeof OPTIONS, 'json'>]?: string } & {
  json?: boolean;
  help?: boolean;
};

/** `mesh doctor [service]`. @throws UsageError */
export async function doctorCommand(argv: string[]): Promise<number> {
  const hasService = parseArgs({ args: argv, options: OPTIONS, strict: false }).positionals.length > 0;
  const { values: given, positionals } = parseOptions(argv, OPTIONS, hasService ? ['service'] : []);
  const values = given as Values;
  const [wanted] = positionals;
  if (values.help) {
    process.stdout.write(USAGE);
    return EXIT.ok;
  }
  const path = values.registry ?? startSettings().registryPath;
  let names: string[];
  try {
    const registry = readRegistry(path);
    names =
      wanted !== undefined ? [findService(registry, wanted).name] : registry.services.map(({ name }) => name);
  } catch (error) {
    // One line for each fault of the file.
    for (const line of (error as Error).message.split('\n')) print(`registry  broken: ${shorten(line)}`);
    return EXIT.failed;
  }
  const instruments = await gather(values, path);
  const found: Record<string, Finding[]> = {};
  for (let start = 0; start < names.length; start += AT_ONCE) {
    const some = names.slice(start, start + AT_ONCE);
    const findings = await Promise.all(some.map(name => examine(name, instruments)));
    some.forEach((name, i) => {
      const own = findings[i] ?? [];
      found[name] = own;
      if (!values.json) printFindings(name, own);
    });
  }
  if (values.json) process.stdout.write(`${JSON.stringify(found, null, 2)}\n`);
  const isBroken = Object.values(found).some(findings =>
    findings.some(({ verdict }) => verdict.state === 'broken'),
  );
  return isBroken ? EXIT.failed : EXIT.ok;
}

async function gather(values: Values, registryPath: string): Promise<Instruments> {
  const { port, consul: own } = startSettings();
  const token = own?.token;
  return {
    registryPath,
    fleet: await askFleet(values.registry),
    gateway: values.gateway === undefined ? `http://127.0.0.1:${port}` : readUrl('--gateway', values.gateway),
    consul:
      values.consul === undefined
        ? own
        : { url: new URL(readUrl('--consul', values.consul)).origin, ...(token ? { token } : {}) },
    key: readKey(values.key),
    timeoutMs: readSeconds(values.timeout) * 1000,
  };
}

/** undefined: none runs, and what does not need one is looked at all the same. */
async function askFleet(registry: string | undefined): Promise<FleetStatus | undefined> {
  try {
    return await connectSupervisor(registry).status();
  } catch (error) {
    if (!(error instanceof ControlError)) throw error;
    process.stderr.write(`mesh: ${error.message}\n`);
    return undefined;
  }
}

function readUrl(option: string, text: string): string {
  const url = URL.parse(text.includes('://') ? text : `http://${text}`);
  if (!url || !/^https?:$/.test(url.protocol))
    throw new UsageError(`${option}: "${plain(text)}" is no http(s) URL`);
  return url.href.replace(/\/+$/, '');
}

/** From a file it is in no list of processes and in no shell history. */
function readKey(text: string | undefined): string | undefined {
  if (!text?.startsWith('@')) return text;
  try {
    return readFileSync(text.slice(1), 'utf8').trim();
  } catch (cause) {
    throw new UsageError(`--key: cannot read ${text.slice(1)}: ${(cause as Error).message}`, { cause });
  }
}

function readSeconds(text = String(DEFAULT_TIMEOUT_S)): number {
  const seconds = Number(text);
  if (!(seconds > 0 && seconds <= TIMEOUT_MAX_S))
    throw new UsageError(`--timeout: "${plain(text)}" is no time in seconds up to ${TIMEOUT_MAX_S}`);
  return seconds;
}

function printFindings(name: string, findings: readonly Finding[]): void {
  print(name);
  for (const { link, verdict } of findings) {
    print(`  ${link.padEnd(LINK_WIDTH)}  ${verdict.state}: ${shorten(verdict.text)}`);
    if (verdict.state === 'broken') print(`  ${' '.repeat(LINK_WIDTH)}  mend it: ${verdict.cure}`);
  }
}

/** What is told comes from servers, files and whoever answered: it stays on its line. */
function print(line: string): void {
  process.stdout.write(`${plain(line)}\n`);
}
