import { setTimeout as pause } from 'node:timers/promises';
import { decide } from '../../../kong-plugin/access.ts';
import { createGateway, type Gateway, learn } from '../../../kong-plugin/gateway.ts';
import { type CallRecord, readRequest } from '../../../kong-plugin/handoff.ts';
import { readOutcome } from '../../../kong-plugin/log.ts';
import { writeLoadReport } from '../../../mesh/load-report.ts';
import { MCP_PATH } from '../../../mesh/names.ts';
import { gatewaySettings } from '../../../mesh/settings.ts';

/** Microseconds of processor time of one request's phases: of the modules alone, called in this process. */
export interface PhaseTimes {
  access: number;
  log: number;
}

const READY_MS = 10_000;
const READY_POLL_MS = 50;
/** In flight at most: places and leases are given back in the log phase. */
const BATCH = 64;
const LOAD = { cpu: 0.31, memory: 0.12, inFlight: 3, queueDepth: 0, latencyMs: 4.25, breakerOpen: false };
const HEADERS = {
  host: 'mesh.example.com:10010',
  'user-agent': 'node',
  accept: 'application/json, text/event-stream',
  'accept-encoding': 'br, gzip, deflate',
  'content-type': 'application/json',
  'content-length': '215',
  'mcp-protocol-version': '2025-11-25',
  'mcp-session-id': `${'o'.repeat(11)}.${'p'.repeat(120)}.${'m'.repeat(43)}`,
};

/** A gateway of the plugin's in this process. Resolves once it knows the service and may send to an instance. */
export async function startPlugin(env: Record<string, string>, service: string): Promise<Gateway> {
  const gateway = createGateway(gatewaySettings({ ...env, MESH_ALLOWED_HOSTS: 'mesh.example.com' }));
  await gateway.discovery.ready(READY_MS);
  while (!('targets' in (await decideOne(gateway, service)))) await pause(READY_POLL_MS);
  return gateway;
}

/** Batches of requests, as Kong hands them in and as its serializer tells how they went. */
export async function timePhases(gateway: Gateway, service: string, batches: number): Promise<PhaseTimes> {
  let access = 0;
  let log = 0;
  for (let batch = 0; batch < batches; batch += 1) {
    const records: CallRecord[] = [];
    const accessBegan = threadUs();
    for (let i = 0; i < BATCH; i += 1) records.push(await routeOne(gateway, service));
    access += threadUs() - accessBegan;
    const texts = records.map(record => serialize(service, record));
    const logBegan = threadUs();
    for (const text of texts) {
      const outcome = readOutcome(text);
      if (outcome) learn(outcome, gateway);
    }
    log += threadUs() - logBegan;
  }
  return { access: access / (batches * BATCH), log: log / (batches * BATCH) };
}

async function routeOne(gateway: Gateway, service: string): Promise<CallRecord> {
  const decision = await decideOne(gateway, service);
  if ('targets' in decision) return decision.record;
  throw new Error(`the plugin answers ${decision.status}: ${decision.body}`);
}

function decideOne(gateway: Gateway, service: string) {
  const table = {
    method: 'POST',
    path: `${MCP_PATH}/${service}/mcp`,
    query: '',
    client_ip: '127.0.0.1',
    headers: HEADERS,
  };
  const request = readRequest(table);
  if (!request) throw new Error('the request is none');
  return decide(request, gateway);
}

/** As Kong's serializer writes it, with what kong/handoff.lua adds. */
function serialize(service: string, record: CallRecord): string {
  const uri = `${MCP_PATH}/${service}/mcp`;
  const { host } = HEADERS;
  return JSON.stringify({
    request: {
      id: '0123456789abcdef0123456789abcdef',
      ...{ method: 'POST', uri, url: `http://${host}${uri}`, querystring: {}, headers: HEADERS, size: 900 },
    },
    response: {
      status: 200,
      headers: { 'content-type': 'application/json', 'content-length': '200' },
      size: 700,
    },
    upstream_uri: '/mcp',
    upstream_status: '200',
    tries: [{ balancer_start: 1795378058871, balancer_latency: 0, ip: '127.0.0.1', port: 11_100 }],
    latencies: { request: 4, kong: 2, proxy: 2, receive: 0 },
    route: { name: 'mcp-mesh', paths: [MCP_PATH], protocols: ['http', 'https'] },
    service: { name: 'mcp-mesh', host: 'mesh.invalid', port: 80, protocol: 'http', retries: 5 },
    ...{ client_ip: '127.0.0.1', source: 'upstream', started_at: 1795378058871, workspace: 'default' },
    mesh: { record, load: writeLoadReport(LOAD) },
  });
}

function threadUs(): number {
  const { user, system } = process.threadCpuUsage();
  return user + system;
}
