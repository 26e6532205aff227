import { MeshError } from '../mesh/errors.ts';
import { permissionsOf } from '../mesh/grants.ts';
import { MESH_PATH, SERVICE_NAME_PATTERN } from '../mesh/names.ts';
import { suggestion } from '../mesh/yaml-faults.ts';
import type { Principal } from './api-keys.ts';
import { visibleTo } from './authorize.ts';
import type { KnownService } from './discovery.ts';
import { deregisterInstance, type RegisterParts, registerInstance } from './mesh-api/register.ts';
import { consulNameOf, describeHealth, describeServices, describeTopology } from './mesh-api/views.ts';

export interface MeshApiRequest {
  method: string;
  path: string;
  /** Without the question mark. */
  query: string;
  /** undefined: larger than 64 KB. */
  body: string | undefined;
  caller: Principal;
}

export interface MeshApiAnswer {
  status: number;
  headers?: Record<string, string>;
  value: unknown;
}

export interface MeshApi {
  /**
   * Answers a request of an authenticated caller. What he may not use he does not see.
   * @throws MeshError `unknown_path`, `method_not_allowed` (MethodNotAllowed), `invalid_request`, `forbidden`,
   * `unknown_service`, and those of `registerInstance` and `deregisterInstance`
   */
  handle(request: MeshApiRequest): Promise<MeshApiAnswer>;
}

export interface MeshApiOptions extends Omit<RegisterParts, 'now'> {
  /** Of a service and its instances, in their order, as GET …/<name>/status answers. */
  status(service: KnownService): object;
  now?(): number;
}

/** RFC 9110 §15.5.6: the answer has to name the methods. */
export class MethodNotAllowed extends MeshError {
  readonly headers: { allow: string };
  constructor(methods: readonly string[]) {
    super('method_not_allowed', { detail: `use ${methods.join(' or ')}` });
    this.headers = { allow: methods.join(', ') };
  }
}

export const MESH_API_PATH = `${MESH_PATH}/v2`;

const METHODS: Readonly<Record<string, readonly string[]>> = {
  register: ['POST'],
  deregister: ['DELETE'],
  services: ['GET', 'HEAD'],
  topology: ['GET', 'HEAD'],
  health: ['GET', 'HEAD'],
};
const PATHS = 'POST /register, DELETE /deregister/<service_id>, GET /services, GET /topology, GET /health';
/** As in access.ts: the first requests after a start. */
const DISCOVERY_WAIT_MS = 3000;
const SHOWN_MAX = 64;

/** The mesh's own REST API, `/api/v1/mesh/v2/…`: instances that run elsewhere, and what there is. */
export function createMeshApi({ now = Date.now, status, ...rest }: MeshApiOptions): MeshApi {
  const parts: RegisterParts = { ...rest, now };
  const visible = (caller: Principal) => visibleTo(caller, parts.policy(), parts.discovery.list());

  return {
    async handle({ method, path, query, body, caller }) {
      const { action, id } = parsePath(method, path);
      const { name } = parseQuery(query, action === 'services' ? ['name'] : []);
      await parts.discovery.ready(DISCOVERY_WAIT_MS);
      switch (action) {
        case 'register':
          return { status: 201, value: await registerInstance(body, caller, parts) };
        case 'deregister':
          return { status: 200, value: await deregisterInstance(id, caller, parts) };
        case 'services': {
          const services = visible(caller);
          const wanted = name === undefined ? services : findNamed(name, services, caller, parts);
          return { status: 200, value: describeServices(wanted, status) };
        }
        case 'topology':
          return { status: 200, value: describeTopology(visible(caller)) };
        default:
          return { status: 200, value: describeHealth(visible(caller), parts.discovery.age(now())) };
      }
    },
  };
}

function parsePath(method: string, path: string): { action: string; id: string } {
  const trimmed = path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path;
  const [action = '', id = '', ...more] = trimmed.startsWith(`${MESH_API_PATH}/`)
    ? trimmed.slice(MESH_API_PATH.length + 1).split('/')
    : [];
  const methods = Object.hasOwn(METHODS, action) ? METHODS[action] : undefined;
  if (!methods || more.length > 0 || (id !== '') !== (action === 'deregister')) {
    throw new MeshError('unknown_path', { detail: `behind ${MESH_API_PATH} there are ${PATHS}` });
  }
  if (!methods.includes(method)) throw new MethodNotAllowed(methods);
  return { action, id: decode(id) };
}

/** Of an escape that is none, the text as it is: no instance has such an id. */
function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

function parseQuery(query: string, known: readonly string[]): Record<string, string | undefined> {
  const found: Record<string, string> = Object.create(null);
  for (const [key, value] of new URLSearchParams(query)) {
    if (!known.includes(key)) {
      const short = key.slice(0, SHOWN_MAX);
      const hint = known.length > 0 ? `; there is ${known.join(', ')}` : '; there are none here';
      throw invalid(`query parameter "${short}": unknown${suggestion(short, known) || hint}`);
    }
    if (found[key] !== undefined) throw invalid(`query parameter "${key}": comes twice; send it once`);
    found[key] = value;
  }
  return found;
}

/** By the name that callers use, or by Consul's. A service is unknown only to who may use it. */
function findNamed(
  name: string,
  services: readonly KnownService[],
  { roles }: Principal,
  { policy }: RegisterParts,
): KnownService[] {
  if (!SERVICE_NAME_PATTERN.test(name)) {
    throw invalid('query parameter "name": must be a service such as github, or its name in Consul');
  }
  const exact = services.filter(service => service.name === name);
  const found = exact.length > 0 ? exact : services.filter(service => consulNameOf(service) === name);
  if (found.length > 0) return found;
  const current = policy();
  if (current && permissionsOf(current, roles, name)) {
    throw new MeshError('unknown_service', { detail: `there is no service "${name}"` });
  }
  throw new MeshError('forbidden', { detail: `your roles do not allow the service "${name}"` });
}

function invalid(detail: string): MeshError {
  return new MeshError('invalid_request', { detail });
}
