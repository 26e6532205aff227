import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { ErrorCode } from '../../mesh/errors.ts';
import { type RpcRequest, textAt } from '../../mesh/jsonrpc.ts';
import { METRIC_PREFIX } from '../../mesh/names.ts';
import type { Service } from '../../mesh/registry.ts';
import { SECONDS } from './buckets.ts';

/** How a call ended that somebody asked for. */
export interface CallResult {
  /** Text of the response; undefined when there is none. */
  text: string | undefined;
  /** Why there is none. */
  error: ErrorCode | undefined;
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

/** Counts the calls that came in, whether or not they reached the server; above all those of tools. */
export class CallMetrics {
  readonly #tools = new Set<string>([OTHER]);
  readonly #calls: Counter<'tool' | 'outcome'>;
  readonly #duration: Histogram<'tool' | 'outcome'>;
  readonly #errors: Counter<'code'>;
  readonly #bytes: Counter<'direction'>;
  readonly #units: Counter;
  readonly #nearEnd: Counter;

  constructor(registers: Registry[]) {
    this.#calls = new Counter({
      name: `${PREFIX}tool_calls_total`,
      help: 'Calls of tools, by outcome: ok, tool_error (a result with isError), server_error (a JSON-RPC error), or the error code',
      labelNames: ['tool', 'outcome'],
      registers,
    });
    this.#duration = new Histogram({
      name: `${PREFIX}tool_call_duration_seconds`,
      help: 'Time from a call of a tool to its answer, waiting and retries included; outcome: ok or error',
      labelNames: ['tool', 'outcome'],
      buckets: SECONDS,
      registers,
    });
    this.#errors = new Counter({
      name: `${PREFIX}errors_total`,
      help: 'Calls of any method that ended without an answer of the server, by error code',
      labelNames: ['code'],
      registers,
    });
    this.#bytes = new Counter({
      name: `${PREFIX}message_bytes_total`,
      help: 'Bytes of JSON-RPC messages: in = requests of callers, out = answers to them',
      labelNames: ['direction'],
      registers,
    });
    this.#units = new Counter({
      name: `${PREFIX}quota_units_total`,
      help: 'Units that calls took of quotas: one a call, or the cost of the tool',
      registers,
    });
    this.#nearEnd = new Counter({
      name: `${PREFIX}quota_near_end_total`,
      help: 'Calls by callers who had used 80 % of their quota or more',
      registers,
    });
  }

  /** Shows the time limits, too. */
  limit(service: Pick<Service, 'timeout_ms' | 'tool_timeouts'>, registers: Registry[]): void {
    const tools = this.#tools;
    new Gauge({
      name: `${PREFIX}tool_timeout_seconds`,
      help: 'Longest time that a call of the tool may take, by the registry',
      labelNames: ['tool'],
      registers,
      collect() {
        for (const tool of tools) this.set({ tool }, timeoutMs(service, tool) / 1000);
      },
    });
  }

  count(request: RpcRequest, result: CallResult): void {
    const { text, error, seconds, units } = result;
    this.#bytes.inc({ direction: 'in' }, Buffer.byteLength(request.text));
    if (text !== undefined) this.#bytes.inc({ direction: 'out' }, Buffer.byteLength(text));
    if (error !== undefined) this.#errors.inc({ code: error });
    if (units > 0) this.#units.inc(units);
    if (result.nearEnd) this.#nearEnd.inc();
    const { name } = request.params;
    if (request.method !== 'tools/call' || typeof name !== 'string' || result.continued) return;
    const tool = this.#labelOf(name, result);
    const outcome = error ?? outcomeOf(text ?? '');
    this.#calls.inc({ tool, outcome });
    this.#duration.observe({ tool, outcome: outcome === 'ok' ? 'ok' : 'error' }, seconds);
  }

  /** A caller can name any tool, and a server can list a new one with every list. */
  #labelOf(name: string, { isListed }: CallResult): string {
    if (this.#tools.has(name)) return name;
    if (this.#tools.size > TOOLS_MAX || name.length > NAME_MAX || !isListed(name)) return OTHER;
    this.#tools.add(name);
    return name;
  }
}

/** Reading each answer once more would cost more than all other counting: most have neither word. */
function outcomeOf(text: string): string {
  if (text.includes('"error"') && textAt(text, ['error']) !== undefined) return 'server_error';
  if (text.includes('"isError"') && textAt(text, ['result', 'isError']) === 'true') return 'tool_error';
  return 'ok';
}

function timeoutMs(
  { timeout_ms, tool_timeouts }: Pick<Service, 'timeout_ms' | 'tool_timeouts'>,
  tool: string,
): number {
  return (Object.hasOwn(tool_timeouts, tool) ? tool_timeouts[tool] : undefined) ?? timeout_ms;
}
