import { Agent as HttpAgent, type IncomingMessage, request as requestHttp } from 'node:http';
import { Agent as HttpsAgent, request as requestHttps } from 'node:https';
import type { Delivered } from '../../mesh/errors.ts';

/** An MCP endpoint (Streamable HTTP) and what every request to it carries. */
export interface Endpoint {
  url: string;
  /** Lower-case names; credentials among them. */
  headers: Readonly<Record<string, string>>;
}

export interface Sending {
  method?: 'POST' | 'GET' | 'DELETE';
  headers?: Readonly<Record<string, string>>;
  body?: string;
  signal?: AbortSignal | undefined;
}

export interface Link {
  /** Resolves when the answer begins, whatever its status. @throws Unreachable; AbortError when the signal says so */
  send(sending: Sending): Promise<IncomingMessage>;
  close(): void;
}

/** No answer came. */
export class Unreachable extends Error {
  override name = 'Unreachable';
  /** `no`: there was never a connection. */
  readonly delivered: Delivered;
  /** Trying again will not help. */
  readonly isFinal: boolean;

  constructor(message: string, options: { delivered: Delivered; isFinal: boolean; cause?: unknown }) {
    super(message, { cause: options.cause });
    this.delivered = options.delivered;
    this.isFinal = options.isFinal;
  }
}

/** Shorter than servers keep idle connections (Node: 5 s): a call must not go into one that is just being closed. */
const IDLE_MS = 3000;
const CERTIFICATE = /CERT|SIGNED|SIGNATURE|ALTNAME|ERR_TLS|ERR_SSL/;

/** Requests to one endpoint, on connections that are kept. Redirects are not followed: the key stays here. */
export function createLink({ url, headers: common }: Endpoint): Link {
  const target = new URL(url);
  const isSecure = target.protocol === 'https:';
  const agent = new (isSecure ? HttpsAgent : HttpAgent)({ keepAlive: true, timeout: IDLE_MS });
  const request = isSecure ? requestHttps : requestHttp;
  return {
    send({ method = 'POST', headers = {}, body, signal }) {
      const length = body === undefined ? {} : { 'content-length': String(Buffer.byteLength(body)) };
      const type = body === undefined ? {} : { 'content-type': 'application/json' };
      return new Promise((resolve, reject) => {
        let delivered: Delivered = 'no';
        const call = request(
          target,
          {
            method,
            agent,
            headers: { ...common, ...type, ...length, ...headers },
            ...(signal ? { signal } : {}),
          },
          resolve,
        );
        call.on('socket', socket => {
          const connected = () => (delivered = 'unknown');
          if (socket.connecting) socket.once(isSecure ? 'secureConnect' : 'connect', connected);
          else connected();
        });
        call.on('error', (cause: NodeJS.ErrnoException) => {
          if (cause.name === 'AbortError') reject(cause);
          else reject(unreachable(target, delivered, cause));
        });
        call.end(body);
      });
    },
    close: () => agent.destroy(),
  };
}

function unreachable({ origin }: URL, delivered: Delivered, cause: NodeJS.ErrnoException): Unreachable {
  const { code = '', message } = cause;
  const isFinal = CERTIFICATE.test(code);
  const text =
    code === 'ECONNREFUSED'
      ? `nothing listens at ${origin}`
      : `${origin} cannot be asked: ${message || code}`;
  return new Unreachable(text, { delivered, isFinal, cause });
}
