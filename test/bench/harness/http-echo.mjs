// The tool without MCP's stdio: the answer comes from the HTTP server itself. Usage: http-echo.mjs node|fastify; prints
// its port.
import { createServer } from 'node:http';

const [kind] = process.argv.slice(2);

function answer({ id, method, params }) {
  const result =
    method === 'initialize'
      ? {
          protocolVersion: params.protocolVersion,
          capabilities: {},
          serverInfo: { name: kind, version: '0' },
        }
      : { content: [{ type: 'text', text: `Echo: ${params.arguments.message}` }] };
  return { jsonrpc: '2.0', id, result };
}

async function serveFastify() {
  const { fastify } = await import('fastify');
  const app = fastify({ bodyLimit: 8 << 20 });
  app.post('/mcp', async ({ body }, reply) => {
    if (body.id === undefined) return reply.code(202).send();
    return answer(body);
  });
  await app.listen({ port: 0, host: '127.0.0.1' });
  return app.server;
}

function serveNode() {
  const server = createServer((request, response) => {
    const chunks = [];
    request.on('data', chunk => chunks.push(chunk));
    request.on('end', () => {
      const message = JSON.parse(Buffer.concat(chunks).toString());
      if (message.id === undefined) return response.writeHead(202, { 'content-length': 0 }).end();
      const body = Buffer.from(JSON.stringify(answer(message)));
      response
        .writeHead(200, { 'content-type': 'application/json', 'content-length': body.length })
        .end(body);
    });
  });
  return new Promise(resolve => server.listen(0, '127.0.0.1', () => resolve(server)));
}

// Whoever started it is gone.
process.stdin.resume().once('close', () => process.exit());
const server = await (kind === 'fastify' ? serveFastify() : serveNode());
console.log(server.address().port);
