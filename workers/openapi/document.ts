import type { FastifyRequest } from 'fastify';
import { BoundedCache } from '../../mesh/bounded-cache.ts';
import type { JsonObject } from '../../mesh/jsonrpc.ts';
import { HEADERS } from '../../mesh/names.ts';
import type { Service } from '../../mesh/registry.ts';
import type { ServerInfo } from '../connection.ts';
import { ERROR_RESPONSES, PROBLEM_SCHEMA } from './errors.ts';
import { describeTools } from './operations.ts';
import type { ToolList } from './tool-list.ts';

interface Described {
  service: Pick<Service, 'name'>;
  server: { info: ServerInfo | undefined };
}

/** What any tool answers (MCP, CallToolResult). */
const RESULT_SCHEMA: JsonObject = {
  type: 'object',
  required: ['content'],
  properties: {
    content: {
      type: 'array',
      items: { type: 'object', required: ['type'], properties: { type: { type: 'string' } } },
    },
    structuredContent: { type: 'object' },
    isError: { type: 'boolean', description: 'The tool ran and failed; the content says how.' },
    _meta: { type: 'object' },
  },
};

const SECURITY_SCHEMES: JsonObject = {
  bearer: { type: 'http', scheme: 'bearer', description: 'An API key (mk_…), or a token of a known issuer.' },
  apiKey: { type: 'apiKey', in: 'header', name: 'x-api-key' },
};

/** Characters of JSON. A list differs by the server's version and by the callers' grants. */
const CACHE_MAX = 16 * 1024 * 1024;

/** Makes OpenAPI 3.1 documents; what of them is of the tools is kept, since 500 tools take 20 ms. */
export class ServiceDescriber {
  /** The tools' part as JSON text, by the hash of their list. */
  readonly #described = new BoundedCache<string, string>(CACHE_MAX);

  /** The document's text for one caller: an operation for each tool of `list`, which are those it may use. */
  describe({ service, server }: Described, request: FastifyRequest, list: ToolList): string {
    const { principal } = request.caller;
    const head = {
      openapi: '3.1.0',
      info: {
        title: service.name,
        // A server may say anything there.
        version: String(server.info?.serverInfo.version ?? '0'),
        description: `The tools of the MCP server "${service.name}", as far as the caller may use them.`,
      },
      servers: [{ url: serverUrl(service.name, request) }],
      security: [{ bearer: [] }, { apiKey: [] }, ...(principal === 'anonymous' ? [{}] : [])],
    };
    return `${JSON.stringify(head).slice(0, -1)},${this.#toolsPart(list)}`;
  }

  /** The members `paths` and `components`, with the brace that ends the document. */
  #toolsPart(list: ToolList): string {
    const known = this.#described.get(list.hash);
    if (known !== undefined) return known;
    const { paths, schemas } = describeTools(list.parse());
    const components = {
      schemas: { ...schemas, CallToolResult: RESULT_SCHEMA, Problem: PROBLEM_SCHEMA },
      responses: ERROR_RESPONSES,
      securitySchemes: SECURITY_SCHEMES,
    };
    const part = JSON.stringify({ paths, components }).slice(1);
    this.#described.set(list.hash, part, part.length);
    return part;
  }
}

/**
 * Relative to the document, which the gateway has at …/<name>/openapi.json: good behind any host, scheme and prefix,
 * with no header to believe. "." would end with a slash, and paths begin with one. Without a gateway it is this worker.
 */
function serverUrl(name: string, { headers }: FastifyRequest): string {
  return headers[HEADERS.identity] === undefined ? `http://${headers.host}` : `../${name}`;
}
