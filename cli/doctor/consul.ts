import { isIP } from 'node:net';
import { isObject } from '../../mesh/jsonrpc.ts';
import type { InstanceRow } from '../../workers/fleet/status.ts';
import { ask, excerpt, shorten } from './ask.ts';
import { broken, ok, type Patient, skipped, type Verdict } from './verdict.ts';

/** What Consul has of an instance. */
interface Entry {
  id: string;
  /** host:port that others are told. */
  address: string;
  host: string;
  role: string | undefined;
  checks: { id: string; status: string; output: string }[];
}

const CONFIGURE = 'set CONSUL_HTTP_ADDR as the workers have it, or pass --consul';
const ADVERTISE = 'set MESH_ADVERTISE_ADDRESS for the workers to the address that others reach';

/**
 * Every instance is registered, its heartbeat arrives, and its address is the one others reach; and Consul's own check
 * gets through to that address. Consul's answer is read here with all its checks: it is the checks that tell a server
 * that is down from an address that cannot be reached.
 */
export async function checkConsul(patient: Patient): Promise<{ registered: Verdict; reached: Verdict }> {
  const none = (registered: Verdict) => ({ registered, reached: skipped('it is not known what Consul has') });
  const { service, consul } = patient;
  if (!consul) return none(skipped(`no Consul is known: ${CONFIGURE}`));
  let entries: Entry[];
  try {
    entries = await readEntries(`${consul.url}/v1/health/service/${service.service_name}`, consul.token);
  } catch (error) {
    return none(
      broken(`Consul ${consul.url}: ${(error as Error).message}`, `see that its agent runs; ${CONFIGURE}`),
    );
  }
  const registered = checkEntries(patient, entries, consul.url);
  const ours = patient.fleet ? entries.filter(({ id }) => patient.rows.some(row => row.id === id)) : entries;
  return { registered, reached: checkReach(ours.length > 0 ? ours : entries, consul.url) };
}

async function readEntries(url: string, token: string | undefined): Promise<Entry[]> {
  const answer = await ask(url, { headers: token === undefined ? {} : { 'x-consul-token': token } });
  if (answer.status === 403) throw new Error(`403 ${excerpt(answer)}; check the policy of its token`);
  if (answer.status !== 200) throw new Error(`it answers ${answer.status}: ${excerpt(answer)}`);
  if (!Array.isArray(answer.json)) throw new Error(`it is no Consul: it answers ${excerpt(answer)}`);
  return answer.json.filter(isObject).map(readEntry);
}

function readEntry(entry: Record<string, unknown>): Entry {
  const service = isObject(entry.Service) ? entry.Service : {};
  const node = isObject(entry.Node) ? entry.Node : {};
  const meta = isObject(service.Meta) ? service.Meta : {};
  const host = String(service.Address || node.Address || '');
  const checks = Array.isArray(entry.Checks) ? entry.Checks.filter(isObject) : [];
  return {
    id: String(service.ID),
    host,
    address: `${isIP(host) === 6 ? `[${host}]` : host}:${service.Port}`,
    role: typeof meta.role === 'string' ? meta.role : undefined,
    checks: checks.map(({ CheckID, Status, Output }) => ({
      id: String(CheckID),
      status: String(Status),
      output: String(Output ?? ''),
    })),
  };
}

function checkEntries({ service, fleet, rows }: Patient, entries: Entry[], url: string): Verdict {
  const name = service.service_name;
  const ready = rows.filter(({ state }) => state === 'ready');
  if (entries.length === 0 && ready.length === 0) {
    const cure = fleet ? 'see `mesh status` for why none runs' : 'start the mesh with `mesh up`';
    return broken(`no instance of ${name} is registered`, cure);
  }
  for (const row of ready) {
    const verdict = checkEntry(row, entries, url);
    if (verdict) return verdict;
  }
  const silent = entries.find(({ id, checks }) => statusOf(checks, `${id}:ttl`)?.status === 'critical');
  if (silent) {
    const output = statusOf(silent.checks, `${silent.id}:ttl`)?.output ?? '';
    const cure = 'see its worker; one that is gone for good leaves Consul after ten minutes';
    return broken(`${silent.id} is critical: ${shorten(output) || 'no word of it'}`, cure);
  }
  const stranded = entries.find(({ host }) => isLoopback(host) && !isLoopback(new URL(url).hostname));
  if (stranded)
    return broken(
      `${stranded.id} is registered at ${stranded.address}, which no other host reaches`,
      ADVERTISE,
    );
  const role = entries.every(one => one.role === 'activator')
    ? ' (the activator: the first call starts one)'
    : '';
  return ok(`${name}: ${entries.map(({ address }) => address).join(', ')}${role}`);
}

function checkEntry({ id, slot, address }: InstanceRow, entries: Entry[], url: string): Verdict | undefined {
  const entry = entries.find(one => one.id === id);
  if (!entry) {
    const cure = `see the worker's own log for why; ${CONFIGURE}, so that both speak of the same one`;
    return broken(`${id ?? slot} is ready and Consul ${url} does not have it`, cure);
  }
  if (entry.address === address) return undefined;
  return broken(`${id} listens at ${address} and is registered at ${entry.address}`, ADVERTISE);
}

function checkReach(entries: Entry[], url: string): Verdict {
  for (const { id, address, checks } of entries) {
    const check = statusOf(checks, `${id}:http`) ?? statusOf(checks, `${id}:tcp`);
    if (!check) {
      return broken(
        `Consul has no check that connects to ${id}`,
        `\`mesh restart ${id}\` registers it anew, with its checks`,
      );
    }
    if (check.status === 'passing') continue;
    if (check.output === '')
      return broken(`Consul has not asked ${address} yet`, 'it does every few seconds: look again');
    const cure = `from the host of the agent (${url}), ${address} must be open: see its firewall, or ${ADVERTISE}`;
    return broken(`Consul asks ${address} and gets: ${shorten(check.output)}`, cure);
  }
  return ok(entries.length === 1 ? 'its check passes' : `the checks of all ${entries.length} pass`);
}

function statusOf(checks: Entry['checks'], id: string): Entry['checks'][number] | undefined {
  return checks.find(check => check.id === id);
}

function isLoopback(host: string): boolean {
  return /^(127\.|localhost$|\[?::1\]?$)/.test(host);
}
