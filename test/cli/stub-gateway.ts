import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';

export interface Asked {
  method: string | undefined;
  path: string | undefined;
  headers: IncomingHttpHeaders;
  body: string;
  /** Resolves when the client is gone, or has its answer. */
  closed: Promise<unknown>;
}

export interface StubGateway {
  url: string;
  /** Every request so far, the listing of tools not counted. */
  asked: Asked[];
}

const TOOLS = [
  {
    name: 'add',
    description: 'Adds numbers\nand tells the sum',
    inputSchema: {
      type: 'object',
      properties: {
        a: { type: 'number', description: 'first one' },
        note: { type: 'string' },
        mode: { enum: ['fast', 'slow'] },
      },
      required: ['a'],
    },
    annotations: { readOnlyHint: true },
  },
  { name: 'evil', description: 'x\u001b[2Jy', inputSchema: { type: 'object' } },
];

/** A gateway that lists tools, the first one on a page of its own, and answers each execution as told. */
export async function startStubGateway(
  t: TestContext,
  answer: (response: ServerResponse, asked: Asked) => void,
  all: readonly object[] = TOOLS,
): Promise<StubGateway> {
  const asked: Asked[] = [];
  const server = createServer(async (request, response) => {
    const path = request.url ?? '';
    const tools = /\/tools(\?cursor=2)?$/.exec(path);
    if (tools) {
      const page = tools[1] ? { tools: all.slice(1) } : { tools: all.slice(0, 1), nextCursor: '2' };
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(page));
      return;
    }
    const { method, headers } = request;
    const closed = once(response, 'close');
    let body = '';
    for await (const chunk of request) body += chunk;
    const one = { method, path, headers, body, closed };
    asked.push(one);
    answer(response, one);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

/** Answers with JSON. */
export function json(status: number, value: unknown): (response: ServerResponse) => void {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return response => response.writeHead(status, { 'content-type': 'application/json' }).end(text);
}
