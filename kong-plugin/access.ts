import { randomUUID } from 'node:crypto';
import type { AccessPolicy } from '../mesh/access-policy.ts';
import type { AuditLog } from '../mesh/audit-log.ts';
import { errorHeaders, MeshError, toMeshError, toProblem } from '../mesh/errors.ts';
import type { Limits } from '../mesh/grants.ts';
import type { HostGuard } from '../mesh/host-guard.ts';
import type { SignIdentity } from '../mesh/identity.ts';
import { errorText } from '../mesh/jsonrpc.ts';
import { acceptCallId, HEADERS } from '../mesh/names.ts';
import type { Principal } from './api-keys.ts';
import type { Authenticator } from './authenticate.ts';
import { type Authorized, authorize, visibleTo } from './authorize.ts';
import { type ChoiceMade, type ChooseParts, chooseInstances, isListening } from './choose.ts';
import { chooseOldTarget, isMigrating, routeToOld, type SideParts } from './choose-side.ts';
import { type DecisionNotes, type Decisions, weigh } from './decisions.ts';
import type { Discovery, KnownService } from './discovery.ts';
import type { AnswerDecision, Decision, MeshRequest, RouteDecision } from './handoff.ts';
import { LimitError, type RequestLimits } from './limits.ts';
import { type MeshApi, MethodNotAllowed } from './mesh-api.ts';
import type { GatewayMetrics } from './metrics.ts';
import { AuthenticationError, challenge, resourceMetadata } from './resource-metadata.ts';
import { isMcpEndpoint, parseRoute, type Route, unknownService, type WorkerRoute } from './route.ts';
import { describeStatus, listServices } from './status.ts';
import { callersTrace, type GatewayTracing } from './tracing.ts';

export interface AccessParts extends ChooseParts, SideParts {
  metrics: Pick<GatewayMetrics, 'denied'>;
  discovery: Discovery;
  refuseHost: HostGuard;
  /** undefined: there is no usable policy. */
  policy(): AccessPolicy | undefined;
  authenticator: Authenticator;
  limits: RequestLimits;
  meshApi: MeshApi;
  /** undefined: this gateway has no key, and workers that ask for an identity refuse its calls. */
  sign: SignIdentity | undefined;
  audit: AuditLog | undefined;
  /** For `mesh why`. */
  decisions?: Decisions;
  /** undefined: a caller's own trace passes by. */
  tracing?: GatewayTracing | undefined;
  /** The gateway as its callers see it, for OAuth. */
  publicUrl: string | undefined;
}

/** One request, and what has been found out about it. */
interface Visit extends DecisionNotes {
  request: MeshRequest;
  route?: Route;
  caller?: Principal;
}

/** Kong retries the next target only after this: a vanished host must not eat the caller's patience. */
const CONNECT_TIMEOUT_MS = 2000;
const WRITE_TIMEOUT_MS = 60_000;
const DEFAULT_CALL_TIMEOUT_MS = 60_000;
/** The worker answers its own time-out; Kong's must come later (queueing included). */
const READ_MARGIN_MS = 30_000;
/** First request after a start: as long as it may take to hear from Consul. */
const DISCOVERY_WAIT_MS = 3000;

/** Made once: recording a stack costs more than the rest of a decision. */
const WORKER_LOST = new MeshError('worker_lost', {
  detail: 'the connection to the worker was lost before it answered',
  delivered: 'unknown',
});
const WORKER_SILENT = new MeshError('timeout', {
  detail: 'the worker did not answer in time',
  delivered: 'unknown',
});

/** One request's story: who may come in, where it goes. Never throws: a fault becomes an answer. */
export async function decide(request: MeshRequest, parts: AccessParts): Promise<Decision> {
  const callId = acceptCallId(request.headers[HEADERS.callId]) ?? randomUUID();
  const visit: Visit = { request, callId };
  try {
    const decision = await judge(visit, parts);
    record(visit, parts, 'allow');
    keep(visit, parts, decision);
    return decision;
  } catch (fault) {
    const error = toMeshError(fault);
    const { route } = visit;
    parts.metrics.denied(error instanceof AuthenticationError ? error.reason : error.code, serviceOf(route));
    record(visit, parts, error.code);
    parts.decisions?.add({ ...visit, refusal: error });
    const headers = { ...refusalHeaders(error, visit, parts), ...errorHeaders(error) };
    return refuse(error, callId, isMcpEndpoint(request.path), headers);
  }
}

async function judge(visit: Visit, parts: AccessParts): Promise<Decision> {
  const { request, callId } = visit;
  const refusal = parts.refuseHost(request.headers.host, request.headers.origin);
  if (refusal !== undefined) throw new MeshError('forbidden', { detail: refusal });
  const route = parseRoute(request.method, request.path);
  visit.route = route;
  if (route.to === 'metadata') return answerMetadata(route.service, callId, parts);
  const caller = await parts.authenticator.authenticate(request.allHeaders, serviceOf(route));
  visit.caller = caller;
  if (route.to === 'mesh') {
    const { status, value } = await parts.meshApi.handle({ ...request, caller });
    return answer(status, value, callId);
  }
  const policy = parts.policy();
  if (route.to === 'list') {
    await parts.discovery.ready(DISCOVERY_WAIT_MS);
    return answer(200, listServices(visibleTo(caller, policy, parts.discovery.list())), callId);
  }
  // Before it is known whether there is such a service: a refusal tells nothing of it.
  const authorized = authorize(caller, policy, route.service);
  visit.authorized = authorized;
  await parts.discovery.ready(DISCOVERY_WAIT_MS);
  const known = parts.discovery.find(route.service);
  if (!known) throw unknownService(route.service);
  visit.service = known;
  if (route.to === 'status') return answer(200, describeStatus(known, parts), callId);
  return routeCall(visit, route, known, authorized, parts);
}

