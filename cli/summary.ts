import { setTimeout as delay } from 'node:timers/promises';
import { MCP_PATH } from '../mesh/names.ts';
import { instanceCount, type Registry } from '../mesh/registry.ts';

interface ServiceState {
  service: string;
  instances: number;
  healthy: number;
  /** Reasons of the instances that do not pass. */
  reasons: string[];
}

const READY_DEADLINE_MS = 30_000;
const POLL_MS = 200;
/** A broken server does not hold up the table for long: the others can be used. */
const BROKEN_GRACE_MS = 8000;

/** Waits until every service has all its instances passing; after a while, the best there is. */
export async function awaitServices(url: string, registry: Registry): Promise<ServiceState[]> {
  const start = Date.now();
  for (;;) {
    const states = await Promise.all(registry.services.map(service => stateOf(url, service.name)));
    const complete = states.every((state, i) => {
      const service = registry.services[i];
      return service !== undefined && state.healthy >= instanceCount(service);
    });
    const broken = states.some(state =>
      state.reasons.some(reason => reason.includes('exits with') || reason.includes('cannot be started')),
    );
    const waited = Date.now() - start;
    if (complete || waited > READY_DEADLINE_MS || (broken && waited > BROKEN_GRACE_MS)) return states;
    await delay(POLL_MS);
  }
}

export function printSummary(url: string, consulUrl: string, states: ServiceState[]): void {
  const width = Math.max(7, ...states.map(state => state.service.length));
  const first = states.find(state => state.healthy > 0)?.service ?? states[0]?.service ?? 'everything';
  const rows = states.flatMap(({ service, instances, healthy, reasons }) => [
    `  ${service.padEnd(width)}  ${`${healthy}/${instances}`.padEnd(9)}  ${MCP_PATH}/${service}`,
    ...[...new Set(reasons)].map(reason => `  ${' '.repeat(width)}  ! ${reason}`),
  ]);
  const config = { mcpServers: { [first]: { type: 'http', url: `${url}${MCP_PATH}/${first}` } } };
  const body =
    first === 'everything' ? '{"command":"echo","params":{"message":"hi"}}' : '{"command":"tools/list"}';
  process.stdout.write(`
  ${'service'.padEnd(width)}  healthy    path
${rows.join('\n')}

Call a tool:
  curl -s ${url}${MCP_PATH}/${first}/execute -H 'content-type: application/json' -d '${body}'

Configure an MCP client (.mcp.json):
  ${JSON.stringify(config)}

See the instances:
  curl -s ${url}${MCP_PATH}/${first}/status

Gateway ${url} · Consul ${consulUrl} · Ctrl-C stops everything
ready
`);
}

async function stateOf(url: string, service: string): Promise<ServiceState> {
  const unknown = { service, instances: 0, healthy: 0, reasons: ['no worker has registered yet'] };
  try {
    const response = await fetch(`${url}${MCP_PATH}/${service}/status`);
    if (!response.ok) return unknown;
    const status = (await response.json()) as {
      instances: number;
      healthy: number;
      details: { reason?: string }[];
    };
    const reasons = status.details.flatMap(({ reason }) => (reason ? [reason] : []));
    return { service, instances: status.instances, healthy: status.healthy, reasons };
  } catch {
    return unknown;
  }
}
