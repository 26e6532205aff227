import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { ErrorCode } from '../../mesh/errors.ts';
import type { AnswerKind, RpcRequest } from '../../mesh/jsonrpc.ts';
import { METRIC_PREFIX } from '../../mesh/names.ts';
import { addCount } from '../../mesh/read-metrics.ts';
import type { Service } from '../../mesh/registry.ts';
import { byteLength } from '../../mesh/wire-text.ts';
import { SECONDS } from './buckets.ts';

/** How a call ended that somebody asked for. */
export interface CallResult {
  /** undefined when the server did not. */
  answered: AnswerKind | undefined;
  /** Why it did not, or why the call was not brought to it. */
  error: ErrorCode | undefined;
  /** Of the answer. */
  bytesOut: number;
  seconds: number;
  /** A further round of a call that was counted. */
  continued: boolean;
  /** Units that it took of a quota. */
  units: number;
  /** The caller has used most of its quota. */
  nearEnd: boolean;
  /** Whether a tool is on the server's own list. */
  isListed(tool: string): boolean;
}

/** Names that become labels; further ones of a server are counted together. */
const TOOLS_MAX = 200;
/** MCP's own limit for the name of a tool. */
const NAME_MAX = 128;
const OTHER = 'other';
const PREFIX = `${METRIC_PREFIX}worker_`;

/**
 * Counts the calls that came in, whether or not they reached the server; above all those of tools. Sums are kept here
 * and given to prom-client when somebody asks: its counters make a string of their labels with each call.
 */
export class CallMetrics {
  readonly #duration: Histogram<'tool' | 'outcome'>;
  /** Calls by tool, by outcome. */
  readonly #calls = new Map<string, Map<string, number>>([[OTHER, new Map()]]);
  readonly #errors = new Map<string, number>();
  #bytesIn = 0;
  #bytesOut = 0;
  #units = 0;
  #nearEnd = 0;

  constructor(registers: Registry[]) {
    this.#duration = new Histogram({
      name: `${PREFIX}tool_call_duration_seconds`,
      help: 'Time from a call of a tool to its answer, waiting and retries included; outcome: ok or error',
      labelNames: ['tool', 'outcome'],
      buckets: SECONDS,
      registers,
    });
    this.#show(registers);
    const units = 'Units that calls took of quotas: one a call, or the cost of the tool';
    addCount(`${PREFIX}quota_units_total`, units, () => this.#units, registers);
    const nearEnd = 'Calls by callers who had used 80 % of their quota or more';
    addCount(`${PREFIX}quota_near_end_total`, nearEnd, () => this.#nearEnd, registers);
  }

  /** Shows the time limits, too. */
  limit(service: Pick<Service, 'timeout_ms' | 'tool_timeouts'>, registers: Registry[]): void {
    const calls = this.#calls;
    new Gauge({
      name: `${PREFIX}tool_timeout_seconds`,
      help: 'Longest time that a call of the tool may take, by the registry',
      labelNames: ['tool'],
      registers,
      collect() {
        for (const tool of calls.keys()) this.set({ tool }, timeoutMs(service, tool) / 1000);
      },
    });
  }

  count(request: RpcRequest, result: CallResult): void {
    const { answered, error, seconds } = result;
    this.#bytesIn += byteLength(request.text);
    this.#bytesOut += result.bytesOut;
    if (error !== undefined) this.#errors.set(error, (this.#errors.get(error) ?? 0) + 1);
    this.#units += result.units;
    if (result.nearEnd) this.#nearEnd += 1;
    const { name } = request.params;
    if (request.method !== 'tools/call' || typeof name !== 'string' || result.continued) return;
    const tool = this.#labelOf(name, result);
    const outcome = error ?? answered ?? 'ok';
    const outcomes = this.#calls.get(tool);
    outcomes?.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    this.#duration.observe({ tool, outcome: outcome === 'ok' ? 'ok' : 'error' }, seconds);
  }

  /** A caller can name any tool, and a server can list a new one with every list. */
  #labelOf(name: string, { isListed }: CallResult): string {
    if (this.#calls.has(name)) return name;
    if (this.#calls.size > TOOLS_MAX || name.length > NAME_MAX || !isListed(name)) return OTHER;
    this.#calls.set(name, new Map());
    return name;
  }

  #show(registers: Registry[]): void {
    const calls = this.#calls;
    new Counter({
      name: `${PREFIX}tool_calls_total`,
      help: 'Calls of tools, by outcome: ok, tool_error (a result with isError), server_error (a JSON-RPC error), or the error code',
      labelNames: ['tool', 'outcome'],
      registers,
      collect() {
        this.reset();
        for (const [tool, outcomes] of calls)
          for (const [outcome, count] of outcomes) this.inc({ tool, outcome }, count);
      },
    });
    const errors = this.#errors;
    new Counter({
      name: `${PREFIX}errors_total`,
      help: 'Calls of any method that ended without an answer of the server, by error code',
      labelNames: ['code'],
      registers,
      collect() {
        this.reset();
        for (const [code, count] of errors) this.inc({ code }, count);
      },
    });
    const bytes = () => ({ in: this.#bytesIn, out: this.#bytesOut });
    new Counter({
      name: `${PREFIX}message_bytes_total`,
      help: 'Bytes of JSON-RPC messages: in = requests of callers, out = answers to them',
      labelNames: ['direction'],
      registers,
      collect() {
        this.reset();
        for (const [direction, count] of Object.entries(bytes())) this.inc({ direction }, count);
      },
    });
  }
}

function timeoutMs(
  { timeout_ms, tool_timeouts }: Pick<Service, 'timeout_ms' | 'tool_timeouts'>,
  tool: string,
): number {
  return (Object.hasOwn(tool_timeouts, tool) ? tool_timeouts[tool] : undefined) ?? timeout_ms;
}
