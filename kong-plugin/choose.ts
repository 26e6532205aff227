import type { Instance } from '../mesh/consul.ts';
import { MeshError } from '../mesh/errors.ts';
import { withoutLastWords } from '../mesh/last-words.ts';
import { HEADERS, ownerHash } from '../mesh/names.ts';
import type { Balancer } from './balancer/balancer.ts';
import { eligible } from './candidates.ts';
import type { KnownService } from './discovery.ts';
import type { Ejection } from './ejection.ts';
import type { MeshRequest } from './handoff.ts';
import type { WorkerRoute } from './route.ts';

export interface ChooseParts {
  balancer: Balancer;
  ejection: Ejection;
}

export interface ChoosingCall {
  id: string;
  request: MeshRequest;
  route: WorkerRoute;
  /** Whose call it is, for strategies that keep a caller at an instance. */
  key: string;
  /** Longest time until its outcome is known, in ms. */
  ttlMs: number;
  /** Told of the choice, before it changes anybody's load. */
  onChoice?(choice: ChoiceMade): void;
}

export interface ChoiceMade {
  candidates: readonly Instance[];
  /** Best first. */
  chosen: readonly Instance[];
  /** What put the first one there: that it is to be tried again, that it began the session, or the strategy. */
  because: 'probe' | 'session' | 'strategy';
}

const TARGETS_MAX = 3;
/** An instance that hangs must not stay the one being tried for as long as its slowest tool may take. */
const PROBE_DEADLINE_MS = 30_000;

/**
 * The instances that a call is sent to, best first; the next one is only asked when the connection to the one before
 * failed. The first counts the call until the log phase, or until `ttlMs`.
 * @throws MeshError `no_healthy_instance` with each instance's reason
 */
export function chooseInstances(service: KnownService, call: ChoosingCall, parts: ChooseParts): Instance[] {
  const { balancer, ejection } = parts;
  const { headers } = call.request;
  const passing = eligible(service.instances, headers[HEADERS.capability]);
  if (passing.length === 0) throw noHealthyInstance(service);
  const instances = ejection.admit(passing);
  const choice = { name: service.name, strategy: String(service.definition.load_balancer), instances };
  const picked = balancer.pick(choice, { key: call.key, now: Date.now() }, TARGETS_MAX);
  const listening = isListening(call.request, call.route);
  // A stream would tell nothing for minutes.
  const probed = listening
    ? undefined
    : ejection.probe(passing, call.id, Math.min(call.ttlMs, PROBE_DEADLINE_MS));
  const preferred = probed ?? ownerOf(headers[HEADERS.session], instances);
  const chosen = toFront(preferred, picked);
  const because = probed ? 'probe' : preferred ? 'session' : 'strategy';
  call.onChoice?.({ candidates: instances, chosen, because });
  const [first] = chosen;
  if (first) balancer.lease(call.id, first.id, listening ? 'stream' : 'call', call.ttlMs);
  return chosen;
}

/** A stream of what the server has to say, for as long as the client wants it. */
export function isListening({ method }: MeshRequest, { rpc }: WorkerRoute): boolean {
  return method === 'GET' && rpc;
}

/** A session's owner has what belongs to it at hand; any other instance can serve it, too. */
function ownerOf(session: string | undefined, instances: readonly Instance[]): Instance | undefined {
  const owner = session?.split('.', 1)[0];
  return owner === undefined ? undefined : instances.find(({ id }) => ownerHash(id) === owner);
}

function toFront(preferred: Instance | undefined, picked: Instance[]): Instance[] {
  if (!preferred) return picked;
  return [preferred, ...picked.filter(instance => instance !== preferred)].slice(0, TARGETS_MAX);
}

function noHealthyInstance(service: KnownService): MeshError {
  const reasons = service.instances.map(
    ({ id, status, reason }) => `${id} is ${status}: ${withoutLastWords(reason) || 'no reason given'}`,
  );
  const detail = reasons.length > 0 ? reasons.join('; ') : `no instance of "${service.name}" is registered`;
  return new MeshError('no_healthy_instance', { detail, delivered: 'no', retryAfterMs: 1000 });
}
