/**
 * The two eras of MCP: legacy revisions (to 2025-11-25) shake hands with `initialize`; modern ones (from 2026-07-28)
 * say everything in the `_meta` of each request.
 */

export type Era = 'legacy' | 'modern';

/** Newest first. */
export const LEGACY_VERSIONS: readonly string[] = ['2025-11-25', '2025-06-18', '2025-03-26', '2024-11-05'];
export const [LATEST_LEGACY_VERSION = ''] = LEGACY_VERSIONS;
export const MODERN_VERSION = '2026-07-28';

const PREFIX = 'io.modelcontextprotocol/';

/** Keys of `_meta` that belong to the modern era. */
export const META = {
  protocolVersion: `${PREFIX}protocolVersion`,
  clientCapabilities: `${PREFIX}clientCapabilities`,
  clientInfo: `${PREFIX}clientInfo`,
  logLevel: `${PREFIX}logLevel`,
  serverInfo: `${PREFIX}serverInfo`,
  subscriptionId: `${PREFIX}subscriptionId`,
} as const;

export const isModernMetaKey = (key: string): boolean => key.startsWith(PREFIX);

/** JSON-RPC error codes of the specification. */
export const RPC = {
  invalidRequest: -32600,
  methodNotFound: -32601,
  invalidParams: -32602,
  internal: -32603,
  resourceNotFound: -32002,
  headerMismatch: -32020,
  missingCapability: -32021,
  unsupportedVersion: -32022,
  urlElicitation: -32042,
} as const;

/** Requests that a server answers in both eras, without a session. */
export const SERVER_REQUESTS: readonly string[] = [
  'tools/list',
  'tools/call',
  'resources/list',
  'resources/templates/list',
  'resources/read',
  'prompts/list',
  'prompts/get',
  'completion/complete',
];

/** Requests whose results carry cache hints (2026-07-28, caching). */
export const CACHEABLE = new Set([
  'server/discover',
  'tools/list',
  'prompts/list',
  'resources/list',
  'resources/templates/list',
  'resources/read',
]);

/** Requests that a server may answer with `input_required` (2026-07-28, multi round-trip requests). */
export const MULTI_ROUND = new Set(['tools/call', 'prompts/get', 'resources/read']);

export const LOG_LEVELS = ['debug', 'info', 'notice', 'warning', 'error', 'critical', 'alert', 'emergency'];

export function isLogLevel(value: unknown): value is string {
  return typeof value === 'string' && LOG_LEVELS.includes(value);
}

/** Whether a log message of one level is wanted by somebody who asked for another and above. */
export function isLogWanted(level: unknown, wanted: string): boolean {
  return LOG_LEVELS.indexOf(String(level)) >= LOG_LEVELS.indexOf(wanted);
}

/** The parameter that `Mcp-Name` mirrors, by method (2026-07-28 Streamable HTTP). */
export const MIRRORED: ReadonlyMap<string, string> = new Map([
  ['tools/call', 'name'],
  ['prompts/get', 'name'],
  ['resources/read', 'uri'],
  ['tasks/get', 'taskId'],
  ['tasks/update', 'taskId'],
  ['tasks/cancel', 'taskId'],
]);
