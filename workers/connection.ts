import type { Logger } from 'pino';
import { MeshError } from '../mesh/errors.ts';
import {
  isObject,
  type JsonObject,
  type RpcNotification,
  type RpcRequest,
  type RpcResponse,
} from '../mesh/jsonrpc.ts';
import { withoutLastWords } from '../mesh/last-words.ts';
import type { Service } from '../mesh/registry.ts';
import type { WireText } from '../mesh/wire-text.ts';
import type { Usage } from './child/usage.ts';
import { Child, type ChildExit, type ExitCause } from './child.ts';
import { type HandshakeOptions, modernMeta, type ServerInfo, shakeHands } from './handshake.ts';
import { createHangWatch, type HangTimes, type HangWatch } from './hang-watch.ts';
import { type AnswerMember, type CallOptions, Multiplexer } from './multiplexer.ts';

export { type ClientProfile, NO_CLIENT, type ServerInfo } from './handshake.ts';

export interface ConnectionHandlers {
  onNotification(notification: RpcNotification): void;
  onRequest?: ((request: RpcRequest, withdrawn: AbortSignal) => Promise<AnswerMember>) | undefined;
}

interface ConnectionOptions extends ConnectionHandlers {
  service: Service;
  log: Logger;
  /** All calls belong to one client (see Multiplexer). */
  exclusive: boolean;
  /** When silence is suspicious; default: half a minute, and as long for the answer to a ping. */
  hang?: HangTimes | undefined;
  onStderr?: ((line: string) => void) | undefined;
  onExit(exit: ChildExit): void;
}

const STREAM = 'subscriptions/listen';
/** Longer than any verdict takes: until then a late answer is still told from noise. */
const PING_MAX_MS = 600_000;
const UNANSWERED = new Set(['timeout', 'cancelled']);

/** One run of the service's MCP server: its process, the handshake in its era, and the calls on it. */
export class Connection {
  readonly #service: Service;
  readonly #child: Child;
  readonly #multiplexer: Multiplexer;
  readonly #watch: HangWatch;
  #info: ServerInfo | undefined;
  #busy = 0;
  /** Nobody waits for these. */
  #pings = 0;

  constructor(options: ConnectionOptions) {
    const { service, log, exclusive, onNotification, onRequest, onExit } = options;
    const child: Child = new Child(service, log, {
      onLine: line => {
        watch.heard();
        multiplexer.receive(line);
      },
      onLineTooLong: head => {
        watch.heard();
        multiplexer.receiveTooLong(head);
      },
      onStderr: line => {
        log.debug({ stderr: line }, 'server');
        options.onStderr?.(line);
      },
      onExit(exit) {
        watch.stop();
        const detail = withoutLastWords(exit.reason);
        multiplexer.fail(new MeshError('child_crashed', { detail, delivered: 'unknown' }));
        onExit(exit);
      },
    });
    const multiplexer = new Multiplexer({
      write: (line, alone) => child.write(line, alone),
      exclusive,
      onNotification,
      onRequest,
      log,
    });
    const watch = createHangWatch({
      times: options.hang,
      ping: () => this.#ping(),
      isAsking: () => multiplexer.asking,
      onHung: reason => child.kill('hung', `child ${reason}`),
    });
    this.#service = service;
    this.#child = child;
    this.#multiplexer = multiplexer;
    this.#watch = watch;
  }

  /** undefined until the handshake is done. */
  get info(): ServerInfo | undefined {
    return this.#info;
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Of all its processes, about a second old at most. */
  get usage(): Usage {
    return this.#child.usage;
  }

  /** Requests that somebody waits for: a stream is none, its client opens it again elsewhere. */
  get busy(): number {
    return this.#busy;
  }

  get inFlight(): number {
    return this.#multiplexer.inFlight - this.#pings;
  }

  get logging(): boolean {
    return this.#multiplexer.logging;
  }

  /** @throws MeshError as `shakeHands` */
  async shakeHands(options: HandshakeOptions): Promise<ServerInfo> {
    this.#info = await shakeHands(this.#multiplexer, options);
    return this.#info;
  }

  /** @throws MeshError as `Multiplexer.call` */
  async call(request: RpcRequest, options: CallOptions): Promise<WireText> {
    if (request.method === STREAM) return this.#multiplexer.call(request, options);
    const ended = this.#watch.began(Math.max(options.timeoutMs, longestTime(this.#service, request)));
    let answered = true;
    this.#busy += 1;
    try {
      return await this.#multiplexer.call(request, options);
    } catch (error) {
      answered = !(error instanceof MeshError && UNANSWERED.has(error.code));
      throw error;
    } finally {
      this.#busy -= 1;
      ended(answered);
    }
  }

  /** A request of our own, with the `_meta` that a modern server needs. @throws MeshError as `Multiplexer.ask` */
  async ask(method: string, params: JsonObject, options: CallOptions): Promise<RpcResponse> {
    const counts = method === STREAM ? 0 : 1;
    this.#busy += counts;
    try {
      return await this.#send(method, params, options);
    } finally {
      this.#busy -= counts;
    }
  }

  notify(method: string, params?: unknown): void {
    this.#multiplexer.notify(method, params);
  }

  stop(): Promise<void> {
    return this.#child.stop();
  }

  kill(cause: ExitCause, reason: string): void {
    this.#child.kill(cause, reason);
  }

  #send(method: string, params: JsonObject, options: CallOptions): Promise<RpcResponse> {
    const modern = this.#info?.era === 'modern';
    const sent = modern ? { ...params, _meta: modernMeta(params._meta) } : params;
    return this.#multiplexer.ask(method, sent, options);
  }

  /** Whatever it answers, it lives: the modern revision has no ping, and discovering costs a server no more. */
  #ping(): void {
    const method = this.#info?.era === 'modern' ? 'server/discover' : 'ping';
    this.#pings += 1;
    this.#send(method, {}, { timeoutMs: PING_MAX_MS })
      .catch(() => {})
      .finally(() => {
        this.#pings -= 1;
      });
  }
}

/** The registry's bound for a request, however little time its caller gives it. */
function longestTime({ timeout_ms, tool_timeouts }: Service, { method, params }: RpcRequest): number {
  const name = method === 'tools/call' && isObject(params) ? params.name : undefined;
  if (typeof name !== 'string' || !Object.hasOwn(tool_timeouts, name)) return timeout_ms;
  return tool_timeouts[name] ?? timeout_ms;
}
