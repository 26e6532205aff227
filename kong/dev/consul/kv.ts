import { type Clock, tick } from './catalog.ts';
import { Refusal, type Reply, reply } from './reply.ts';

interface Entry {
  value: Buffer;
  createIndex: number;
  modifyIndex: number;
}

/** The KV store, with the real one's index rules (agent/consul/state/kvs.go). */
export function createKv(clock: Clock) {
  const entries = new Map<string, Entry>();
  /** Deleted keys (for a recursive delete its prefix, as in Consul) with the index of their end. */
  const graveyard = new Map<string, number>();
  let tableIndex = 0;

  function write(): number {
    tableIndex = tick(clock);
    return tableIndex;
  }

  function below(prefix: string): string[] {
    return [...entries.keys()].filter(key => key.startsWith(prefix)).sort();
  }

  /** Only graves below the prefix count: deleting a shorter one leaves a longer one's index where it was. */
  function indexBelow(prefix: string, keys: string[]): number {
    if (prefix === '') return tableIndex;
    const graves = [...graveyard].filter(([key]) => key.startsWith(prefix)).map(([, index]) => index);
    return Math.max(0, ...keys.map(key => entries.get(key)?.modifyIndex ?? 0), ...graves) || tableIndex;
  }

  function show(key: string) {
    const { value, createIndex, modifyIndex } = entries.get(key) as Entry;
    const Value = value.length === 0 ? null : value.toString('base64');
    return { LockIndex: 0, Key: key, Flags: 0, Value, CreateIndex: createIndex, ModifyIndex: modifyIndex };
  }

  return {
    /** GET /v1/kv/<key>[?recurse|keys|raw] */
    get(key: string, query: URLSearchParams): Reply {
      const isList = query.has('recurse') || query.has('keys');
      const keys = isList ? below(key) : entries.has(key) ? [key] : [];
      const index = isList ? indexBelow(key, keys) : (entries.get(key)?.modifyIndex ?? tableIndex);
      if (keys.length === 0) return { status: 404, body: undefined, index };
      if (query.has('keys')) return reply(keys, index);
      if (query.has('raw') && !isList) return { ...reply(entries.get(key)?.value, index), headers: RAW };
      return reply(keys.map(show), index);
    },

    /** PUT /v1/kv/<key>[?cas=<ModifyIndex, 0 for none>]; an equal value moves no index. */
    put(key: string, query: URLSearchParams, value: Buffer): Reply {
      if (key === '') throw new Refusal(400, 'Missing key name');
      const before = entries.get(key);
      const cas = readCas(query);
      if (cas !== undefined && cas !== (before?.modifyIndex ?? 0)) return reply(false);
      if (before?.value.equals(value)) return reply(true);
      const modifyIndex = write();
      entries.set(key, { value, createIndex: before?.createIndex ?? modifyIndex, modifyIndex });
      return reply(true);
    },

    /** DELETE /v1/kv/<key>[?recurse|cas=<ModifyIndex>] */
    delete(key: string, query: URLSearchParams): Reply {
      if (key === '' && !query.has('recurse')) throw new Refusal(400, 'Missing key name');
      const cas = readCas(query);
      const before = entries.get(key);
      if (cas !== undefined && before && cas !== before.modifyIndex) return reply(false);
      const keys = query.has('recurse') ? below(key) : entries.has(key) ? [key] : [];
      if (keys.length > 0) graveyard.set(key, write());
      for (const gone of keys) entries.delete(gone);
      return reply(true);
    },
  };
}

function readCas(query: URLSearchParams): number | undefined {
  const cas = query.get('cas');
  if (cas === null) return undefined;
  if (!/^\d+$/.test(cas)) throw new Refusal(400, `strconv.ParseUint: parsing "${cas}": invalid syntax`);
  return Number(cas);
}

const RAW = {
  'content-type': 'text/plain',
  'content-security-policy': 'sandbox',
  'x-content-type-options': 'nosniff',
};
