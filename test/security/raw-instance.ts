import type { Socket } from 'node:net';
import { makeProof, PROOF_PATH } from '../../mesh/instance-proof.ts';
import { deriveServiceKey } from '../../mesh/keys.ts';
import { put } from '../kong/consul-helpers.ts';
import { type After, startTcpWorker } from '../kong/gateway-helpers.ts';
import type { MeshKeys } from './keys.ts';

/** Something at an address in Consul that keeps each byte that it is sent, and answers what it is asked. */
export interface RawInstance {
  id: string;
  port: number;
  /** Whole requests, as they came: head and body. */
  requests: string[];
  /** Requests other than those for a proof. */
  calls(): string[];
  /** How many bytes it was sent, whole requests or not. */
  bytes(): number;
}

type Prove = (nonce: string, place: { id: string; port: number }) => unknown;

interface RawInstanceOptions {
  consulUrl: string;
  service: string;
  id: string;
  /** What it answers to a nonce, as JSON; without it, nothing that proves anything. */
  prove?: Prove;
}

/** The proof of who holds the keys of the mesh. */
export function genuine(keys: MeshKeys, service: string): Prove {
  return (nonce, { id, port }) =>
    makeProof([deriveServiceKey(keys.root, service)], nonce, { service, id, address: '127.0.0.1', port });
}

/** Listens, and writes itself into Consul as passing. */
export async function startRawInstance(after: After, options: RawInstanceOptions): Promise<RawInstance> {
  const requests: string[] = [];
  let bytes = 0;
  const port = await startTcpWorker(after, socket => {
    socket.on('data', chunk => {
      bytes += chunk.length;
    });
    serve(socket, { ...options, requests, port: () => port });
  });
  await announce(options, port);
  return {
    id: options.id,
    port,
    requests,
    calls: () => requests.filter(text => !text.startsWith(`GET ${PROOF_PATH}?`)),
    bytes: () => bytes,
  };
}

/** Writes an entry into Consul, as anybody with access to it can. */
export async function announce(
  { consulUrl, service, id }: Pick<RawInstanceOptions, 'consulUrl' | 'service' | 'id'>,
  port: number,
): Promise<void> {
  const written = await put(consulUrl, 'agent/service/register', {
    ID: id,
    Name: `mcp-${service}`,
    Address: '127.0.0.1',
    Port: port,
    Tags: ['mcp'],
    Meta: { mcp_server: service, version: '1.0', era: 'legacy', started_at: '1' },
    Checks: [{ CheckID: `${id}:ttl`, TTL: '600s', Status: 'passing' }],
  });
  if (written.status !== 200) throw new Error(`Consul refuses ${id}: ${written.text}`);
}

interface Serving extends RawInstanceOptions {
  requests: string[];
  port(): number;
}

/** Each request has a length or no body, as Node's and the stand-in's do. */
function serve(socket: Socket, { requests, prove, id, port }: Serving): void {
  let text = '';
  socket.on('data', async chunk => {
    text += chunk.toString('latin1');
    for (;;) {
      const end = wholeRequest(text);
      if (end === undefined) return;
      const request = text.slice(0, end);
      text = text.slice(end);
      requests.push(request);
      const nonce = /^GET \/proof\?nonce=([\w-]+) /.exec(request)?.[1];
      const body = nonce === undefined ? '{"answered":"by raw"}' : await prove?.(nonce, { id, port: port() });
      socket.write(answer(typeof body === 'string' ? body : JSON.stringify(body ?? {})));
    }
  });
}

function wholeRequest(text: string): number | undefined {
  const head = text.indexOf('\r\n\r\n');
  if (head < 0) return undefined;
  if (/^transfer-encoding: chunked/im.test(text.slice(0, head))) {
    const end = text.indexOf('\r\n0\r\n\r\n', head);
    return end < 0 ? undefined : end + 7;
  }
  const length = Number(/^content-length: (\d+)/im.exec(text.slice(0, head))?.[1] ?? 0);
  return text.length < head + 4 + length ? undefined : head + 4 + length;
}

function answer(body: string): string {
  const head = `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n`;
  return head + body;
}
