import type { Exchange, Phase } from './exchange.ts';
import type { HeaderList } from './headers.ts';
import { type Builtin, type Lua, STOP } from './lua.ts';
import { LuaRef, type LuaTable, type LuaValue } from './lua-value.ts';
import { escapePath } from './uri.ts';

export type Log = (level: string, message: string) => void;

/** In-memory size up to which nginx keeps a request body (client_body_buffer_size); beyond it goes to a file. */
const BODY_BUFFER_BYTES = 8192;
const MAX_HEADERS = 100;
const MAX_MS = 2_147_483_646;

const LEVELS = ['emerg', 'alert', 'crit', 'err', 'warn', 'notice', 'info', 'debug'];

type PdkFunction = (
  exchange: Exchange,
  ...args: LuaValue[]
) => LuaValue[] | Promise<LuaValue[]> | typeof STOP;

/** kong.* and ngx.* for the Lua of pre-function and post-function, each function in the phases where Kong has it. */
export function createPdk(lua: () => Lua<Exchange>, log: Log): Map<string, Builtin<Exchange>> {
  const library = new Map<string, Builtin<Exchange>>();
  const define = (phases: Phase[], functions: Record<string, PdkFunction>): void => {
    for (const [name, fn] of Object.entries(functions)) {
      library.set(name, (exchange, args) => {
        if (phases.includes(exchange.phase)) return fn(exchange, ...args);
        throw new Error(
          `function cannot be called in ${exchange.phase} phase (only in: ${phases.join(', ')}): ${name}`,
        );
      });
    }
  };
  define(['access', 'header_filter', 'body_filter', 'log'], requestFunctions);
  define(['access', 'balancer'], serviceFunctions);
  define(['access'], accessFunctions);
  define(['header_filter'], headerFunctions);
  define(['header_filter', 'body_filter', 'log'], responseFunctions);
  define(['body_filter'], bodyFunctions);
  for (const level of LEVELS) {
    library.set(`kong.log.${level}`, (exchange, args) => {
      log(level, `[${exchange.plugin}] ${args.map(String).join('')}`);
      return [];
    });
  }
  library.set('kong.log.set_serialize_value', (exchange, [key, value, options]) => {
    if (options !== undefined) throw new Error('options of set_serialize_value are not in the stand-in');
    exchange.serializeValues.push({ key: string(key, 'key'), value });
    return [];
  });
  library.set('kong.ctx.shared', { get: exchange => exchange.shared });
  library.set('kong.ctx.plugin', {
    get: exchange => {
      const table = exchange.pluginTables.get(exchange.plugin) ?? lua().createTable();
      exchange.pluginTables.set(exchange.plugin, table);
      return table;
    },
  });
  library.set('ngx.var.upstream_host', {
    get: exchange => exchange.balancer.upstreamHost,
    set: (exchange, value) => {
      exchange.balancer.upstreamHost = string(value, 'upstream_host');
    },
  });
  return library;
}

const requestFunctions: Record<string, PdkFunction> = {
  'kong.request.get_method': exchange => [exchange.method],
  'kong.request.get_path': exchange => [exchange.path],
  'kong.request.get_raw_query': exchange => [exchange.query],
  'kong.request.get_header': (exchange, name) => [exchange.requestHeaders.get(string(name, 'header name'))],
  'kong.request.get_headers': (exchange, max) => headerTable(exchange.requestHeaders, max),
  'kong.client.get_ip': exchange => [exchange.clientIp],
  // Kong trusts X-Forwarded-For only from trusted_ips, and kong.conf has none.
  'kong.client.get_forwarded_ip': exchange => [exchange.clientIp],
};

const serviceFunctions: Record<string, PdkFunction> = {
  'kong.service.set_target': ({ balancer }, host, port) => {
    balancer.host = string(host, 'host');
    balancer.port = integer(port, 'port', 0, 65_535);
    // Frozen without its port until somebody empties the variable (measured on Kong 3.9.3).
    balancer.upstreamHost = balancer.host;
    return [];
  },
  'kong.service.request.set_header': ({ requestHeaders }, name, value) => {
    requestHeaders.set(string(name, 'header name'), headerValue(value));
    return [];
  },
  'kong.service.request.set_headers': ({ requestHeaders }, headers) => {
    for (const [name, value] of Object.entries(table(headers, 'headers')))
      requestHeaders.set(name, headerValue(value));
    return [];
  },
  'kong.service.request.clear_header': ({ requestHeaders }, name) => {
    requestHeaders.clear(string(name, 'header name'));
    return [];
  },
};

