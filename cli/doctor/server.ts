import { resolve } from 'node:path';
import { pino } from 'pino';
import type { Era } from '../../mesh/eras.ts';
import type { Service } from '../../mesh/registry.ts';
import type { ChildExit } from '../../workers/child.ts';
import { Connection, type ServerInfo } from '../../workers/connection.ts';
import type { InstanceRow } from '../../workers/fleet/status.ts';
import { ask, excerpt } from './ask.ts';
import { broken, ok, type Patient, skipped, type Verdict } from './verdict.ts';

interface Failure {
  reason: string;
  /** It ended by itself. */
  ended: boolean;
}

const ON_PURPOSE = new Set(['draining', 'drained']);
const ON_ITS_WAY = new Set(['waiting', 'starting']);

/**
 * The MCP server starts and shakes hands: the supervisor's instances say so, or one is run here for a moment, in the
 * service's own environment and under its limits.
 */
export async function checkServer({ service, rows, folder, timeoutMs }: Patient): Promise<Verdict> {
  const ready = rows.filter(({ state }) => state === 'ready');
  const amiss = rows.find(({ state }) => state !== 'ready' && !ON_PURPOSE.has(state));
  if (amiss === undefined && ready.length > 0)
    return ok(`${ready.length} run, era ${ready[0]?.era ?? 'unknown'}`);
  // Beside one that runs, another one would prove nothing new.
  if (amiss !== undefined && ready.length > 0) return blame(amiss);
  const outcome = await tryServer({ ...service, cwd: resolve(folder, service.cwd ?? '.') }, timeoutMs);
  if ('reason' in outcome) {
    const cure = outcome.ended
      ? 'run its command by hand, with the variables of the registry, and mend what it says'
      : 'it must answer initialize on stdout: check its arguments, or give it longer with --timeout';
    return broken(outcome.reason, cure);
  }
  const { name, version } = outcome.serverInfo;
  const said = `${name} ${version} speaks ${outcome.protocolVersion} (${outcome.era})`;
  return amiss === undefined ? ok(`started here for a moment: ${said}`) : blame(amiss, said);
}

/** The workers answer Consul's question at their own addresses. */
export async function checkHealth({ service, fleet, rows }: Patient): Promise<Verdict> {
  if (!fleet) return skipped('no supervisor runs on this host');
  const ready = rows.filter(({ state, address }) => state === 'ready' && address !== null);
  if (ready.length === 0) return skipped('no instance runs; the first call starts one');
  const failures = await Promise.all(ready.map(row => askHealth(row, service.health_check)));
  const failure = failures.find(verdict => verdict !== undefined);
  return failure ?? ok(ready.map(({ address }) => address).join(', '));
}

async function askHealth({ id, slot, address }: InstanceRow, path: string): Promise<Verdict | undefined> {
  const url = `http://${address}${path}`;
  const name = id ?? slot;
  try {
    const answer = await ask(url);
    if (answer.status === 200) return undefined;
    return broken(`${url} answers ${answer.status}: ${excerpt(answer)}`, `\`mesh restart ${name}\``);
  } catch (error) {
    const cure = `see that nothing blocks ${address} on this host, then \`mesh restart ${name}\``;
    return broken(`${url}: ${(error as Error).message}`, cure);
  }
}

function blame({ service, slot, state, reason, last_error }: InstanceRow, said?: string): Verdict {
  const here = said === undefined ? '' : `; started here for a moment, ${said}`;
  const text = `${slot} is ${state}: ${reason || last_error || 'no reason known'}${here}`;
  if (ON_ITS_WAY.has(state)) return broken(text, 'give it time, and look again');
  return broken(text, `\`mesh logs ${service}\` has its last words; then \`mesh restart ${service}\``);
}

/** Both eras are tried: a legacy server may end on the first question of the modern one. */
async function tryServer(service: Service, timeoutMs: number): Promise<ServerInfo | Failure> {
  const first = await greet(service, 'modern', timeoutMs);
  if (!('reason' in first) || !first.ended) return first;
  return greet(service, 'legacy', timeoutMs);
}

async function greet(service: Service, prefer: Era, timeoutMs: number): Promise<ServerInfo | Failure> {
  let exit: ChildExit | undefined;
  let last = '';
  const connection = new Connection({
    service,
    log: pino({ level: 'silent' }),
    exclusive: false,
    onNotification: () => {},
    onStderr: line => {
      last = line;
    },
    onExit: ended => {
      exit = ended;
    },
  });
  try {
    return await connection.shakeHands({ prefer, timeoutMs });
  } catch (error) {
    if (exit) return { reason: exit.reason, ended: true };
    const words = last === '' ? '' : `; it said: ${last}`;
    return { reason: `no handshake: ${(error as Error).message}${words}`, ended: false };
  } finally {
    await connection.stop();
  }
}
