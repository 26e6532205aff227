import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, type TestContext, test } from 'node:test';
import { Bridge } from '../../../cli/connect/bridge.ts';
import { until } from '../../until.ts';

interface Asked {
  method: string | undefined;
  headers: IncomingMessage['headers'];
  body: string;
}

/** A bridge to a server that answers as told; `lines` is what its client gets. */
async function startBridge(
  t: TestContext,
  answer: (response: ServerResponse, asked: Asked, number: number) => void,
  waitMs = 1000,
) {
  const asked: Asked[] = [];
  const server = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    const one = { method: request.method, headers: request.headers, body };
    asked.push(one);
    answer(response, one, asked.filter(({ method }) => method === 'POST').length);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const lines: string[] = [];
  const told: string[] = [];
  const bridge = new Bridge({
    endpoint: { url: `http://127.0.0.1:${port}/mcp`, headers: { authorization: 'Bearer k' } },
    write: line => void lines.push(line),
    tell: text => told.push(text),
    waitMs,
  });
  t.after(async () => {
    await bridge.close(0);
    server.close();
    server.closeAllConnections();
  });
  return {
    bridge,
    asked,
    lines,
    told,
    line: (n: number) =>
      until(
        `line ${n}`,
        () => lines[n],
        () => told.join(),
      ),
  };
}

const json = (response: ServerResponse, text: string, status = 200) =>
  response.writeHead(status, { 'content-type': 'application/json' }).end(text);
const events = (response: ServerResponse) => response.writeHead(200, { 'content-type': 'text/event-stream' });

