import type { Exchange } from './exchange.ts';
import { LuaRef, type LuaTable, type LuaValue } from './lua-value.ts';

const SOURCES = { error: 'kong', exit: 'kong', service: 'upstream' } as const;

/** kong.log.serialize: the record of a finished request as JSON text, edited by set_serialize_value. */
export function serializeExchange(exchange: Exchange): string {
  const { balancer, marks, response } = exchange;
  const host = exchange.request.headers.host ?? '';
  const uri = exchange.request.url ?? '/';
  const proxied = marks.proxied !== undefined && balancer.tries.length > 0;
  const record: Record<string, unknown> = {
    request: {
      id: exchange.id,
      method: exchange.method,
      uri,
      url: `${exchange.scheme}://${host}${uri}`,
      querystring: Object.fromEntries(new URLSearchParams(exchange.query)),
      headers: toJsonValue(exchange.requestHeaders.table()),
      size: exchange.requestBytes,
    },
    response: {
      status: response?.status ?? 499,
      headers: toJsonValue(response?.headers.table() ?? {}),
      size: exchange.responseBytes,
    },
    upstream_uri: proxied ? exchange.upstreamUri : '',
    upstream_status: balancer.statuses.join(', '),
    tries: balancer.tries,
    latencies: {
      request: exchange.age,
      kong: marks.proxied ?? exchange.age,
      proxy: marks.answered === undefined ? -1 : marks.answered - (marks.proxied ?? 0),
      receive: marks.answered === undefined ? 0 : exchange.age - marks.answered,
    },
    route: { name: exchange.route.name, paths: exchange.route.paths, protocols: exchange.route.protocols },
    service: { name: exchange.service.name, host: exchange.service.host, port: exchange.service.port },
    client_ip: exchange.clientIp,
    source: SOURCES[response?.source ?? 'error'],
    started_at: exchange.startedAt,
    workspace: 'default',
    workspace_name: 'default',
  };
  edit(record, 'request.headers.authorization', 'REDACTED', true);
  edit(record, 'request.headers.proxy-authorization', 'REDACTED', true);
  for (const { key, value } of exchange.serializeValues) edit(record, key, toJsonValue(value), false);
  return JSON.stringify(record);
}

/** A table as lua-cjson encodes it: Lua does not know an empty list from an empty map, so both are `{}`. */
export function toJsonValue(value: LuaValue): unknown {
  if (value instanceof LuaRef) throw new TypeError('a function has no JSON');
  if (typeof value === 'string') return Buffer.from(value, 'latin1').toString('utf8');
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.length === 0 ? {} : value.map(toJsonValue);
  return Object.fromEntries(Object.entries(value as LuaTable).map(([key, item]) => [key, toJsonValue(item)]));
}

/** Sets the field at a dotted key, making tables on the way; `undefined` removes; `replace` only what exists. */
function edit(record: Record<string, unknown>, key: string, value: unknown, replace: boolean): void {
  const parts = key.split('.');
  const last = parts.pop() ?? '';
  let node = record;
  for (const part of parts) {
    if (node[part] === undefined) node[part] = {};
    if (typeof node[part] !== 'object') {
      throw new Error(
        `The key '${key}' could not be used as a serialize value. Subkey '${part}' is not a table.`,
      );
    }
    node = node[part] as Record<string, unknown>;
  }
  if (value === undefined) delete node[last];
  else if (!replace || node[last] !== undefined) node[last] = value;
}
