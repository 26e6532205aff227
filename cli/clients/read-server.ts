import type { Node } from 'jsonc-parser';
import { suggestion } from '../../mesh/yaml-faults.ts';
import type { ClientServer, RemoteSetup, ServerPlace, StdioSetup } from './client-format.ts';
import { EntryReader } from './entry-reader.ts';
import { type JsonFile, kindOf } from './json-file.ts';

/** What tells one client's entries from another's. */
export interface EntryRules {
  /** Milliseconds of one unit of `timeout`; undefined: the client does not document one. */
  timeoutUnitMs?: number;
  /** Whether the client reads `envFile`. */
  envFile?: boolean;
  /** Whether a URL needs a `type`, without which the client takes the entry for stdio and refuses it. */
  urlNeedsType?: boolean;
}

const TRANSPORTS: Readonly<Record<string, 'stdio' | RemoteSetup['transport']>> = {
  stdio: 'stdio',
  local: 'stdio',
  http: 'http',
  'streamable-http': 'http',
  streamablehttp: 'http',
  remote: 'http',
  sse: 'sse',
  ws: 'ws',
  websocket: 'ws',
};
const TYPE_KEYS = ['type', 'transport', 'transportType'];
const URL_KEYS = ['url', 'serverUrl', 'httpUrl'];
const STDIO_KEYS = ['command', 'args', 'env', 'cwd', 'envFile'];
const REMOTE_KEYS = [...URL_KEYS, 'headers'];
const SHARED_KEYS = [...TYPE_KEYS, 'disabled', 'enabled', 'timeout'];
/** The most that a timer takes. */
const LONGEST_MS = 2_147_483_647;

/** Reads one entry; whatever is wrong in it is in `faults`. */
export function readServer(
  file: JsonFile,
  at: ServerPlace & { offset: number },
  node: Node,
  rules: EntryRules,
): ClientServer {
  const server: ClientServer = {
    name: at.name,
    ...(at.within === undefined ? {} : { within: at.within }),
    project: at.within?.[0] === 'projects' ? at.within[1] : undefined,
    place: file.place(at.offset),
    setup: { kind: 'stdio', command: '', args: [], env: new Map(), cwd: undefined, envFile: undefined },
    disabled: false,
    timeoutMs: undefined,
    unknown: [],
    notes: [],
    faults: [],
  };
  const reader = new EntryReader(file, node, server);
  if (node.type !== 'object') {
    reader.fault(node, `is ${kindOf(node)}; it must be an object: { "command": …, "args": […] }`);
    return server;
  }
  reader.duplicates();
  server.setup = readSetup(reader, rules);
  server.disabled = reader.flag('disabled') ?? reader.flag('enabled') === false;
  server.timeoutMs = readTimeout(reader, rules);
  const [own, others] = server.setup.kind === 'stdio' ? [STDIO_KEYS, REMOTE_KEYS] : [REMOTE_KEYS, STDIO_KEYS];
  reader.rest([...own, ...SHARED_KEYS], others);
  return server;
}

function readSetup(
  reader: EntryReader,
  { urlNeedsType = false, envFile = false }: EntryRules,
): StdioSetup | RemoteSetup {
  const url = URL_KEYS.map(key => reader.member(key)).find(member => member !== undefined);
  const command = reader.member('command');
  const typed = readTransport(reader);
  const transport = typed ?? (command || !url ? 'stdio' : 'http');
  if (transport !== 'stdio') {
    if (!url) reader.missing('url', command ? '; with a "command" the type is "stdio"' : '');
    if (urlNeedsType && !TYPE_KEYS.some(key => reader.member(key)))
      reader.note('has a "url" and no "type", which the client refuses; taken as "type": "http"');
    return { kind: 'remote', transport, url: reader.text(url) ?? '', headers: reader.texts('headers') };
  }
  if (!command && url && typed) reader.missing('command', '; with a "url" the type is "http"');
  else if (!command) reader.missing('command', nearestKey(reader.keys(), [...STDIO_KEYS, ...URL_KEYS]));
  const program = reader.text(command);
  if (command && program?.trim() === '') reader.fault(command.value, 'is empty; name the program', 'command');
  const file = reader.member('envFile');
  if (file && !envFile) reader.unknown(file, 'this client does not read it, so the server never saw it');
  return {
    kind: 'stdio',
    command: program ?? '',
    args: reader.list('args'),
    env: reader.texts('env'),
    cwd: reader.text(reader.member('cwd')),
    envFile: envFile ? reader.text(file) : undefined,
  };
}

function readTransport(reader: EntryReader): 'stdio' | RemoteSetup['transport'] | undefined {
  const member = TYPE_KEYS.map(key => reader.member(key)).find(found => found !== undefined);
  // `transport: {…}` was read by no client that is known.
  if (!member) return undefined;
  const text = reader.text(member);
  if (text === undefined) return undefined;
  const transport = Object.hasOwn(TRANSPORTS, text.toLowerCase())
    ? TRANSPORTS[text.toLowerCase()]
    : undefined;
  if (transport === undefined) {
    const hint = suggestion(text.toLowerCase(), ['stdio', 'http', 'sse']);
    reader.fault(member.value, `is no transport${hint || '; stdio, http and sse are'}`, member.key);
  }
  return transport;
}

function readTimeout(reader: EntryReader, { timeoutUnitMs }: EntryRules): number | undefined {
  const member = reader.member('timeout');
  if (!member) return undefined;
  const { value } = member.value;
  if (timeoutUnitMs === undefined || typeof value !== 'number' || !(value > 0)) {
    reader.unknown(
      member,
      'its unit differs from client to client; `timeout_ms` in the registry says it in ms',
    );
    return undefined;
  }
  return Math.min(LONGEST_MS, Math.max(1, Math.round(value * timeoutUnitMs)));
}

function nearestKey(keys: readonly string[], wanted: readonly string[]): string {
  for (const key of keys) {
    const hint = wanted.includes(key) ? '' : suggestion(key, wanted);
    if (hint !== '') return `; for "${key}" ${hint.slice(2)}`;
  }
  return '';
}