describe('a bridge', () => {
  test('passes messages on as they were written: ids, digits, members that nobody knows', async t => {
    const request =
      '{ "id":"a\\u0062", "x-new":{"b":1.0}, "jsonrpc":"2.0","method":"x/y","params":{"n":12345678901234567890} }';
    const response = '{"x":[1.00], "jsonrpc":"2.0", "result":{"n":9007199254740993}, "id":"ab"}';
    const { bridge, asked, line } = await startBridge(t, out => json(out, response));
    bridge.receive(request);
    assert.equal(await line(0), response);
    assert.equal(asked[0]?.body, request);
    assert.equal(asked[0]?.headers.authorization, 'Bearer k');
  });

  test("refusals come under the request's own id, whatever their form", async t => {
    const refusals: [number, string, string, RegExp][] = [
      [
        401,
        'application/json',
        '{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"No","data":{"code":"unauthenticated"}}}',
        /"message":"No"/,
      ],
      [502, 'text/html', '<html>bad gateway</html>', /"code":"worker_lost".*"delivered"/],
      [404, 'text/plain', 'nope', /it answers 404: nope/],
      [307, 'text/plain', '', /it answers 307/],
    ];
    for (const [status, type, body, expected] of refusals) {
      const { bridge, line } = await startBridge(t, out =>
        out.writeHead(status, { 'content-type': type }).end(body),
      );
      bridge.receive('{"jsonrpc":"2.0","id":1.50,"method":"tools/call","params":{"name":"x"}}');
      const said = await line(0);
      assert.match(said, expected);
      assert.match(said, /"id":1\.50[,}]/);
    }
  });

  test('what is no message is answered, and a batch is taken apart', async t => {
    const { bridge, lines, line } = await startBridge(t, (out, { body }) =>
      json(out, `{"jsonrpc":"2.0","id":${JSON.parse(body).id},"result":{}}`),
    );
    bridge.receive('{"jsonrpc":');
    assert.match(await line(0), /"id":null,"error":\{"code":-32700/);
    bridge.receive('[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"ping"}]');
    await line(2);
    assert.deepEqual(
      lines
        .slice(1)
        .map(text => JSON.parse(text).id)
        .sort(),
      [1, 2],
    );
  });

  test('a stream that breaks is taken up behind its last event, and nothing comes twice', async t => {
    const { bridge, asked, lines, line } = await startBridge(t, (out, { method }) => {
      events(out);
      if (method === 'POST') {
        out.write('id: e1\ndata:\n\nid: e2\ndata: {"jsonrpc":"2.0","method":"notifications/x"}\n\n');
        setImmediate(() => out.destroy());
      } else out.end('data: {"jsonrpc":"2.0","id":1,"result":{}}\n\n');
    });
    bridge.receive('{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}');
    await line(1);
    assert.equal(asked[1]?.headers['last-event-id'], 'e2');
    assert.deepEqual(
      lines.map(text => JSON.parse(text).method ?? 'answer'),
      ['notifications/x', 'answer'],
    );
  });

  test('a stream that breaks without event ids fails its call as perhaps delivered', async t => {
    const { bridge, asked, line } = await startBridge(t, out => {
      events(out).write('data: {"jsonrpc":"2.0","method":"notifications/x"}\n\n');
      setImmediate(() => out.destroy());
    });
    bridge.receive('{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}');
    assert.match(await line(1), /"id":1,"error":.*"delivered":"unknown"/);
    assert.equal(asked.length, 1);
  });

  test('503 that was not delivered is tried again as long as there is time; calls by their hints', async t => {
    const listed =
      '{"jsonrpc":"2.0","id":0,"result":{"tools":[{"name":"read","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true}}]}}';
    const { bridge, asked, line } = await startBridge(t, (out, _asked, number) => {
      if (number === 1) json(out, listed);
      else if (number === 2) out.destroy();
      else if (number === 3)
        json(
          out,
          '{"jsonrpc":"2.0","id":null,"error":{"code":-32603,"message":"m","data":{"delivered":"no"}}}',
          503,
        );
      else json(out, '{"jsonrpc":"2.0","id":1,"result":{}}');
    });
    bridge.receive('{"jsonrpc":"2.0","id":0,"method":"tools/list"}');
    await line(0);
    bridge.receive('{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read"}}');
    assert.equal(await line(1), '{"jsonrpc":"2.0","id":1,"result":{}}');
    assert.equal(asked.length, 4);
  });

  test('the headers of the new era mirror the message, in Base64 where they must', async t => {
    const tool = {
      name: 'größe',
      inputSchema: {
        properties: {
          region: { type: 'string', 'x-mcp-header': 'Region' },
          n: { type: 'integer', 'x-mcp-header': 'N' },
        },
      },
    };
    const { bridge, asked, line } = await startBridge(t, (out, _asked, number) =>
      json(out, JSON.stringify({ jsonrpc: '2.0', id: number, result: { tools: [tool] } })),
    );
    const meta = '"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}';
    bridge.receive(`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{${meta}}}`);
    await line(0);
    bridge.receive(
      `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"größe","arguments":{"region":" eu","n":12345678901234567890},${meta}}}`,
    );
    await line(1);
    const headers = asked[1]?.headers ?? {};
    const base64 = (text: string) => `=?base64?${Buffer.from(text).toString('base64')}?=`;
    assert.deepEqual(
      ['mcp-protocol-version', 'mcp-method', 'mcp-name', 'mcp-param-region', 'mcp-param-n'].map(
        name => headers[name],
      ),
      ['2026-07-28', 'tools/call', base64('größe'), base64(' eu'), '12345678901234567890'],
    );
  });

  test('a subscription that breaks is asked for again, acknowledged to the client once', async t => {
    const { bridge, asked, lines } = await startBridge(t, (out, _asked, number) => {
      events(out);
      out.write(
        'data: {"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{}}\n\n',
      );
      if (number === 1) setImmediate(() => out.destroy());
      else out.write('data: {"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n\n');
    });
    const meta = '"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}';
    bridge.receive(`{"jsonrpc":"2.0","id":"s","method":"subscriptions/listen","params":{${meta}}}`);
    await until('the change', () => lines.length === 2);
    assert.deepEqual(
      lines.map(text => JSON.parse(text).method.split('/').at(-1)),
      ['acknowledged', 'list_changed'],
    );
    bridge.receive('{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"s"}}');
    assert.equal(asked.length, 2);
  });

  test('more requests than it holds are refused, not kept', async t => {
    const { bridge, lines } = await startBridge(t, () => {});
    for (let id = 0; id < 1005; id += 1) bridge.receive(`{"jsonrpc":"2.0","id":${id},"method":"tools/call"}`);
    await until('refusals', () => lines.length === 5);
    assert.ok(lines.every(line => line.includes('"code":"too_many_in_flight"')));
  });
});
