import { readFileSync, readlinkSync } from 'node:fs';
import type { ConsulAddress } from '../../mesh/consul.ts';
import { findService, loadRegistry, type Registry, type Service } from '../../mesh/registry.ts';
import { registryEnvironment, startSettings } from '../../mesh/settings.ts';
import type { FleetStatus } from '../../workers/fleet/status.ts';
import { checkCommand } from './command.ts';
import { checkConsul } from './consul.ts';
import { checkCall, checkGateway } from './gateway.ts';
import { checkHealth, checkServer } from './server.ts';
import { broken, ok, type Patient, skipped, type Verdict } from './verdict.ts';

export const LINKS = [
  'registry',
  'command',
  'server',
  'worker',
  'consul',
  'reachable',
  'gateway',
  'call',
] as const;
export type LinkName = (typeof LINKS)[number];

export interface Finding {
  link: LinkName;
  verdict: Verdict;
}

/** What all services are looked at with. */
export interface Instruments extends Omit<Patient, 'service' | 'rows' | 'folder' | 'consul'> {
  registryPath: string;
  /** undefined: where the workers are told. */
  consul: ConsulAddress | undefined;
}

/** Looks at every link of a service in order; what comes after the first broken one is skipped. */
export async function examine(name: string, instruments: Instruments): Promise<Finding[]> {
  const { verdict, service } = checkRegistry(name, instruments);
  const findings: Finding[] = [{ link: 'registry', verdict }];
  if (service) {
    const patient = admit(service, instruments);
    const checks = checksOf(patient);
    for (const link of LINKS.slice(1)) {
      const last = findings.at(-1)?.verdict;
      if (last?.state === 'broken') break;
      findings.push({ link, verdict: await checks[link as keyof typeof checks]().catch(unforeseen) });
    }
  }
  const first = findings.at(-1)?.link ?? 'registry';
  for (const link of LINKS.slice(findings.length)) {
    findings.push({ link, verdict: skipped(`${first} comes first`) });
  }
  return findings;
}

/** @throws RegistryError when the file cannot be used whatever the variables are */
export function readRegistry(path: string): Registry {
  // No service has this name, so that no variable of any has to be set.
  return loadRegistry(path, { env: registryEnvironment(), only: '' });
}

function checkRegistry(
  name: string,
  { registryPath, fleet }: Instruments,
): { verdict: Verdict; service: Service | undefined } {
  const fault = fleet?.registry.error ?? undefined;
  if (fault !== undefined) {
    const verdict = broken(`the supervisor does not use the file as it is: ${fault}`, 'mend what it says');
    return { verdict, service: undefined };
  }
  const blank = findService(readRegistry(registryPath), name);
  const known = fleet === undefined || fleet.services.some(({ service }) => service === name);
  if (!known) {
    const cure = 'wait a moment; or restart it, if it is of another version than this file';
    return {
      verdict: broken(`${registryPath} has it, and the supervisor does not`, cure),
      service: undefined,
    };
  }
  try {
    const registry = loadRegistry(registryPath, { env: registryEnvironment(), only: name });
    return { verdict: ok(registryPath), service: findService(registry, name) };
  } catch (error) {
    const runs = fleet?.instances.some(({ service, state }) => service === name && state === 'ready');
    // The shell of an operator need not have the secrets that the supervisor was started with.
    if (runs)
      return {
        verdict: ok(`${registryPath}; variables are not set here, but its workers run`),
        service: blank,
      };
    const cure = 'set it for the supervisor, and here';
    return { verdict: broken((error as Error).message, cure), service: undefined };
  }
}

function admit(service: Service, { registryPath: _path, ...instruments }: Instruments): Patient {
  const { fleet } = instruments;
  const all = fleet?.instances ?? [];
  const rows = all.filter(row => row.service === service.name);
  // Its own first; where none runs yet, the others have been told the same.
  const workers = [...rows, ...all].flatMap(({ pid }) => (pid === null ? [] : [pid]));
  return {
    ...instruments,
    service,
    rows,
    folder: (fleet && folderOf(fleet)) ?? process.cwd(),
    consul: instruments.consul ?? consulOf(workers),
  };
}

function checksOf(patient: Patient): Record<Exclude<LinkName, 'registry'>, () => Promise<Verdict>> {
  let consul: ReturnType<typeof checkConsul> | undefined;
  const ask = () => {
    consul ??= checkConsul(patient);
    return consul;
  };
  return {
    command: async () => checkCommand(patient),
    server: () => checkServer(patient),
    worker: () => checkHealth(patient),
    consul: async () => (await ask()).registered,
    reachable: async () => (await ask()).reached,
    gateway: () => checkGateway(patient),
    call: () => checkCall(patient),
  };
}

/** Where relative paths of the registry start from. */
function folderOf({ pid }: FleetStatus): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return undefined;
  }
}

/** The Consul that workers were told of: the stand-in of `mesh up` has another port each time. */
function consulOf(pids: readonly number[]): ConsulAddress | undefined {
  for (const pid of pids) {
    try {
      const entries = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
      const pairs = entries.map(entry => /^([^=]+)=(.*)$/s.exec(entry)).filter(pair => pair !== null);
      const names = Object.fromEntries(pairs.map(([, name, value]) => [name, value]));
      const { CONSUL_HTTP_ADDR, CONSUL_HTTP_SSL, CONSUL_HTTP_TOKEN, CONSUL_HTTP_TOKEN_FILE } = names;
      const { consul } = startSettings({
        CONSUL_HTTP_ADDR,
        CONSUL_HTTP_SSL,
        CONSUL_HTTP_TOKEN,
        CONSUL_HTTP_TOKEN_FILE,
      });
      if (consul) return consul;
    } catch {
      // Gone by now, another user's, or no /proc.
    }
  }
  return undefined;
}

function unforeseen(error: Error): Verdict {
  return broken(
    `it cannot be looked at: ${error.message}`,
    'mend what that says, or report it as a fault of ours',
  );
}
