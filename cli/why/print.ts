import { isObject } from '../../mesh/jsonrpc.ts';
import type { KnownCall } from '../why.ts';

type Facts = Record<string, unknown>;

const LABEL_WIDTH = 12;
/** Names, paths and reasons come from callers and servers: in a terminal they must not move the cursor. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** What is known of a call, for people; ends with a line end. */
export function printCall({ id, decisions, audit, trouble }: KnownCall): string {
  const lines = [`call ${id}`];
  for (const decision of decisions) lines.push('', ...printDecision(decision));
  // What a gateway has told itself needs no second telling.
  const logged = audit.filter(({ event }) => event !== 'decision' || decisions.length === 0);
  for (const entry of logged) lines.push('', ...printEntry(entry));
  if (decisions.length === 0 && audit.length === 0) {
    lines.push(
      '',
      'Nobody knows it. Gateways keep their last 2,000 routed calls, and audit logs are rotated.',
    );
  } else if (!audit.some(({ event }) => event === 'execution')) {
    lines.push(
      '',
      'No audit log tells of an execution (set MESH_AUDIT_LOG for the workers, and --audit here).',
    );
  }
  for (const text of trouble) lines.push('', `could not ask ${text}`);
  return `${lines.map(line => line.replace(UNSAFE, '?')).join('\n')}\n`;
}

function printDecision(decision: Facts): string[] {
  const { policy, result, trace_id, detail, outcome } = decision;
  return [
    row('decision', `${text(decision.time)}  ${text(decision.method)} ${text(decision.path)}`),
    row('caller', callerOf(decision)),
    ...(isObject(policy) ? [row('allowed by', policyOf(policy))] : []),
    ...(outcome === 'routed' ? printChoice(decision) : [row('refused', `${text(outcome)}: ${text(detail)}`)]),
    ...(isObject(result) ? printResult(result) : []),
    ...(outcome === 'routed' && !isObject(result)
      ? [row('result', 'none yet: it is under way, or Kong has not told')]
      : []),
    ...(trace_id === undefined ? [] : [row('trace', text(trace_id))]),
  ];
}

function callerOf({ principal, roles, client_ip }: Facts): string {
  const who = principal === null ? 'nobody known' : text(principal);
  const as = Array.isArray(roles) && roles.length > 0 ? ` as ${roles.join(', ')}` : '';
  return `${who}${as}${client_ip ? ` from ${text(client_ip)}` : ''}`;
}

function policyOf({ version, allow, deny }: Facts): string {
  const denied = Array.isArray(deny) && deny.length > 0 ? `, but not ${rules(deny)}` : '';
  return `policy ${text(version)}: ${rules(allow)}${denied}`;
}

function rules(list: unknown): string {
  const each = (rule: unknown) => {
    const kinds = isObject(rule) ? Object.entries(rule) : [];
    return kinds.length === 0
      ? 'everything'
      : kinds.map(([kind, names]) => `${kind} ${text(names)}`).join(', ');
  };
  return Array.isArray(list) ? list.map(each).join('; ') : '';
}

const BECAUSE: Readonly<Record<string, string>> = {
  probe: 'an ejected instance was to be tried again',
  session: 'it began the session',
};

function printChoice(decision: Facts): string[] {
  const { strategy, because, candidates, candidates_total, others, others_total, targets } = decision;
  const chosen = Array.isArray(targets) ? targets : [];
  const known = facts(candidates);
  const why = BECAUSE[String(because)] ?? text(strategy);
  const left = Number(candidates_total) - known.length;
  const unseen = Number(others_total) - facts(others).length;
  return [
    row('chosen', `${text(chosen[0])} (${why}) of ${text(candidates_total)}`),
    ...known.map(candidate => row('', candidateOf(candidate, chosen.indexOf(candidate.id)))),
    ...(left > 0 ? [row('', `… and ${left} more`)] : []),
    ...facts(others).map(({ id, state, reason }) =>
      row('', `  ${text(id)}  not chosen from: ${text(state)}, ${text(reason)}`),
    ),
    ...(unseen > 0 ? [row('', `… and ${unseen} more that were not chosen from`)] : []),
  ];
}

function candidateOf(candidate: Facts, place: number): string {
  const {
    id,
    cost,
    latency_ms,
    in_flight,
    streams,
    reported_in_flight,
    queue_depth,
    memory,
    weight,
    breaker,
  } = candidate;
  const parts = [
    `cost ${text(cost)}`,
    `latency ${text(latency_ms)} ms`,
    `${text(in_flight)} in flight`,
    ...(Number(streams) > 0 ? [`${text(streams)} streams`] : []),
    ...(reported_in_flight === undefined
      ? ['no report']
      : [
          `reports ${text(reported_in_flight)} + ${text(queue_depth)} queued, memory ${Math.round(Number(memory) * 100)} %`,
        ]),
    `weight ${text(weight)}`,
    ...(breaker === 'closed' ? [] : [`breaker ${text(breaker)}`]),
  ];
  return `${place < 0 ? ' ' : place + 1} ${text(id)}  ${parts.join(', ')}`;
}

function printResult({ status, latency_ms, answered_ms, tries }: Facts): string[] {
  const answered = answered_ms === null ? 'no instance answered' : `answered after ${text(answered_ms)} ms`;
  return [
    row('result', `${text(status)} in ${text(latency_ms)} ms, ${answered}`),
    ...facts(tries).map(({ instance, result, reason }, i) =>
      row(i === 0 ? 'tries' : '', `${text(instance)}: ${text(result)}${reason ? `, ${text(reason)}` : ''}`),
    ),
  ];
}

function printEntry(entry: Facts): string[] {
  if (entry.event !== 'execution') {
    const { time, event, outcome, method, path } = entry;
    const targets = Array.isArray(entry.instances) ? [row('targets', entry.instances.join(', '))] : [];
    return [
      row(text(event), `${text(time)}  ${text(method)} ${text(path)}: ${text(outcome)}`),
      row('caller', callerOf(entry)),
      ...targets,
      ...(entry.trace_id === undefined ? [] : [row('trace', text(entry.trace_id))]),
    ];
  }
  const { time, method, name, uri, instance, outcome, retried, attempts, child_pid, child_generation } =
    entry;
  const again = Array.isArray(retried) ? ` (again after ${retried.join(', ')})` : '';
  const child =
    child_pid === undefined
      ? []
      : [
          row(
            'server',
            `pid ${text(child_pid)}${child_generation === undefined ? '' : `, run ${text(child_generation)}`}`,
          ),
        ];
  return [
    row(
      'execution',
      `${text(time)}  ${text(method)} ${text(name ?? uri ?? '')} at ${text(instance)}: ${text(outcome)}`,
    ),
    row(
      'time',
      `${text(entry.latency_ms)} ms: waited ${text(entry.queue_ms)} ms, ran ${text(entry.execution_ms)} ms`,
    ),
    row('attempts', `${text(attempts)}${again}`),
    ...child,
    ...(entry.trace_id === undefined ? [] : [row('trace', text(entry.trace_id))]),
  ];
}

function row(label: string, value: string): string {
  return `  ${label.padEnd(LABEL_WIDTH)}${value}`.trimEnd();
}

function facts(list: unknown): Facts[] {
  return Array.isArray(list) ? list.filter(isObject) : [];
}

function text(value: unknown): string {
  if (Array.isArray(value)) return value.map(text).join(' ');
  return value === undefined || value === null ? '–' : String(value);
}
