// A stdio MCP server that takes every name for the thing it may have meant, as the most forgiving of servers would:
// what it runs is what a caller can reach. It answers with the name of what it ran. ERA: "legacy" (default) | "modern".
// LINES: file that gets each line it reads, so that a test can say that nothing reached it. DESCRIPTION: of its tools.
import { appendFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

const META = 'io.modelcontextprotocol/';
const modern = process.env.ERA === 'modern';
const TOOLS = ['get_public', 'get_secret', 'delete_all', 'überprüfen', 'a/b', '100%', 'constructor'];
const PROMPTS = ['sum_up', 'sum_up_secret'];
const RESOURCES = ['file:///pub/a.txt', 'file:///secret/key', 'note://one'];
const TEMPLATES = ['file:///pub/{name}', 'file:///secret/{name}'];
const capabilities = {
  tools: { listChanged: true },
  prompts: { listChanged: true },
  resources: { listChanged: true, subscribe: true },
  completions: {},
};
const description = process.env.DESCRIPTION;
const serverInfo = { name: 'lenient', version: '1.0.0' };
const send = message => process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);

const meant = value => {
  if (Array.isArray(value)) return meant(value[0]);
  if (typeof value === 'object' && value !== null) return meant(Object.values(value)[0]);
  return String(value).normalize('NFKC').trim().toLowerCase();
};
// Go's encoding/json: members match in any case, and the last one counts.
const member = (object, name) =>
  Object.entries(object ?? {}).findLast(([key]) => key.normalize('NFKC').toLowerCase() === name)?.[1];
const decoded = text => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};
// As a server on a file system that knows no case would open it.
const resourceMeant = value => {
  let text = meant(value);
  for (let i = 0; i < 5; i += 1) text = meant(decoded(text));
  const [scheme, rest] = [/^[a-z]+:\/\//.exec(text)?.[0] ?? '', text.replace(/^[a-z]+:\/\//, '')];
  const parts = [];
  for (const part of rest.replace(/[?#].*/, '').split(/[/\\]+/)) {
    if (part === '..') parts.pop();
    else if (part !== '.' && part !== '') parts.push(part);
  }
  return scheme === 'file://' ? `file:///${parts.join('/')}` : `${scheme}${parts.join('/')}`;
};
const parsed = line => {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
};
const find = (list, name) => {
  if (list.includes(name)) return name;
  throw new Error(`there is no ${name}`);
};
const ranText = name => ({ content: [{ type: 'text', text: `ran:${name}` }] });

const handlers = {
  initialize: ({ protocolVersion }) => ({ protocolVersion, capabilities, serverInfo }),
  'server/discover': () => ({
    supportedVersions: ['2026-07-28'],
    capabilities,
    ttlMs: 0,
    cacheScope: 'private',
  }),
  'tools/list': () => ({
    tools: TOOLS.map(name => ({ name, description, inputSchema: { type: 'object' } })),
  }),
  'tools/call': params => ranText(find(TOOLS, meant(member(params, 'name')))),
  'prompts/list': () => ({ prompts: PROMPTS.map(name => ({ name })) }),
  'prompts/get': params => ({
    messages: [],
    description: `ran:${find(PROMPTS, meant(member(params, 'name')))}`,
  }),
  'resources/list': () => ({ resources: RESOURCES.map(uri => ({ uri, name: uri })) }),
  'resources/templates/list': () => ({
    resourceTemplates: TEMPLATES.map(uriTemplate => ({ uriTemplate, name: uriTemplate })),
  }),
  'resources/read': params => {
    const uri = resourceMeant(member(params, 'uri'));
    const template = TEMPLATES.find(text => uri.startsWith(text.replace('{name}', '')));
    const known = RESOURCES.includes(uri) ? uri : (template ?? find(RESOURCES, uri));
    return { contents: [{ uri, text: `ran:${known}` }] };
  },
  'resources/subscribe': () => ({}),
  'resources/unsubscribe': () => ({}),
  'completion/complete': params => {
    const ref = member(params, 'ref');
    const isPrompt = member(ref, 'type') === 'ref/prompt';
    const known = isPrompt
      ? find(PROMPTS, meant(member(ref, 'name')))
      : find([...TEMPLATES, ...RESOURCES], meant(member(ref, 'uri')));
    return { completion: { values: [`ran:${known}`] } };
  },
};
const complete = result =>
  modern ? { ...result, resultType: 'complete', _meta: { [`${META}serverInfo`]: serverInfo } } : result;

createInterface({ input: process.stdin })
  .on('line', line => {
    if (process.env.LINES) appendFileSync(process.env.LINES, `${line}\n`);
    const message = parsed(line);
    if (message === undefined) return;
    const { id } = message;
    const method = member(message, 'method');
    if (method === 'subscriptions/listen') return;
    // For tests: the server says that a resource has changed.
    if (method === 'tools/call' && member(message.params, 'name') === 'constructor') {
      const { uri } = message.params.arguments ?? {};
      if (uri !== undefined) send({ method: 'notifications/resources/updated', params: { uri } });
    }
    if (id === undefined) return;
    const ofOtherEra = method === (modern ? 'initialize' : 'server/discover');
    const handler = ofOtherEra ? undefined : handlers[method];
    if (!handler) {
      send({ id, error: { code: -32601, message: `no ${method}` } });
      return;
    }
    try {
      send({ id, result: complete(handler(member(message, 'params') ?? {})) });
    } catch (error) {
      send({ id, error: { code: -32602, message: error.message } });
    }
  })
  .on('close', () => process.exit(0));