const accessFunctions: Record<string, PdkFunction> = {
  'kong.request.get_raw_body': async (exchange, max) => {
    const limit =
      max === undefined ? BODY_BUFFER_BYTES : Math.max(BODY_BUFFER_BYTES, integer(max, 'max', 0, MAX_MS));
    exchange.requestBody ??= await readBody(exchange);
    if (exchange.requestBody.length <= limit) return [exchange.requestBody.toString('latin1')];
    return [undefined, `request body file too big: ${exchange.requestBody.length} > ${limit}`];
  },
  'kong.response.exit': (exchange, status, body, headers) => {
    exchange.exit = createExit(status, body, headers);
    return STOP;
  },
  'kong.service.set_retries': ({ balancer }, retries) => {
    balancer.retries = integer(retries, 'retries', 0, 32_767);
    return [];
  },
  'kong.service.set_timeouts': ({ balancer }, connect, write, read) => {
    balancer.timeouts = [
      integer(connect, 'connect_timeout', 1, MAX_MS),
      integer(write, 'write_timeout', 1, MAX_MS),
      integer(read, 'read_timeout', 1, MAX_MS),
    ];
    return [];
  },
  'kong.service.set_target_retry_callback': ({ balancer }, callback) => {
    if (!(callback instanceof LuaRef)) throw new TypeError('retry_callback must be a function');
    balancer.retryCallback = callback;
    return [];
  },
  'kong.service.request.set_path': ({ balancer }, value) => {
    const path = string(value, 'path');
    if (!path.startsWith('/')) throw new TypeError('path must start with /');
    balancer.path = escapePath(path);
    return [];
  },
};

const headerFunctions: Record<string, PdkFunction> = {
  'kong.response.set_header': (exchange, name, value) => {
    responseOf(exchange).headers.set(string(name, 'header name'), headerValue(value));
    return [];
  },
  'kong.response.clear_header': (exchange, name) => {
    responseOf(exchange).headers.clear(string(name, 'header name'));
    return [];
  },
};

const responseFunctions: Record<string, PdkFunction> = {
  'kong.response.get_status': exchange => [responseOf(exchange).status],
  'kong.response.get_source': exchange => [responseOf(exchange).source],
  'kong.response.get_header': (exchange, name) => [
    responseOf(exchange).headers.get(string(name, 'header name')),
  ],
  'kong.response.get_headers': (exchange, max) => headerTable(responseOf(exchange).headers, max),
};

const bodyFunctions: Record<string, PdkFunction> = {
  'kong.response.set_raw_body': (exchange, body) => {
    // The body is complete with it: nginx drops the chunks that follow.
    exchange.chunk = { data: Buffer.from(string(body, 'body') || '\n', 'latin1'), eof: true };
    return [];
  },
};

/** The arguments of kong.response.exit, checked as Kong checks them. */
export function createExit(
  status: LuaValue,
  body: LuaValue,
  headers: LuaValue,
): NonNullable<Exchange['exit']> {
  const code = integer(status, 'code', 100, 599);
  if (body instanceof LuaRef || typeof body === 'number' || typeof body === 'boolean') {
    throw new TypeError('body must be a nil, string or table');
  }
  const checked = headers === undefined || headers === null ? {} : table(headers, 'headers');
  for (const value of Object.values(checked)) headerValue(value);
  return { status: code, body, headers: checked };
}

/** A header's value or values; Kong takes numbers and booleans, too. */
export function headerValue(value: LuaValue): string | string[] {
  if (Array.isArray(value)) return value.map(item => String(headerValue(item)));
  if (typeof value === 'string') return value.trim();
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  throw new TypeError('header value must be a string, number, boolean or an array of them');
}

function headerTable(headers: HeaderList, max: LuaValue): LuaValue[] {
  const limit = max === undefined ? MAX_HEADERS : integer(max, 'max_headers', 1, 1000);
  return [{ ...headers.table(limit) }, headers.size > limit ? 'truncated' : undefined];
}

async function readBody(exchange: Exchange): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of exchange.request) chunks.push(chunk as Buffer);
  const body = Buffer.concat(chunks);
  exchange.requestBytes += body.length;
  return body;
}

function responseOf(exchange: Exchange): NonNullable<Exchange['response']> {
  if (exchange.response === undefined) throw new Error('there is no response yet');
  return exchange.response;
}

function string(value: LuaValue, name: string): string {
  if (typeof value !== 'string') throw new TypeError(`${name} must be a string`);
  return value;
}

function integer(value: LuaValue, name: string, least: number, most: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value))
    throw new TypeError(`${name} must be an integer`);
  if (value < least || value > most)
    throw new RangeError(`${name} must be between ${least} and ${most}: given ${value}`);
  return value;
}

/** A table with names; the empty table is `[]` here. */
function table(value: LuaValue, name: string): LuaTable {
  if (Array.isArray(value) && value.length === 0) return {};
  if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof LuaRef) {
    throw new TypeError(`${name} must be a table`);
  }
  return value;
}
