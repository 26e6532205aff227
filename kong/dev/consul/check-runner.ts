import http, { type IncomingMessage } from 'node:http';
import https from 'node:https';
import { connect } from 'node:net';
import type { CheckDefinition } from './definition.ts';
import { toMs } from './duration.ts';

/** Consul keeps this much of a check's output (BufSize). */
const OUTPUT_BYTES = 4096;
/** Consul runs no check more often (checks.MinInterval). */
const MIN_INTERVAL_MS = 1000;
const DEFAULT_TIMEOUT_MS = 10_000;
/** Go's http.Client. */
const REDIRECTS_MAX = 10;
const REDIRECTS = [301, 302, 303, 307, 308];
const FORWARDED_HEADERS = { 'user-agent': 'Consul Health Check', accept: 'text/plain, text/*, */*' };

type Status = 'passing' | 'warning' | 'critical';
type Report = (status: Status, output: string) => void;

export interface Runner {
  /** A TTL check's heartbeat; undefined for checks that the agent runs itself. */
  beat?(status: Status, output: string): void;
  stop(): void;
}

/** Runs a check as the agent does: a TTL that expires, or HTTP requests or connections at an interval. */
export function startCheck(definition: CheckDefinition, report: Report): Runner {
  if (definition.HTTP !== '') return startProbes(definition, probe, report);
  if (definition.TCP !== '') return startProbes(definition, dial, report);
  return startTtl(toMs(definition.TTL), report);
}

function startTtl(ttlMs: number, report: Report): Runner {
  let last = '';
  const expire = () => {
    report(
      'critical',
      last === '' ? 'TTL expired' : `TTL expired (last output before timeout follows): ${last}`,
    );
  };
  let timer = setTimeout(expire, ttlMs);
  return {
    beat(status, output) {
      clearTimeout(timer);
      timer = setTimeout(expire, ttlMs);
      last = cut(Buffer.from(output));
      report(status, last);
    },
    stop: () => clearTimeout(timer),
  };
}

function startProbes(definition: CheckDefinition, ask: typeof probe, report: Report): Runner {
  const intervalMs = Math.max(MIN_INTERVAL_MS, toMs(definition.Interval));
  const stopping = new AbortController();
  const run = async () => {
    const [status, output] = await ask(definition, stopping.signal);
    if (stopping.signal.aborted) return;
    report(status, output);
    timer = setTimeout(run, intervalMs);
  };
  // Spread as in Consul, so that checks registered together do not run together.
  let timer = setTimeout(run, Math.random() * intervalMs);
  return {
    stop() {
      stopping.abort();
      clearTimeout(timer);
    },
  };
}

async function probe(definition: CheckDefinition, stop: AbortSignal): Promise<[Status, string]> {
  const { HTTP: url, Method: method, Header: headers } = definition;
  const timeoutMs = toMs(definition.Timeout) || DEFAULT_TIMEOUT_MS;
  const timeout = AbortSignal.timeout(timeoutMs);
  try {
    const options = { method, agent: false, signal: AbortSignal.any([stop, timeout]) };
    const send = (to: string) => request(to, { ...options, headers: { ...FORWARDED_HEADERS, ...headers } });
    let response = await send(url);
    for (let i = 0; i < REDIRECTS_MAX && !definition.DisableRedirects; i++) {
      const { statusCode = 0, headers: answered } = response;
      if (!REDIRECTS.includes(statusCode) || answered.location === undefined) break;
      response.resume();
      response = await send(new URL(answered.location, url).href);
    }
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk);
    const code = response.statusCode ?? 0;
    const text = `HTTP ${method} ${url}: ${code} ${response.statusMessage} Output: ${cut(Buffer.concat(chunks))}`;
    return [code >= 200 && code < 300 ? 'passing' : code === 429 ? 'warning' : 'critical', text];
  } catch (error) {
    return [
      'critical',
      `${method[0]}${method.slice(1).toLowerCase()} "${url}": ${describe(error as Error, timeout)}`,
    ];
  }
}

function request(url: string, options: http.RequestOptions): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const send = url.startsWith('https:') ? https.request : http.request;
  send(url, options, resolve).on('error', reject).end();
  return promise;
}

async function dial(definition: CheckDefinition, stop: AbortSignal): Promise<[Status, string]> {
  const { TCP: place } = definition;
  const timeout = AbortSignal.timeout(toMs(definition.Timeout) || DEFAULT_TIMEOUT_MS);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const { hostname, port } = new URL(`tcp://${place}`);
  const signal = AbortSignal.any([stop, timeout]);
  const socket = connect({ host: hostname.replace(/^\[|\]$/g, ''), port: Number(port), signal }, resolve);
  socket.on('error', reject);
  try {
    await promise;
    return ['passing', `TCP connect ${place}: Success`];
  } catch (error) {
    return ['critical', describe(error as Error, timeout)];
  } finally {
    socket.destroy();
  }
}

/** In Go's words, as far as they are worth it: people search for them. */
function describe(
  error: Error & { code?: string; address?: string; port?: number },
  timeout: AbortSignal,
): string {
  if (timeout.aborted) return 'context deadline exceeded (Client.Timeout exceeded while awaiting headers)';
  const place = `dial tcp ${error.address}:${error.port}: connect`;
  if (error.code === 'ECONNREFUSED') return `${place}: connection refused`;
  if (error.code === 'EHOSTUNREACH') return `${place}: no route to host`;
  return error.code === 'ECONNRESET' ? 'EOF' : error.message;
}

function cut(output: Buffer): string {
  if (output.length <= OUTPUT_BYTES) return output.toString();
  return `${output.subarray(0, OUTPUT_BYTES)} ... (captured ${OUTPUT_BYTES} of ${output.length} bytes)`;
}
