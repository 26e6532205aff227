import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Instance } from '../mesh/consul.ts';
import { acceptCallId } from '../mesh/names.ts';
import type { Authorized } from './authorize.ts';
import { costOf } from './balancer/adaptive.ts';
import type { ChoiceMade, ChooseParts } from './choose.ts';
import type { KnownService } from './discovery.ts';
import type { Outcome } from './log.ts';

/** What is known of a decision when it is made. */
export interface DecisionNotes {
  callId: string;
  request: { method: string; path: string; clientIp: string };
  caller?: { principal: string; roles: readonly string[] };
  /** As Consul had it then. */
  service?: KnownService | undefined;
  /** What let the caller in. */
  authorized?: Authorized;
  choice?: WeighedChoice;
  traceId?: string | undefined;
  /** Why the call was not routed. */
  refusal?: { code: string; message: string };
}

/** A choice with the numbers that it was made of. */
export interface WeighedChoice extends ChoiceMade {
  weighed: Weighed[];
}

interface Weighed {
  id: string;
  weight: number;
  inFlight: number;
  streams: number;
  latencyMs: number;
  /** What ADAPTIVE goes by: milliseconds, more or less. */
  cost: number;
  reported: { inFlight: number; queueDepth: number; memory: number } | undefined;
  breaker: string;
}

/** The last decisions, for `mesh why`; in memory, and bounded. */
export interface Decisions {
  /** Takes down a decision; the number leads the log phase back to it. */
  add(notes: DecisionNotes): number;
  /** How a routed call went. */
  complete(outcome: Outcome): void;
  /** All decisions under a call's id, the newest first; undefined when there is none: callers may choose ids twice. */
  find(callId: string): object | undefined;
}

interface Entry {
  number: number;
  at: number;
  notes: DecisionNotes;
  outcome?: Outcome;
}

const ROUTED_MAX = 2000;
/** Kept apart: whoever is refused, over and over, must not push the others' calls out. */
const REFUSED_MAX = 500;
/** Candidates whose numbers are kept, the chosen ones first: a service may have a thousand. */
const WEIGHED_MAX = 16;
const OTHERS_MAX = 50;
const PATH = '/decisions/';
/** A page in a browser on this machine can reach the port by a name of its own, but cannot forge this header. */
const LOOPBACK_HOST = /^(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/;

export function createDecisions(now: () => number = Date.now): Decisions {
  const routed: Entry[] = [];
  const refused: Entry[] = [];
  let last = 0;
  return {
    add(given) {
      const notes = withoutSecrets(given);
      if (notes.refusal) {
        refused.push({ number: 0, at: now(), notes });
        if (refused.length >= 2 * REFUSED_MAX) refused.splice(0, REFUSED_MAX);
        return 0;
      }
      last += 1;
      routed[last % ROUTED_MAX] = { number: last, at: now(), notes };
      return last;
    },
    complete(outcome) {
      const { decision, callId } = outcome;
      const entry = decision === undefined ? undefined : routed[decision % ROUTED_MAX];
      // A number may be of a former process's.
      if (entry?.number === decision && entry?.notes.callId === callId) entry.outcome = outcome;
    },
    find(callId) {
      const found = [...routed, ...refused].filter(entry => entry?.notes.callId === callId);
      if (found.length === 0) return undefined;
      return { call_id: callId, decisions: found.toSorted((a, b) => b.at - a.at).map(describe) };
    },
  };
}

/** What is handed in may be more than its type says: a request has credentials, and perhaps a body. */
function withoutSecrets({ callId, request, caller, refusal, ...rest }: DecisionNotes): DecisionNotes {
  const { method, path, clientIp } = request;
  const { service, authorized, choice, traceId } = rest;
  return {
    callId,
    request: { method, path, clientIp },
    service,
    traceId,
    ...(caller ? { caller: { principal: caller.principal, roles: caller.roles } } : {}),
    ...(authorized ? { authorized } : {}),
    ...(choice ? { choice } : {}),
    ...(refusal ? { refusal: { code: refusal.code, message: refusal.message } } : {}),
  };
}

/** Notes the numbers of a choice before it changes them. */
export function weigh(choice: ChoiceMade, { balancer, ejection }: ChooseParts, now: number): WeighedChoice {
  const weighed: Weighed[] = [];
  const note = (instance: Instance) => {
    const load = balancer.load(instance.id);
    if (!load) return;
    const report = load.report(now);
    const { inFlight = 0, queueDepth = 0, memory = 0 } = report ?? {};
    weighed.push({
      id: instance.id,
      weight: instance.weights.passing,
      inFlight: load.inFlight,
      streams: load.streams,
      latencyMs: load.latencyMs(now),
      cost: costOf({ instance, load }, now),
      reported: report && { inFlight, queueDepth, memory },
      breaker: ejection.state(instance.id).state,
    });
  };
  for (const instance of choice.chosen) note(instance);
  for (const instance of choice.candidates) {
    if (weighed.length >= WEIGHED_MAX) break;
    if (!choice.chosen.includes(instance)) note(instance);
  }
  return { ...choice, weighed };
}

/** Answers `GET /decisions/<call-id>`; false when that is not what was asked for. */
export function answerDecision(
  find: Decisions['find'],
  { method, url = '', headers }: IncomingMessage,
  response: ServerResponse,
): boolean {
  if (method !== 'GET' || !url.startsWith(PATH)) return false;
  const callId = acceptCallId(url.slice(PATH.length));
  const ours = LOOPBACK_HOST.test(headers.host ?? '');
  const found = ours && callId !== undefined ? find(callId) : undefined;
  const status = found ? 200 : ours ? 404 : 403;
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(found ?? {}));
  return true;
}