async function routeCall(
  visit: Visit,
  route: WorkerRoute,
  service: KnownService,
  authorized: Authorized,
  parts: AccessParts,
): Promise<RouteDecision> {
  const { request, callId } = visit;
  const { principal, permissions, claims } = authorized;
  // The caller may choose the call id, and send a hundred calls under one.
  const lease = randomUUID();
  const readMs = longestCall(service) + READ_MARGIN_MS;
  // A stream stands for as long as its client lives; it is no request under way.
  const limits = isListening(request, route) ? withoutPlaces(permissions.limits) : permissions.limits;
  const entered = await parts.limits.enter({
    principal,
    service: service.name,
    limits,
    lease,
    ttlMs: readMs,
  });
  try {
    const key = principal === 'anonymous' ? request.clientIp : principal;
    const either: Pick<RouteDecision, 'answer_headers' | 'timeouts' | 'failure'> = {
      answer_headers: entered.headers,
      timeouts: [CONNECT_TIMEOUT_MS, WRITE_TIMEOUT_MS, readMs],
      failure: failureOf(callId, route.rpc),
    };
    const old =
      isMigrating(service) && (await chooseOldTarget(service, { request, route, authorized, key }, parts));
    if (old) return { ...either, ...routeToOld(old, service, { callId, lease }) };
    const onChoice = (choice: ChoiceMade) => {
      if (parts.decisions) visit.choice = weigh(choice, parts, Date.now());
    };
    const call = { id: lease, request, route, key, ttlMs: readMs, onChoice };
    const chosen = chooseInstances(service, call, parts);
    const traced = parts.tracing?.begin(request);
    visit.traceId = traced?.traceId ?? callersTrace(request)?.traceId;
    const identity = parts.sign === undefined ? {} : { [HEADERS.identity]: parts.sign(claims) };
    return {
      ...either,
      targets: chosen.map(({ address, port }) => [address, port]),
      path: route.path,
      headers: { [HEADERS.callId]: callId, ...identity, ...traced?.headers },
      record: {
        call_id: callId,
        lease,
        service: service.name,
        instances: chosen.map(({ id }) => id),
        ...(traced ? { trace: traced.record } : {}),
      },
    };
  } catch (fault) {
    // Only a routed call has a log event with a record.
    parts.limits.leave(lease);
    throw fault;
  }
}

/** The service that was asked for, whether or not there is one; undefined where that is not yet, or never, known. */
function serviceOf(route: Route | undefined): string | undefined {
  return route && 'service' in route ? route.service : undefined;
}

function withoutPlaces({ inFlight: _inFlight, ...limits }: Limits): Limits {
  return limits;
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

/** What Kong is to say when it has to answer itself. */
function failureOf(callId: string, rpc: boolean): RouteDecision['failure'] {
  const { type, body: lost } = describe(WORKER_LOST, callId, rpc);
  return { type, lost, late: describe(WORKER_SILENT, callId, rpc).body };
}

/** Public: a client needs it before it has a token. */
function answerMetadata(service: string | undefined, callId: string, parts: AccessParts): AnswerDecision {
  const { publicUrl } = parts;
  const document = publicUrl === undefined ? undefined : resourceMetadata(parts.policy(), publicUrl, service);
  if (!document) {
    const detail = 'no issuer of tokens is configured (jwt in access.yaml, MESH_PUBLIC_URL)';
    throw new MeshError('unknown_path', { detail });
  }
  return answer(200, document, callId);
}

function refusalHeaders(error: MeshError, visit: Visit, parts: AccessParts): Record<string, string> {
  const { route, caller } = visit;
  const { publicUrl } = parts;
  const value = challenge(error, serviceOf(route), {
    publicUrl,
    policy: parts.policy(),
    principal: caller?.principal,
  });
  return {
    ...(error instanceof LimitError || error instanceof MethodNotAllowed ? error.headers : {}),
    ...(value === undefined ? {} : { 'www-authenticate': value }),
  };
}

/** Only what went to a worker: status and lists are asked for all the time. */
function keep(visit: Visit, { decisions }: AccessParts, decision: Decision): void {
  if (decisions && 'record' in decision) decision.record.decision = decisions.add(visit);
}

function record(visit: Visit, { audit }: AccessParts, outcome: string): void {
  const { request, callId, route, caller, choice, traceId } = visit;
  audit?.write({
    time: new Date().toISOString(),
    event: 'decision',
    call_id: callId,
    principal: caller?.principal ?? null,
    client_ip: request.clientIp,
    method: request.method,
    path: request.path,
    service: serviceOf(route) ?? null,
    outcome,
    ...(choice ? { instances: choice.chosen.map(({ id }) => id) } : {}),
    ...(traceId === undefined ? {} : { trace_id: traceId }),
  });
}

function answer(status: number, value: unknown, callId: string): AnswerDecision {
  const headers = { 'content-type': 'application/json', [HEADERS.callId]: callId };
  return { status, headers, body: JSON.stringify(value) };
}

function refuse(
  error: MeshError,
  callId: string,
  rpc: boolean,
  headers: Record<string, string>,
): AnswerDecision {
  const { type, body } = describe(error, callId, rpc);
  return {
    status: error.status,
    headers: { ...headers, 'content-type': type, [HEADERS.callId]: callId },
    body,
  };
}

/** JSON-RPC on the MCP endpoint, problem details elsewhere. */
function describe(error: MeshError, callId: string, rpc: boolean): { type: string; body: string } {
  if (rpc) return { type: 'application/json', body: errorText('null', error, callId) };
  return { type: 'application/problem+json', body: JSON.stringify(toProblem(error, callId)) };
}
