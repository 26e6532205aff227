import { RawConnection } from './raw-http.ts';
import { ToolCall } from './tool-call.ts';

/** Something that answers calls of `echo`, in processes that are watched. */
export interface Target {
  name: string;
  /** Processes by what they are; their processor time is that of the calls. The stdio server's is `server`. */
  pids(): Record<string, number>;
  open(shape: Shape): Promise<Caller[]>;
  stop(): Promise<void>;
}

export interface Shape {
  /** Callers; each has one call under way. */
  callers: number;
  /** MCP sessions that they share; default: one. */
  sessions?: number;
  /** Length of the text that is echoed. */
  bytes: number;
  /** How long the tool takes, in ms. */
  delay?: number;
}

export interface Caller {
  /** One call. @throws Error for any other answer than the right one */
  call(): Promise<void>;
  close(): void;
}

const PROTOCOL = '2025-11-25';
const INITIALIZE = {
  jsonrpc: '2.0',
  id: 1,
  method: 'initialize',
  params: { protocolVersion: PROTOCOL, capabilities: {}, clientInfo: { name: 'bench', version: '0' } },
};
const INITIALIZED = { jsonrpc: '2.0', method: 'notifications/initialized' };

/** A connection for each caller; the sessions are theirs in turn. */
export async function openCallers(
  url: URL,
  { callers, sessions = 1, bytes, delay }: Shape,
): Promise<Caller[]> {
  const heads: string[] = [];
  const first = await RawConnection.open(url);
  for (let i = 0; i < sessions; i += 1) heads.push(await openSession(first, url));
  first.close();
  return Promise.all(
    Array.from({ length: callers }, async (_, i): Promise<Caller> => {
      const connection = await RawConnection.open(url);
      const call = new ToolCall(bytes, delay);
      const head = headOf(url, call.bytes.length, heads[i % sessions]);
      return {
        async call() {
          const { status, body } = await connection.send(head, call.renew());
          if (status !== 200) throw new Error(`${url} answered ${status}: ${body.toString('utf8', 0, 300)}`);
          call.check(body);
        },
        close: () => connection.close(),
      };
    }),
  );
}

/** Opens a session; resolves with the headers of what is sent in it. */
export async function openSession(connection: RawConnection, url: URL): Promise<string> {
  const id = await initialize(connection, url);
  const headers = `mcp-protocol-version: ${PROTOCOL}\r\n${id === undefined ? '' : `mcp-session-id: ${id}\r\n`}`;
  await post(connection, url, INITIALIZED, headers);
  return headers;
}

/** Resolves with the session's id, where there is one. */
export async function initialize(connection: RawConnection, url: URL): Promise<string | undefined> {
  const head = await post(connection, url, INITIALIZE);
  return /^mcp-session-id: (\S+)/im.exec(head)?.[1];
}

/** POSTs JSON; resolves with the answer's head. @throws Error unless it is a success */
export async function post(
  connection: RawConnection,
  url: URL,
  message: object,
  headers = '',
): Promise<string> {
  const body = Buffer.from(JSON.stringify(message));
  const answer = await connection.send(headOf(url, body.length, headers), body);
  if (answer.status < 300) return answer.head;
  throw new Error(`${url} answered ${answer.status}: ${answer.body.toString('utf8', 0, 300)}`);
}

function headOf({ host, pathname }: URL, length: number, headers = ''): Buffer {
  return Buffer.from(
    `POST ${pathname} HTTP/1.1\r\nhost: ${host}\r\ncontent-type: application/json\r\n` +
      `accept: application/json, text/event-stream\r\n${headers}content-length: ${length}\r\n\r\n`,
    'latin1',
  );
}
