import { lookup } from 'node:dns/promises';
import { Agent, type ClientRequest, type IncomingMessage, request } from 'node:http';
import { request as requestSecurely, Agent as SecureAgent } from 'node:https';
import { isIP } from 'node:net';
import type { Exchange, Try } from './exchange.ts';
import { HeaderList } from './headers.ts';
import type { Lua } from './lua.ts';
import type { Log } from './pdk.ts';

export const VIA = '1.1 kong/3.9.3';

/** upstream_keepalive_idle_timeout of kong.conf. */
const UPSTREAM_IDLE_MS = 15_000;

/** Kong's own answer in place of an upstream's; `exit` where Kong makes it by kong.response. */
export class UpstreamError extends Error {
  readonly status: number;
  readonly source: 'error' | 'exit';

  constructor(status: number, message: string, source: 'error' | 'exit' = 'error') {
    super(message);
    this.status = status;
    this.source = source;
  }
}

type Attempt = { response: IncomingMessage } | { connected: boolean; status: number; reason: string };

/** nginx' upstream module with Kong's balancer. */
export class UpstreamProxy {
  readonly #agent: Agent;
  readonly #secureAgent: SecureAgent;
  readonly #lua: Lua<Exchange>;
  readonly #log: Log;
  /** Names that were resolved before: all that a retry can use, since nginx' balancer phase cannot ask DNS. */
  readonly #addresses = new Map([['localhost', '127.0.0.1']]);

  constructor(lua: Lua<Exchange>, log: Log, idleMs = UPSTREAM_IDLE_MS) {
    this.#lua = lua;
    this.#log = log;
    const pool = { keepAlive: true, timeout: idleMs, maxFreeSockets: 512 };
    this.#agent = new Agent(pool);
    // As Kong does without tls_verify: it shows its own certificate, and takes any.
    this.#secureAgent = new SecureAgent({ ...pool, rejectUnauthorized: false });
  }

