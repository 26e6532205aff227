import { MeshError } from '../mesh/errors.ts';
import { MCP_PATH, MESH_PATH, SERVICE_NAME_PATTERN, WORKER_ROUTES } from '../mesh/names.ts';
import { WELL_KNOWN } from './resource-metadata.ts';

/** What a path under /api/v1 asks for. */
export type Route =
  | { to: 'list' }
  | { to: 'status'; service: string }
  /** RFC 9728 metadata, of a service or of them all. */
  | { to: 'metadata'; service: string | undefined }
  /** The mesh's own API, which reads the rest itself. */
  | { to: 'mesh' }
  | WorkerRoute;

export interface WorkerRoute {
  to: 'worker';
  service: string;
  /** What the worker is asked for. */
  path: string;
  /** Whether it answers in JSON-RPC: the MCP endpoint does. */
  rpc: boolean;
}

/** Sub-paths of a service, as shown to a caller who missed them. */
const SUB_PATHS = ['(none)', ...WORKER_ROUTES, '/status'];
const METHODS: Record<string, readonly string[]> = {
  mcp: ['POST', 'GET', 'DELETE'],
  execute: ['POST'],
  tools: ['GET', 'HEAD'],
  tool: ['POST'],
  'openapi.json': ['GET', 'HEAD'],
  status: ['GET', 'HEAD'],
  list: ['GET', 'HEAD'],
  metadata: ['GET', 'HEAD'],
};

/** @throws MeshError `unknown_path`, `unknown_service`, `method_not_allowed` */
export function parseRoute(method: string, path: string): Route {
  const trimmed = path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path;
  if (trimmed === MCP_PATH) {
    allow('list', method);
    return { to: 'list' };
  }
  if (trimmed === WELL_KNOWN || trimmed.startsWith(`${WELL_KNOWN}/`)) return metadataOf(method, trimmed);
  if (trimmed === MESH_PATH || trimmed.startsWith(`${MESH_PATH}/`)) return { to: 'mesh' };
  if (!trimmed.startsWith(`${MCP_PATH}/`)) {
    throw new MeshError('unknown_path', { detail: `services are at ${MCP_PATH}/<name>` });
  }
  const [service = '', sub = 'mcp', ...rest] = trimmed.slice(MCP_PATH.length + 1).split('/');
  if (!SERVICE_NAME_PATTERN.test(service)) throw unknownService(service);
  if (sub === 'tools' && rest.length === 1) {
    allow('tool', method);
    return { to: 'worker', service, path: `/tools/${rest[0]}`, rpc: false };
  }
  if (rest.length > 0 || !['mcp', 'execute', 'tools', 'openapi.json', 'status'].includes(sub)) {
    throw new MeshError('unknown_path', {
      detail: `behind ${MCP_PATH}/${service} there are ${SUB_PATHS.join(', ')}`,
    });
  }
  allow(sub, method);
  if (sub === 'status') return { to: 'status', service };
  return { to: 'worker', service, path: `/${sub}`, rpc: sub === 'mcp' };
}

/** RFC 9728 §3.1: the path of the resource follows the well-known part. */
function metadataOf(method: string, path: string): Route {
  allow('metadata', method);
  const resource = path.slice(WELL_KNOWN.length);
  if (resource === '' || resource === MCP_PATH) return { to: 'metadata', service: undefined };
  const service = resource.startsWith(`${MCP_PATH}/`) ? resource.slice(MCP_PATH.length + 1) : '';
  if (!SERVICE_NAME_PATTERN.test(service)) {
    throw new MeshError('unknown_path', { detail: `resources are ${MCP_PATH} and ${MCP_PATH}/<name>` });
  }
  return { to: 'metadata', service };
}

/** Whether a path is of an MCP endpoint, whatever else may be wrong with the request: such errors are JSON-RPC. */
export function isMcpEndpoint(path: string): boolean {
  const [, sub, ...rest] = path.slice(MCP_PATH.length + 1).split('/');
  return (
    path.startsWith(`${MCP_PATH}/`) && rest.length === 0 && (sub === undefined || sub === '' || sub === 'mcp')
  );
}

export function unknownService(service: string): MeshError {
  return new MeshError('unknown_service', { detail: `there is no service "${service.slice(0, 64)}"` });
}

function allow(kind: string, method: string): void {
  const allowed = METHODS[kind] ?? [];
  if (!allowed.includes(method)) {
    throw new MeshError('method_not_allowed', { detail: `use ${allowed.join(' or ')}` });
  }
}
