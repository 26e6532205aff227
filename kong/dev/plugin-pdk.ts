import type { Exchange } from './exchange.ts';
import type { Lua } from './lua.ts';
import { LuaRef, type LuaValue } from './lua-value.ts';
import { createExit, type Log } from './pdk.ts';

/** Answered with `step` and the value; `end`: Kong sends no step any more; `hang`: Kong never gets that far. */
export type PdkAnswer = { step: string; value: unknown } | 'end' | 'hang';

type PdkCall = (exchange: Exchange, ...args: unknown[]) => PdkAnswer;

/** In Kong's log timer these wait for ever (measured on Kong 3.9.3). */
const HANGS_IN_LOG = [
  'kong.request.get_path',
  'kong.request.get_method',
  'kong.request.get_query',
  'kong.request.get_host',
  'kong.request.get_raw_body',
  'kong.client.get_ip',
  'kong.nginx.get_var',
  'kong.service.response.get_status',
  'kong.service.response.get_header',
  'kong.service.response.get_headers',
  'kong.service.response.get_raw_body',
];

const LEVELS = ['alert', 'crit', 'err', 'warn', 'notice', 'info', 'debug'];

/** PDK calls as the plugin server may make them. Throws for what Kong would raise, and for what is unknown here. */
export class PluginPdk {
  readonly #phases: Record<string, Map<string, PdkCall>>;
  readonly #log: Log;

  constructor(lua: Lua<Exchange>, log: Log) {
    this.#log = log;
    const common = new Map([...sharedCalls(lua), ...logCalls(log), ...Object.entries(requestHeaders)]);
    this.#phases = {
      access: new Map([...common, ...Object.entries(accessCalls)]),
      log: new Map([
        ...common,
        ...Object.entries(savedCalls),
        ...HANGS_IN_LOG.map(name => [name, hang] as const),
      ]),
    };
  }

  /** @param serialized the record that Kong saved before the log timer; absent in other phases. */
  call(exchange: Exchange, phase: string, method: string, args: unknown[], serialized?: string): PdkAnswer {
    if (method === 'kong.log.serialize' && serialized !== undefined) return step(serialized);
    const call = this.#phases[phase]?.get(method);
    if (call === undefined)
      throw new Error(`PDK function ${method} in ${phase} is unknown to the gateway stand-in`);
    const answer = call(exchange, ...args);
    if (answer === 'hang')
      this.#log('warn', `[${exchange.plugin}] ${method} hangs for ever in Kong's log phase`);
    return answer;
  }
}

const hang: PdkCall = () => 'hang';

const requestHeaders: Record<string, PdkCall> = {
  'kong.request.get_header': (exchange, name) => step(toText(exchange.requestHeaders.get(String(name)))),
  'kong.request.get_headers': exchange => multiMap(exchange.requestHeaders.table()),
};

const accessCalls: Record<string, PdkCall> = {
  'kong.request.get_path': exchange => step(toText(exchange.path)),
  'kong.request.get_method': exchange => step(exchange.method),
  'kong.log.set_serialize_value': (exchange, key, value) => {
    exchange.serializeValues.push({ key: String(key), value: toLua(value) });
    return step(undefined);
  },
  'kong.response.exit': (exchange, status, body, headers) => {
    exchange.exit = createExit(toLua(status), toLua(body), toLua(headers));
    return 'end';
  },
};

const savedCalls: Record<string, PdkCall> = {
  'kong.response.get_status': exchange => step(exchange.response?.status),
  'kong.response.get_source': exchange => step(exchange.response?.source),
  'kong.response.get_header': (exchange, name) => step(toText(exchange.response?.headers.get(String(name)))),
  'kong.response.get_headers': exchange => multiMap(exchange.response?.headers.table() ?? {}),
};

function sharedCalls(lua: Lua<Exchange>): [string, PdkCall][] {
  return [
    [
      'kong.ctx.shared.get',
      (exchange, key) => step(toText(lua.getField(exchange.shared, fromText(String(key))))),
    ],
    [
      'kong.ctx.shared.set',
      (exchange, key, value) => {
        lua.setField(exchange.shared, fromText(String(key)), toLua(value));
        return step(undefined);
      },
    ],
  ];
}

function logCalls(log: Log): [string, PdkCall][] {
  return LEVELS.map(level => [
    `kong.log.${level}`,
    (exchange, ...args) => {
      log(level, `[${exchange.plugin}] ${args.map(String).join('')}`);
      return step(undefined);
    },
  ]);
}

function step(value: unknown): PdkAnswer {
  return { step: 'plugin.Step', value };
}

/** Header tables have a list of values for each name; the empty table is a list. */
function multiMap(table: Record<string, string | string[]>): PdkAnswer {
  const entries = Object.entries(table).map(([name, value]) => [name, toText([value].flat())]);
  return { step: 'plugin.StepMultiMap', value: entries.length === 0 ? [] : Object.fromEntries(entries) };
}

/** Lua's bytes as the text that the plugin's MessagePack decoder makes of them. */
function toText(value: LuaValue): unknown {
  if (typeof value === 'string') return Buffer.from(value, 'latin1').toString('utf8');
  if (value instanceof LuaRef) throw new TypeError("pack 'function' is unimplemented");
  if (Array.isArray(value)) return value.map(toText);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [fromBytesText(key), toText(item)]));
}

/** What MessagePack brought from the plugin, as Lua values: text and binary become bytes. */
function toLua(value: unknown): LuaValue {
  if (typeof value === 'string') return fromText(value);
  if (value instanceof Uint8Array) return Buffer.from(value).toString('latin1');
  if (Array.isArray(value)) return value.map(toLua);
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [fromText(key), toLua(item)]));
  }
  if (value === null || value === undefined || typeof value === 'number' || typeof value === 'boolean')
    return value;
  throw new TypeError(`MessagePack has no ${typeof value}`);
}

function fromText(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1');
}

function fromBytesText(bytes: string): string {
  return Buffer.from(bytes, 'latin1').toString('utf8');
}
