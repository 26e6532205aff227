import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { loadDeclarative, matchRoute, type Service } from './declarative.ts';
import { Exchange, splitTarget } from './exchange.ts';
import { Lua } from './lua.ts';
import { createPdk, type Log } from './pdk.ts';
import { PluginPdk } from './plugin-pdk.ts';
import { PluginRpc } from './plugin-rpc.ts';
import {
  joinPluginServer,
  type PluginInfo,
  PluginServer,
  type PluginServerOptions,
  queryPlugin,
  type SharedPluginServer,
} from './plugin-server.ts';
import { createFunctionPlugin, ExternalPlugin, type Plugin } from './plugins.ts';
import { UpstreamError, UpstreamProxy } from './proxy.ts';
import { kongError, sendExit, sendOwn, sendUpstream } from './reply.ts';
import { normalizePath } from './uri.ts';

const PLUGIN_TIMEOUT_MS = 60_000;
const LOG_GRACE_MS = 1000;
/** nginx: large_client_header_buffers 4 8k, keepalive_timeout 75s, no limit to the length of an upload. */
const SERVER_OPTIONS = { maxHeaderSize: 32_768, keepAliveTimeout: 75_000, requestTimeout: 0 };
const COUNTED_PHASES = 10_000;

export interface GatewayOptions {
  /** kong.yml. */
  configPath: string;
  /** Values of `{vault://env/<name>}` in it, by name. */
  vault?: Readonly<Record<string, string>>;
  port?: number;
  host?: string;
  /** A command, to which --kong-prefix, --sock-name and --exit-with-parent are appended, or one that runs already. */
  pluginServer: PluginServerOptions | SharedPluginServer;
  /** Kong's lua_socket_read_timeout: how long a phase waits for the plugin server. */
  pluginTimeoutMs?: number;
  /** Kong's upstream_keepalive_idle_timeout; default: that of kong.conf. */
  upstreamIdleMs?: number;
  /** Default: stderr, from `notice` up. */
  log?: Log;
}

export interface Gateway {
  url: string;
  port: number;
  pluginServerPid(): number | undefined;
  /** PDK round trips of each of the last 10,000 phases that the plugin server finished. */
  pdkCalls(): { access: number[]; log: number[] };
  close(): Promise<void>;
}

/**
 * A stand-in for Kong 3.9 on one kong.yml: the real plugin server over its socket, the real Lua of the file, Kong's
 * order of phases, retries and failures. Rejects when the file has something that it does not do, or when the plugin
 * server cannot be started.
 */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const log = options.log ?? logToStderr;
  const onIgnored = (plugins: string[]): void =>
    log('notice', `the stand-in does without these plugins of Kong's own: ${plugins.join(', ')}`);
  const services = loadDeclarative(options.configPath, onIgnored, options.vault);
  const info = await queryPlugin(options.pluginServer);
  const pluginServer =
    'folder' in options.pluginServer
      ? joinPluginServer(options.pluginServer)
      : new PluginServer(options.pluginServer, log);
  const rpc = new PluginRpc(pluginServer.socket, options.pluginTimeoutMs ?? PLUGIN_TIMEOUT_MS);
  try {
    const gateway = new Runtime(services, info, rpc, log, options.upstreamIdleMs);
    await pluginServer.ready();
    await gateway.startInstances();
    let closing: Promise<void> | undefined;
    const close = async (): Promise<void> => {
      await gateway.close();
      rpc.close();
      await pluginServer.close();
    };
    const port = await gateway.listen(options.port ?? 0, options.host ?? '127.0.0.1');
    return {
      url: `http://${options.host ?? '127.0.0.1'}:${port}`,
      port,
      pluginServerPid: () => pluginServer.pid,
      pdkCalls: () => ({ access: [...gateway.pdkCalls.access], log: [...gateway.pdkCalls.log] }),
      close() {
        closing ??= close();
        return closing;
      },
    };
  } catch (error) {
    rpc.close();
    await pluginServer.close();
    throw error;
  }
}

class Runtime {
  readonly pdkCalls: { access: number[]; log: number[] } = { access: [], log: [] };
  readonly #services: Service[];
  readonly #plugins = new Map<Service, Plugin[]>();
  readonly #external: ExternalPlugin[] = [];
  readonly #lua: Lua<Exchange>;
  readonly #proxy: UpstreamProxy;
  readonly #log: Log;
  readonly #logging = new Set<Promise<void>>();
  readonly #server: Server;