function describe({ at, notes, outcome }: Entry): object {
  const { request, caller, service, authorized, choice, refusal, traceId } = notes;
  return {
    time: new Date(at).toISOString(),
    method: request.method,
    path: request.path,
    client_ip: request.clientIp,
    principal: caller?.principal ?? null,
    roles: caller?.roles ?? [],
    service: service?.name ?? null,
    outcome: refusal?.code ?? 'routed',
    ...(refusal ? { detail: refusal.message } : {}),
    ...(authorized ? { policy: describePolicy(authorized) } : {}),
    ...(service && choice ? describeChoice(choice, service) : {}),
    ...(traceId === undefined ? {} : { trace_id: traceId }),
    ...(outcome ? { result: describeOutcome(outcome) } : {}),
  };
}

function describePolicy({ permissions, claims }: Authorized): object {
  return { version: claims.policy_version, ...permissions.grants, limits: permissions.limits };
}

function describeChoice(
  { candidates, chosen, because, weighed }: WeighedChoice,
  service: KnownService,
): object {
  const others = service.instances.filter(instance => !candidates.includes(instance));
  return {
    strategy: service.definition.load_balancer ?? null,
    because,
    targets: chosen.map(({ id }) => id),
    candidates: weighed.map(({ id, weight, inFlight, streams, latencyMs, cost, reported, breaker }) => ({
      id,
      weight,
      in_flight: inFlight,
      streams,
      latency_ms: round(latencyMs),
      cost: round(cost),
      breaker,
      ...(reported
        ? {
            reported_in_flight: reported.inFlight,
            queue_depth: reported.queueDepth,
            memory: round(reported.memory),
          }
        : {}),
    })),
    candidates_total: candidates.length,
    others: others.slice(0, OTHERS_MAX).map(({ id, status, reason }) => ({
      id,
      state: status,
      reason: status === 'passing' ? 'ejected, or without the capability that was asked for' : reason,
    })),
    others_total: others.length,
  };
}

function describeOutcome({ status, latencyMs, answeredMs, tries }: Outcome): object {
  return { status, latency_ms: latencyMs, answered_ms: answeredMs ?? null, tries };
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