  /**
   * Sends the request to the balancer's target and, where the connection fails, to those that the retry callback
   * sets. Resolves with the response's head; its body still streams. Rejects with UpstreamError.
   */
  async send(exchange: Exchange): Promise<IncomingMessage> {
    const { balancer } = exchange;
    let host = '';
    for (let retries = 0; ; retries += 1) {
      const ip = await this.#resolve(balancer.host, retries === 0);
      const standard = balancer.port === 80 || balancer.port === 443;
      const authority = standard ? balancer.host : `${balancer.host}:${balancer.port}`;
      // The Host header is made once; only an emptied variable makes it anew for a retry (measured on Kong 3.9.3).
      if (retries === 0 || balancer.upstreamHost === '') host = balancer.upstreamHost || authority;
      balancer.upstreamHost = host;
      const attempt: Try = { ip, port: balancer.port, balancer_start: Date.now(), balancer_latency: 0 };
      balancer.tries.push(attempt);
      const result = await this.#attempt(exchange, attempt, host);
      if ('response' in result) {
        balancer.statuses.push(result.response.statusCode ?? 0);
        return result.response;
      }
      balancer.statuses.push(result.status);
      this.#log('err', `upstream ${ip}:${attempt.port}: ${result.reason}`);
      // What was sent may have been executed: only a connection that never was is tried again.
      if (result.connected || retries >= balancer.retries || exchange.reply.destroyed) {
        throw new UpstreamError(result.status, result.reason);
      }
      Object.assign(attempt, { state: 'failed', code: result.status });
      if (!this.#nextTarget(exchange)) throw new UpstreamError(result.status, result.reason);
    }
  }

  close(): void {
    this.#agent.destroy();
    this.#secureAgent.destroy();
  }

  async #resolve(host: string, first: boolean): Promise<string> {
    if (isIP(host) !== 0) return host;
    try {
      const address = this.#addresses.get(host) ?? (first ? (await lookup(host)).address : undefined);
      if (address === undefined) throw new Error('a retry finds only names that a first try resolved before');
      this.#addresses.set(host, address);
      return address;
    } catch (error) {
      this.#log(
        'err',
        `DNS resolution of ${host} failed: ${error instanceof Error ? error.message : String(error)}`,
      );
      throw first
        ? new UpstreamError(503, 'name resolution failed', 'exit')
        : new UpstreamError(500, 'no address');
    }
  }

  /** Asks the retry callback for the next target. Without one, Kong tries the same target again. */
  #nextTarget(exchange: Exchange): boolean {
    const { retryCallback } = exchange.balancer;
    // Kong asks it only where the service's host is a name (measured on Kong 3.9.3).
    if (retryCallback === undefined || isIP(exchange.service.host) !== 0) return true;
    exchange.phase = 'balancer';
    const outcome = this.#lua.runSync(retryCallback, exchange);
    if (exchange.fault !== undefined) throw new Error(exchange.fault);
    if (!outcome.stopped && outcome.values[0] === true) return true;
    this.#log('warn', `no retry: ${outcome.stopped ? 'stopped' : String(outcome.values[1])}`);
    return false;
  }

  #attempt(exchange: Exchange, { ip, port }: Try, host: string): Promise<Attempt> {
    const [connectMs, , readMs] = exchange.balancer.timeouts;
    return new Promise(resolve => {
      let connected = false;
      let timedOut = false;
      const { protocol, certificate } = exchange.service;
      const isSecure = protocol === 'https';
      const upstream = (isSecure ? requestSecurely : request)({
        ...certificate,
        host: ip,
        port,
        method: exchange.method,
        path: exchange.upstreamUri,
        headers: upstreamHeaders(exchange, host),
        agent: isSecure ? this.#secureAgent : this.#agent,
        setHost: false,
      });
      const expire = (what: string): void => {
        timedOut = true;
        upstream.destroy(new Error(`${what} timed out`));
      };
      const connectTimer = setTimeout(expire, connectMs, 'connecting');
      const onConnect = (): void => {
        connected = true;
        clearTimeout(connectTimer);
        upstream.setTimeout(readMs, () => expire('reading'));
        sendBody(exchange, upstream);
      };
      upstream.once('socket', socket =>
        socket.connecting ? socket.once(isSecure ? 'secureConnect' : 'connect', onConnect) : onConnect(),
      );
      const abort = (): void => {
        if (!exchange.reply.writableFinished) upstream.destroy(new Error('the client went away'));
      };
      exchange.reply.once('close', abort);
      // It may answer before it has the whole body; what is left unread would block the connection's next request.
      exchange.reply.once('finish', () => {
        if (exchange.request.complete) return;
        exchange.request.unpipe(upstream);
        exchange.request.resume();
        upstream.destroy();
      });
      upstream.on('error', error => {
        clearTimeout(connectTimer);
        exchange.reply.off('close', abort);
        exchange.request.unpipe(upstream);
        resolve({ connected, status: timedOut ? 504 : 502, reason: error.message });
      });
      upstream.once('response', response => resolve({ response }));
      if (exchange.reply.destroyed) abort();
    });
  }
}

function sendBody(exchange: Exchange, upstream: ClientRequest): void {
  if (exchange.requestBody !== undefined) upstream.end(exchange.requestBody);
  else {
    exchange.request.on('data', (chunk: Buffer) => {
      exchange.requestBytes += chunk.length;
    });
    exchange.request.pipe(upstream);
  }
}

/** The client's headers as Kong sends them on, hop-by-hop ones replaced. */
function upstreamHeaders(exchange: Exchange, host: string): string[] {
  const { requestHeaders, request: client, requestBody } = exchange;
  const port = String(client.socket.localPort ?? '');
  const headers = new HeaderList(requestHeaders.forwardable());
  headers.clear('expect');
  headers.set('Host', host);
  headers.set('X-Forwarded-For', [...requestHeaders.all('x-forwarded-for'), exchange.clientIp].join(', '));
  headers.set('X-Forwarded-Proto', exchange.scheme);
  headers.set('X-Forwarded-Host', (client.headers.host ?? '').replace(/:\d+$/, ''));
  headers.set('X-Forwarded-Port', port);
  headers.set('X-Forwarded-Path', exchange.rawPath);
  headers.set('X-Real-IP', exchange.clientIp);
  headers.set('X-Kong-Request-Id', exchange.id);
  headers.set('Via', VIA);
  if (requestBody !== undefined) headers.set('Content-Length', String(requestBody.length));
  else if (client.headers['transfer-encoding'] !== undefined) headers.set('Transfer-Encoding', 'chunked');
  return headers.raw();
}
