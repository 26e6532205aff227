import { randomUUID } from 'node:crypto';
import { errorHeaders, MeshError, toMeshError, toProblem } from '../mesh/errors.ts';
import type { HostGuard } from '../mesh/host-guard.ts';
import { errorText } from '../mesh/jsonrpc.ts';
import { acceptCallId, HEADERS } from '../mesh/names.ts';
import { type ChooseParts, chooseInstances } from './choose.ts';
import type { Discovery, KnownService } from './discovery.ts';
import type { AnswerDecision, Decision, MeshRequest, RouteDecision } from './handoff.ts';
import { isMcpEndpoint, parseRoute, unknownService, type WorkerRoute } from './route.ts';
import { describeStatus, listServices } from './status.ts';

interface AccessParts extends ChooseParts {
  discovery: Discovery;
  refuseHost: HostGuard;
}

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
  try {
    const refusal = parts.refuseHost(request.headers.host, request.headers.origin);
    if (refusal !== undefined) throw new MeshError('forbidden', { detail: refusal });
    const way = parseRoute(request.method, request.path);
    await parts.discovery.ready(DISCOVERY_WAIT_MS);
    if (way.to === 'list') return answer(200, listServices(parts.discovery.list()), callId);
    const service = parts.discovery.find(way.service);
    if (!service) throw unknownService(way.service);
    if (way.to === 'status') return answer(200, describeStatus(service, parts), callId);
    return route(request, way, service, callId, parts);
  } catch (fault) {
    return refuse(toMeshError(fault), callId, isMcpEndpoint(request.path));
  }
}

function route(
  request: MeshRequest,
  way: WorkerRoute,
  service: KnownService,
  callId: string,
  parts: AccessParts,
): RouteDecision {
  const readMs = longestCall(service) + READ_MARGIN_MS;
  const call = { id: callId, request, route: way, key: request.clientIp, ttlMs: readMs };
  const chosen = chooseInstances(service, call, parts);
  return {
    targets: chosen.map(({ address, port }) => [address, port]),
    path: way.path,
    headers: { [HEADERS.callId]: callId },
    timeouts: [CONNECT_TIMEOUT_MS, WRITE_TIMEOUT_MS, readMs],
    record: { call_id: callId, service: service.name, instances: chosen.map(({ id }) => id) },
    failure: workerLost(callId, way.rpc),
  };
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
