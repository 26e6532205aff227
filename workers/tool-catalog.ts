import { createHash } from 'node:crypto';
import { MeshError } from '../mesh/errors.ts';
import type { RpcResponse } from '../mesh/jsonrpc.ts';
import { isObject, type JsonObject } from '../mesh/jsonrpc.ts';
import type { CallOptions } from './multiplexer.ts';
import { resultOf } from './multiplexer.ts';
import { saysRepeatable } from './retry.ts';

/** An argument that a client mirrors in a header `Mcp-Param-<name>` (2026-07-28, custom parameter headers). */
export interface ParamHeader {
  /** Lower case, without the prefix. */
  name: string;
  /** Keys from the arguments down to the value. */
  path: string[];
}

export interface ToolCatalog {
  /** The headers of a tool; empty for an unknown one. Asks the server at the first use and after a change. */
  paramHeaders(tool: string): Promise<ParamHeader[]>;
  /**
   * Whether a tool's annotations say that a repeated call does no harm, as far as is known now: a list that is not
   * there yet is asked for, but not waited for.
   */
  isRepeatable(tool: string): boolean;
  /** Whether the server lists a tool, as far as is known now, as `isRepeatable`. */
  has(tool: string): boolean;
  /**
   * The schema of a tool's arguments: one object for as long as the list stands. undefined for an unknown tool, and
   * where schemas are not kept.
   */
  inputSchema(tool: string): Promise<JsonObject | undefined>;
  /** Hash of all tools with their schemas: instances with equal hashes offer the same. */
  hash(): Promise<string>;
  /** The server said that its tools have changed, or is another process. */
  invalidate(): void;
}

interface Asks {
  ask(method: string, params: JsonObject, options: CallOptions): Promise<RpcResponse>;
}

interface Tools {
  hash: string;
  headers: Map<string, ParamHeader[]>;
  repeatable: Set<string>;
  schemas: Map<string, JsonObject>;
}

interface CatalogOptions {
  /** For who checks arguments: else their memory is for nothing. */
  keepSchemas?: boolean;
}

const TIMEOUT_MS = 10_000;
const PAGES_MAX = 100;
const RETRY_MS = 30_000;
const HEADER_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const DEPTH_MAX = 20;

/** What the worker must know of its server's tools to check a call: read from `tools/list`, kept until it changes. */
export function createToolCatalog(server: Asks, { keepSchemas = false }: CatalogOptions = {}): ToolCatalog {
  let known: Promise<Tools> | undefined;
  /** What `known` resolved with. */
  let current: Tools | undefined;
  /** The last list there was: a call that waits for the server to come back is checked against it. */
  let last: Tools | undefined;
  const tools = () => {
    if (known) return known;
    const asked = readTools(server, keepSchemas);
    known = asked;
    asked.then(
      list => {
        last = list;
        if (known === asked) current = list;
      },
      () => {},
    );
    // Not at once: a server that never answers the list would delay every call by that much.
    asked.catch(() => {
      setTimeout(() => {
        if (known === asked) known = undefined;
      }, RETRY_MS).unref();
    });
    return asked;
  };
  // A server that lists no tools has nothing to check a call by; its own answer to the call says what is wrong.
  const toolsIfAny = () => tools().catch(error => (isAway(error) ? last : undefined));
  return {
    async paramHeaders(tool) {
      return (await toolsIfAny())?.headers.get(tool) ?? [];
    },
    async inputSchema(tool) {
      return (await toolsIfAny())?.schemas.get(tool);
    },
    isRepeatable(tool) {
      void tools().catch(() => {});
      return current?.repeatable.has(tool) ?? false;
    },
    has(tool) {
      void tools().catch(() => {});
      return (current ?? last)?.headers.has(tool) ?? false;
    },
    hash: async () => (await tools()).hash,
    invalidate() {
      known = undefined;
      current = undefined;
    },
  };
}

function isAway(error: unknown): boolean {
  return error instanceof MeshError && error.code === 'child_unavailable';
}

async function readTools(server: Asks, keepSchemas: boolean): Promise<Tools> {
  const hash = createHash('sha256');
  const headers = new Map<string, ParamHeader[]>();
  const repeatable = new Set<string>();
  const schemas = new Map<string, JsonObject>();
  let cursor: unknown;
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const params = cursor === undefined ? {} : { cursor };
    const result = resultOf(await server.ask('tools/list', params, { timeoutMs: TIMEOUT_MS }));
    if (!isObject(result)) break;
    const tools = Array.isArray(result.tools) ? result.tools.filter(isObject) : [];
    hash.update(JSON.stringify(tools));
    for (const tool of tools) {
      const name = String(tool.name);
      headers.set(name, headersOf(tool.inputSchema));
      if (saysRepeatable(tool)) repeatable.add(name);
      if (keepSchemas && isObject(tool.inputSchema)) schemas.set(name, tool.inputSchema);
    }
    cursor = result.nextCursor;
    if (cursor === undefined) break;
  }
  return { hash: hash.digest('hex').slice(0, 16), headers, repeatable, schemas };
}

/** Valid annotations only: a name of tchar, unique but for case, on a string, integer or boolean below `properties`. */
function headersOf(schema: unknown): ParamHeader[] {
  const found = new Map<string, ParamHeader>();
  const visit = (node: unknown, path: string[]) => {
    if (!isObject(node) || path.length > DEPTH_MAX) return;
    const name = node['x-mcp-header'];
    const scalar = ['string', 'integer', 'boolean'].includes(String(node.type));
    if (typeof name === 'string' && HEADER_NAME.test(name) && scalar) {
      const key = name.toLowerCase();
      if (!found.has(key)) found.set(key, { name: key, path });
    }
    if (!isObject(node.properties)) return;
    for (const [key, child] of Object.entries(node.properties)) visit(child, [...path, key]);
  };
  visit(schema, []);
  return [...found.values()];
}
