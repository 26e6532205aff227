// The least that a bridge in Node costs: node:http before one stdio server, ids replaced; no SDK, no checks, no
// sessions, no recovery. Usage: bare-bridge.mjs parse|splice <command> [argument …]; prints its port.
// parse: messages are parsed and written again. splice: their ids are replaced among the bytes, which shows what
// parsing costs with long messages.
import { spawn } from 'node:child_process';
import { createServer } from 'node:http';

const NEWLINE = 10;
const HEAD = /^\{"jsonrpc":"2\.0","id":(\d+)/;
const HEAD_BYTES = 40;
const INITIALIZE = {
  method: 'initialize',
  params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'bare', version: '0' } },
};

const [mode, command, ...args] = process.argv.slice(2);
const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
/** By our id: what takes the server's line. */
const waiting = new Map();
let ids = 0;
let queue = [];
let parts = [];

function send(...buffers) {
  if (queue.length === 0) setImmediate(flush);
  queue.push(...buffers);
}

function flush() {
  child.stdin.cork();
  for (const buffer of queue) child.stdin.write(buffer);
  child.stdin.uncork();
  queue = [];
}

function ask(message, onLine) {
  ids += 1;
  waiting.set(ids, onLine);
  send(Buffer.from(`${JSON.stringify({ jsonrpc: '2.0', ...message, id: ids })}\n`));
}

child.stdout.on('data', chunk => {
  let from = 0;
  for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, from)) {
    parts.push(chunk.subarray(from, end));
    const line = parts.length === 1 ? parts[0] : Buffer.concat(parts);
    parts = [];
    from = end + 1;
    onLine(line);
  }
  if (from < chunk.length) parts.push(chunk.subarray(from));
});

function onLine(line) {
  const id = mode === 'splice' ? headOf(line)?.[1] : undefined;
  const message = id === undefined ? JSON.parse(line.toString()) : undefined;
  const key = Number(id ?? message.id);
  const take = waiting.get(key);
  waiting.delete(key);
  take?.(line, message);
}

function headOf(bytes) {
  return HEAD.exec(bytes.toString('latin1', 0, HEAD_BYTES));
}

function reply(response, ...buffers) {
  const length = buffers.reduce((sum, { byteLength }) => sum + byteLength, 0);
  response.writeHead(200, { 'content-type': 'application/json', 'content-length': length });
  response.cork();
  for (const buffer of buffers) response.write(buffer);
  response.end();
  response.uncork();
}

/** The answer with the client's id, as the bytes that the server wrote. */
function splice(body, response) {
  const head = headOf(body);
  ids += 1;
  waiting.set(ids, line => {
    const own = headOf(line)[0].length;
    reply(response, Buffer.from(head[0], 'latin1'), line.subarray(own));
  });
  send(
    Buffer.from(`{"jsonrpc":"2.0","id":${ids}`, 'latin1'),
    body.subarray(head[0].length),
    Buffer.from('\n'),
  );
}

function parse(message, response) {
  ask(message, (line, parsed) => {
    const answer = parsed ?? JSON.parse(line.toString());
    reply(response, Buffer.from(JSON.stringify({ ...answer, id: message.id })));
  });
}

function serve(request, response) {
  const chunks = [];
  request.on('data', chunk => chunks.push(chunk));
  request.on('end', () => {
    const body = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
    if (mode === 'splice' && headOf(body) && !body.includes('"initialize"')) return splice(body, response);
    const message = JSON.parse(body.toString());
    if (message.id === undefined) response.writeHead(202, { 'content-length': 0 }).end();
    else parse(message, response);
  });
}

// Whoever started it is gone.
process.stdin.resume().once('close', () => process.exit());
ask(INITIALIZE, () => {
  send(Buffer.from('{"jsonrpc":"2.0","method":"notifications/initialized"}\n'));
  const server = createServer(serve).listen(0, '127.0.0.1', () => console.log(server.address().port));
});
