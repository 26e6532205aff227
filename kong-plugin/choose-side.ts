import { MODERN_VERSION } from '../mesh/eras.ts';
import { MeshError } from '../mesh/errors.ts';
import { isUnrestricted } from '../mesh/grants.ts';
import { HEADERS } from '../mesh/names.ts';
import { countsTools } from '../mesh/role-limits.ts';
import type { Authorized } from './authorize.ts';
import type { KnownService } from './discovery.ts';
import type { MeshRequest, RouteDecision } from './handoff.ts';
import { isOwnSession, type OldDeployments, type OldTarget, type TrafficShare } from './old-deployment.ts';
import type { WorkerRoute } from './route.ts';

export interface SideParts {
  oldDeployments?: OldDeployments;
  share?: TrafficShare;
}

interface SidedCall {
  request: MeshRequest;
  route: WorkerRoute;
  authorized: Authorized;
  /** Whose call it is. */
  key: string;
}

const ALL = 100;

/** Before the name of a service: stands for its old deployment where an instance's id is wanted. */
const OLD_PREFIX = 'legacy:';

export function isOldDeployment(instance: string): boolean {
  return instance.startsWith(OLD_PREFIX);
}

/** Whether a service is being moved, so that some of its requests go elsewhere. */
export function isMigrating({ definition }: KnownService): boolean {
  return typeof definition.legacy_url === 'string';
}

/** How many of 100 new sessions go to the mesh. */
export function trafficPercent({ definition }: KnownService): number {
  return typeof definition.traffic_percent === 'number' ? definition.traffic_percent : ALL;
}

/**
 * The old deployment, when this request of a service that is being moved is for it; undefined: it is for the mesh. A
 * session stays on the side where it began, and a caller without sessions on one side. REST is the mesh's own, and so is
 * whoever may not use all of the service, or not without bounds: the old deployment would not keep them.
 * @throws MeshError `unknown_session`, `no_healthy_instance`
 */
export async function chooseOldTarget(
  service: KnownService,
  call: SidedCall,
  { oldDeployments, share }: SideParts,
): Promise<OldTarget | undefined> {
  if (!oldDeployments || !share || !call.route.rpc) return undefined;
  const session = call.request.headers[HEADERS.session];
  const isForeign = session !== undefined && !isOwnSession(session);
  if (isBounded(call.authorized)) {
    if (!isForeign) return undefined;
    throw new MeshError('unknown_session', { detail: 'initialize again, without Mcp-Session-Id' });
  }
  const isOld = session === undefined ? isNewToOld(service, call, share) : isForeign;
  if (!isOld) return undefined;
  const found = await oldDeployments.find(String(service.definition.legacy_url));
  if (found.target) return found.target;
  if (!isForeign) return undefined;
  throw new MeshError('no_healthy_instance', { detail: "the session's old deployment cannot be reached" });
}

/** Neither the caller's credentials nor an identity of ours go there. */
export function routeToOld(
  { address, port, path, host }: OldTarget,
  { name }: KnownService,
  { callId, lease }: { callId: string; lease: string },
): Omit<RouteDecision, 'answer_headers' | 'timeouts' | 'failure'> {
  return {
    targets: [[address, port]],
    host,
    path,
    headers: { [HEADERS.callId]: callId },
    record: { call_id: callId, lease, service: name, instances: [`${OLD_PREFIX}${name}`] },
  };
}

/** A request without a session. */
function isNewToOld(service: KnownService, { request, key }: SidedCall, share: TrafficShare): boolean {
  if (request.headers[HEADERS.side] === 'mesh') return false;
  const percent = trafficPercent(service);
  const version = request.headers[HEADERS.protocolVersion];
  if (version !== undefined && version >= MODERN_VERSION) return !share.takesCaller(service, percent, key);
  // After initialize, which the mesh answers with a session id: it was an old deployment without sessions.
  if (version !== undefined || request.method !== 'POST') return percent < ALL;
  return !share.takesSession(service, percent);
}

function isBounded({ permissions: { grants, limits } }: Authorized): boolean {
  return !isUnrestricted(grants) || countsTools(limits);
}
