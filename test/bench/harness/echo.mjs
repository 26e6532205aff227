// A stdio MCP server without an SDK, as cheap as can be: what stands before it is what is measured.
// Tool `echo`: {message, delay?}, delay in ms.
const NEWLINE = 10;
const TOOL = {
  name: 'echo',
  description: 'Says it back',
  inputSchema: {
    type: 'object',
    properties: { message: { type: 'string' }, delay: { type: 'number' } },
    required: ['message'],
  },
};

let output = '';
let parts = [];

function write(text) {
  if (output === '') setImmediate(flush);
  output += text;
}

function flush() {
  process.stdout.write(output);
  output = '';
}

function answer(id, result) {
  write(`{"jsonrpc":"2.0","id":${JSON.stringify(id)},"result":${JSON.stringify(result)}}\n`);
}

function handle({ id, method, params }) {
  if (method === 'tools/call') {
    const { message, delay = 0 } = params.arguments;
    const result = { content: [{ type: 'text', text: `Echo: ${message}` }] };
    if (delay > 0) setTimeout(answer, delay, id, result);
    else answer(id, result);
  } else if (method === 'initialize') {
    const serverInfo = { name: 'bench-echo', version: '1.0.0' };
    answer(id, { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo });
  } else if (method === 'tools/list') answer(id, { tools: [TOOL] });
  else if (method === 'ping') answer(id, {});
  else if (id !== undefined)
    write(
      `{"jsonrpc":"2.0","id":${JSON.stringify(id)},"error":{"code":-32601,"message":"Method not found"}}\n`,
    );
}

process.stdin.on('data', chunk => {
  let from = 0;
  for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, from)) {
    parts.push(chunk.subarray(from, end));
    const line = parts.length === 1 ? parts[0] : Buffer.concat(parts);
    parts = [];
    from = end + 1;
    handle(JSON.parse(line.toString()));
  }
  if (from < chunk.length) parts.push(chunk.subarray(from));
});
process.stdin.on('end', () => process.exit());