  constructor(services: Service[], info: PluginInfo, rpc: PluginRpc, log: Log, upstreamIdleMs?: number) {
    this.#services = services;
    this.#log = log;
    this.#lua = new Lua<Exchange>({
      library: createPdk(() => this.#lua, log),
      onUnknown: (exchange, name) => {
        exchange.fault = `[${exchange.plugin}] ${exchange.phase}: ${name} is unknown to the gateway stand-in`;
      },
    });
    this.#proxy = new UpstreamProxy(this.#lua, log, upstreamIdleMs);
    const pdk = new PluginPdk(this.#lua, log);
    const onPhase = (phase: 'access' | 'log', calls: number): void => {
      if (this.pdkCalls[phase].push(calls) > COUNTED_PHASES) this.pdkCalls[phase].shift();
    };
    for (const service of services) {
      const plugins = service.plugins.map(config => {
        if (config.name !== info.name) return createFunctionPlugin(config, this.#lua);
        const external = new ExternalPlugin({ info, config, rpc, pdk, log, onPhase });
        this.#external.push(external);
        return external;
      });
      this.#plugins.set(
        service,
        plugins.toSorted((a, b) => b.priority - a.priority),
      );
    }
    this.#server = createServer(SERVER_OPTIONS, (request, reply) => {
      void this.#handle(request, reply);
    });
  }

  /** An instance that cannot be started is logged: Kong answers 500 until it can. */
  async startInstances(): Promise<void> {
    for (const plugin of this.#external) await plugin.instance().catch(error => this.#fail(error));
  }

  async listen(port: number, host: string): Promise<number> {
    this.#server.listen(port, host);
    await once(this.#server, 'listening');
    return (this.#server.address() as AddressInfo).port;
  }

  /** Ends all connections; log phases under way get a second. */
  async close(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
    this.#proxy.close();
    const grace = new AbortController();
    await Promise.race([
      Promise.allSettled(this.#logging),
      sleep(LOG_GRACE_MS, undefined, { signal: grace.signal }).catch(() => {}),
    ]);
    grace.abort();
  }

  async #handle(request: IncomingMessage, reply: ServerResponse): Promise<void> {
    const { path } = splitTarget(request);
    const match = matchRoute(this.#services, request.method ?? 'GET', normalizePath(path));
    const shared = this.#lua.createTable();
    if (match === undefined) {
      sendUnrouted(reply);
      return;
    }
    const exchange = new Exchange(request, reply, match.service, match.route, shared);
    const plugins = this.#plugins.get(match.service) ?? [];
    const { socket } = request;
    const writtenBefore = socket.bytesWritten;
    exchange.requestBytes =
      exchange.requestHeaders.byteLength + (request.url?.length ?? 0) + request.rawHeaders.length;
    const closed = once(reply, 'close');
    try {
      await this.#answer(exchange, plugins);
    } catch (error) {
      if (!(error instanceof UpstreamError)) this.#fail(error);
      this.#sendError(exchange, plugins, error);
    }
    await closed;
    exchange.responseBytes = socket.bytesWritten - writtenBefore;
    this.#runLog(exchange, plugins);
  }

  async #answer(exchange: Exchange, plugins: Plugin[]): Promise<void> {
    for (const plugin of plugins) {
      exchange.plugin = plugin.name;
      await plugin.access?.(exchange);
      if (exchange.exit !== undefined) break;
    }
    if (exchange.reply.destroyed) return;
    if (exchange.exit !== undefined) return sendExit(exchange, plugins);
    exchange.marks.proxied = exchange.age;
    const upstream = await this.#proxy.send(exchange);
    exchange.marks.answered = exchange.age;
    await sendUpstream(exchange, plugins, upstream);
  }

  /** Kong's own error body, through the filters; when a filter is at fault, without them. */
  #sendError(exchange: Exchange, plugins: Plugin[], error: unknown): void {
    const { reply } = exchange;
    if (reply.destroyed) return;
    if (reply.headersSent) {
      reply.destroy();
      return;
    }
    const filterFailed = exchange.phase === 'header_filter' || exchange.phase === 'body_filter';
    const upstream = error instanceof UpstreamError ? error : undefined;
    const status = upstream?.status ?? 500;
    const text = upstream?.source === 'exit' ? upstream.message : undefined;
    try {
      sendOwn(exchange, filterFailed ? [] : plugins, {
        status,
        body: Buffer.from(kongError(status, exchange.id, text)),
        headers: { 'Content-Type': 'application/json; charset=utf-8' },
        source: upstream?.source ?? 'error',
      });
    } catch (cause) {
      this.#fail(cause);
      if (filterFailed || reply.headersSent) reply.destroy();
      else this.#sendError(exchange, [], cause);
    }
  }

  /** After the answer, also after one that Kong made and after an abort, as Kong's log timer does. */
  #runLog(exchange: Exchange, plugins: Plugin[]): void {
    exchange.phase = 'log';
    for (const plugin of plugins) {
      const run = plugin.log?.(exchange).catch(error => this.#fail(error));
      if (run === undefined) continue;
      this.#logging.add(run);
      void run.finally(() => this.#logging.delete(run));
    }
  }

  #fail(error: unknown): void {
    this.#log('err', error instanceof Error ? error.message : String(error));
  }
}

function sendUnrouted(reply: ServerResponse): void {
  const id = crypto.randomUUID().replaceAll('-', '');
  const body = kongError(404, id);
  reply.writeHead(404, {
    'Content-Type': 'application/json; charset=utf-8',
    'Content-Length': Buffer.byteLength(body),
    'X-Kong-Request-Id': id,
  });
  reply.end(body);
}

function logToStderr(level: string, message: string): void {
  if (level !== 'info' && level !== 'debug') process.stderr.write(`[kong] [${level}] ${message}\n`);
}
