import { randomUUID } from 'node:crypto';
import type { Instance } from '../mesh/consul.ts';
import { errorHeaders, MeshError, toMeshError, toProblem } from '../mesh/errors.ts';
import type { HostGuard } from '../mesh/host-guard.ts';
import { errorText } from '../mesh/jsonrpc.ts';
import { acceptCallId, HEADERS, MCP_PATH, ownerHash } from '../mesh/names.ts';
import type { Balancer } from './balancer/balancer.ts';
import { eligible } from './candidates.ts';
import type { Discovery, KnownService } from './discovery.ts';
import type { AnswerDecision, Decision, MeshRequest, RouteDecision } from './handoff.ts';
import { parseRoute, unknownService } from './route.ts';
import { describeStatus, listServices } from './status.ts';

interface AccessParts {
  discovery: Discovery;
  balancer: Balancer;
  refuseHost: HostGuard;
}

type WorkerRoute = Extract<ReturnType<typeof parseRoute>, { to: 'worker' }>;

const TARGETS_MAX = 3;
/** Kong retries the next target only after this: a vanished host must not eat the caller's patience. */
const CONNECT_TIMEOUT_MS = 2000;
const WRITE_TIMEOUT_MS = 60_000;
const DEFAULT_CALL_TIMEOUT_MS = 60_000;
/** The worker answers its own time-out; Kong's must come later (queueing included). */
const READ_MARGIN_MS = 30_000;
/** First request after a start: as long as it may take to hear from Consul. */
const DISCOVERY_WAIT_MS = 3000;

/** One request's story: who may come in, where it goes. Never throws: a fault becomes an answer. */
export async function decide(request: MeshRequest, parts: AccessParts): Promise<Decision> {
  const callId = acceptCallId(request.headers[HEADERS.callId]) ?? randomUUID();
  let rpc = false;
  try {
    const refusal = parts.refuseHost(request.headers.host, request.headers.origin);
    if (refusal !== undefined) throw new MeshError('forbidden', { detail: refusal });
    const route = parseRoute(request.method, request.path);
    await parts.discovery.ready(DISCOVERY_WAIT_MS);
    if (route.to === 'list') return answer(200, listServices(parts.discovery.list()), callId);
    const service = parts.discovery.find(route.service);
    if (!service) throw unknownService(route.service);
    if (route.to === 'status') return answer(200, describeStatus(service, parts.balancer), callId);
    rpc = route.rpc;
    return chooseTargets(request, route, service, callId, parts.balancer);
  } catch (fault) {
    return refuse(toMeshError(fault), callId, rpc || isMcpPath(request.path));
  }
}

function chooseTargets(
  request: MeshRequest,
  route: WorkerRoute,
  service: KnownService,
  callId: string,
  balancer: Balancer,
): RouteDecision {
  const instances = eligible(service.instances, request.headers[HEADERS.capability]);
  if (instances.length === 0) throw noHealthyInstance(service);
  const choice = { name: service.name, strategy: String(service.definition.load_balancer), instances };
  const picked = balancer.pick(choice, { key: request.clientIp, now: Date.now() }, TARGETS_MAX);
  const chosen = ownerFirst(picked, instances, request.headers[HEADERS.session]);
  const readMs = longestCall(service) + READ_MARGIN_MS;
  const [first] = chosen;
  if (first)
    balancer.lease(callId, first.id, request.method === 'GET' && route.rpc ? 'stream' : 'call', readMs);
  return {
    targets: chosen.map(({ address, port }) => [address, port]),
    path: route.path,
    headers: { [HEADERS.callId]: callId },
    timeouts: [CONNECT_TIMEOUT_MS, WRITE_TIMEOUT_MS, readMs],
    record: { call_id: callId, service: service.name, instances: chosen.map(({ id }) => id) },
    failure: workerLost(callId, route.rpc),
  };
}

/** A session's owner has what belongs to it at hand; any other instance can serve it, too. */
function ownerFirst(
  picked: Instance[],
  instances: readonly Instance[],
  session: string | undefined,
): Instance[] {
  const owner = session?.split('.', 1)[0];
  const found = owner === undefined ? undefined : instances.find(({ id }) => ownerHash(id) === owner);
  return found ? [found, ...picked.filter(instance => instance !== found)].slice(0, TARGETS_MAX) : picked;
}

function noHealthyInstance(service: KnownService): MeshError {
  const reasons = service.instances.map(
    ({ id, status, reason }) => `${id} is ${status}: ${reason || 'no reason given'}`,
  );
  const detail = reasons.length > 0 ? reasons.join('; ') : `no instance of "${service.name}" is registered`;
  return new MeshError('no_healthy_instance', { detail, delivered: 'no', retryAfterMs: 1000 });
}

function longestCall({ definition }: KnownService): number {
  const { timeout_ms, tool_timeouts } = definition as {
    timeout_ms?: unknown;
    tool_timeouts?: Record<string, unknown>;
  };
  const bounds = [timeout_ms, ...Object.values(tool_timeouts ?? {})].filter(
    bound => typeof bound === 'number',
  );
  return bounds.length > 0 ? Math.max(...bounds) : DEFAULT_CALL_TIMEOUT_MS;
}

function workerLost(callId: string, rpc: boolean): RouteDecision['failure'] {
  const detail = 'the connection to the worker was lost before it answered';
  const { headers, body } = refuse(
    new MeshError('worker_lost', { detail, delivered: 'unknown' }),
    callId,
    rpc,
  );
  return { type: headers['content-type'] ?? 'application/json', body };
}

function answer(status: number, value: unknown, callId: string): AnswerDecision {
  const headers = { 'content-type': 'application/json', [HEADERS.callId]: callId };
  return { status, headers, body: JSON.stringify(value) };
}

/** JSON-RPC on the MCP endpoint, problem details elsewhere. */
function refuse(error: MeshError, callId: string, rpc: boolean): AnswerDecision {
  const type = rpc ? 'application/json' : 'application/problem+json';
  const body = rpc ? errorText('null', error, callId) : JSON.stringify(toProblem(error, callId));
  return {
    status: error.status,
    headers: { ...errorHeaders(error), 'content-type': type, [HEADERS.callId]: callId },
    body,
  };
}

function isMcpPath(path: string): boolean {
  const [, sub, ...rest] = path.slice(MCP_PATH.length + 1).split('/');
  return (
    path.startsWith(`${MCP_PATH}/`) && rest.length === 0 && (sub === undefined || sub === '' || sub === 'mcp')
  );
}
