import { findService } from '../../mesh/registry.ts';
import { clientSettings, startSettings } from '../../mesh/settings.ts';
import { ControlError } from '../../workers/fleet/control-client.ts';
import type { FleetStatus } from '../../workers/fleet/status.ts';
import { EXIT } from '../command.ts';
import { connectSupervisor } from '../control.ts';
import type { DoctorOptions } from '../doctor.ts';
import { answer, tell } from '../output.ts';
import { plain } from '../table.ts';
import { shorten } from './ask.ts';
import { examine, type Finding, type Instruments, LINKS, readRegistry } from './examine.ts';

/** Each may start a server of its own. */
const AT_ONCE = 4;
const LINK_WIDTH = Math.max(...LINKS.map(link => link.length));

/** Looks at a service, or at all, prints the findings and gives the exit code. */
export async function diagnose(wanted: string | undefined, options: DoctorOptions): Promise<number> {
  const { json, registry: given } = options;
  const path = given ?? startSettings().registryPath;
  let names: string[];
  try {
    const registry = readRegistry(path);
    names =
      wanted !== undefined ? [findService(registry, wanted).name] : registry.services.map(({ name }) => name);
  } catch (error) {
    if (json) throw error;
    // One line for each fault of the file.
    for (const line of (error as Error).message.split('\n')) print(`registry  broken: ${shorten(line)}`);
    return EXIT.failed;
  }
  const instruments = await gather(options, path);
  const found: Record<string, Finding[]> = {};
  for (let start = 0; start < names.length; start += AT_ONCE) {
    const some = names.slice(start, start + AT_ONCE);
    const findings = await Promise.all(some.map(name => examine(name, instruments)));
    some.forEach((name, i) => {
      const own = findings[i] ?? [];
      found[name] = own;
      if (!json) printFindings(name, own);
    });
  }
  answer(json, found, '');
  const isBroken = Object.values(found).some(findings =>
    findings.some(({ verdict }) => verdict.state === 'broken'),
  );
  return isBroken ? EXIT.failed : EXIT.ok;
}

async function gather(
  { registry, key, gateway, consul, timeout }: DoctorOptions,
  registryPath: string,
): Promise<Instruments> {
  const { port, consul: own } = startSettings();
  const token = own?.token;
  return {
    registryPath,
    fleet: await askFleet(registry),
    gateway: gateway ?? `http://127.0.0.1:${port}`,
    consul: consul === undefined ? own : { url: new URL(consul).origin, ...(token ? { token } : {}) },
    key: key ?? clientSettings().key,
    timeoutMs: timeout * 1000,
  };
}

/** undefined: none runs, and what does not need one is looked at all the same. */
async function askFleet(registry: string | undefined): Promise<FleetStatus | undefined> {
  try {
    return await connectSupervisor(registry).status();
  } catch (error) {
    if (!(error instanceof ControlError)) throw error;
    tell(error.message);
    return undefined;
  }
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
