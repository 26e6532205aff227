import type { AccessPolicy, MeshAction } from '../../mesh/access-policy.ts';
import {
  type Consul,
  ConsulError,
  type Instance,
  type Registered,
  type Registration,
} from '../../mesh/consul.ts';
import { MeshError } from '../../mesh/errors.ts';
import { mayMesh, permissionsOf } from '../../mesh/grants.ts';
import { CONSUL_TAG, consulName, SERVICE_NAME_PATTERN } from '../../mesh/names.ts';
import { createNetworkGuard, pinAddress, type ResolveHost } from '../../mesh/network-guard.ts';
import type { Principal } from '../api-keys.ts';
import type { Discovery, KnownService } from '../discovery.ts';
import { INSTANCE_ID_PATTERN, parseRegistration, type RegistrationBody } from './registration-body.ts';
import { consulNameOf } from './views.ts';

export interface RegisterParts {
  discovery: Discovery;
  consul: Pick<Consul, 'register' | 'deregister'>;
  /** undefined: there is no usable policy. */
  policy(): AccessPolicy | undefined;
  /** Which workers speak; default: http. */
  scheme?: 'http' | 'https';
  /** Default: DNS. */
  resolve?: ResolveHost | undefined;
  /** Milliseconds since the epoch. */
  now(): number;
  log(text: string): void;
}

/** Answer to a change that was made. */
export interface Receipt {
  service_id: string;
  status: 'registered' | 'deregistered';
  message: string;
}

/** Longer than a missed check or two; Consul takes no less than 60. */
const DEREGISTER_AFTER_SECONDS = 600;
const CHECK = { intervalSeconds: 2, timeoutSeconds: 5 };
const HEALTH_PATH = '/health';
const HEALTH_PATH_PATTERN = /^\/[\x21-\x7e]{0,255}$/;
const WEIGHT = 100;
const META_BYTES = 512;
const RETRY_MS = 5000;

/**
 * Registers an instance that somebody runs elsewhere. It gets no call for that: like any other it has to pass Consul's
 * check, and to prove the key of its service to the gateway. Done again, with the same id and place, it renews tags and
 * metadata.
 * @throws MeshError `forbidden`, `invalid_request`, `parse_error`, `too_large`, `conflict` when the id is taken,
 * `consul_unavailable`
 */
export async function registerInstance(
  text: string | undefined,
  caller: Principal,
  parts: RegisterParts,
): Promise<Receipt> {
  const policy = requireAction(caller, parts.policy(), 'register');
  const body = parseRegistration(text);
  const services = parts.discovery.list();
  const service = serviceOf(body, services, name => isAllowed(caller, policy, name));
  const address = await pinAddress(body.address, createNetworkGuard(policy.allowedNetworks), parts.resolve);
  const { definition = {} } = parts.discovery.find(service) ?? {};
  const { scheme = 'http', now } = parts;
  const registration = toConsul(body, { service, address, definition, caller, scheme, now: now() });
  const admit = (registered: Registered | undefined) => {
    refuseTaken(registration, registered, findInstance(parts.discovery.list(), registration.id));
  };
  await ask(parts, () => parts.consul.register(registration, admit));
  const place = `${urlHost(address)}:${body.port}`;
  return {
    service_id: body.service_id,
    status: 'registered',
    message: `registered at ${place} for "${service}"; it gets calls once Consul's check of ${place} passes and GET /proof there proves the service's key for this id, address and port`,
  };
}

/**
 * Takes out an instance that was registered by `registerInstance`, whoever did it. Not a worker that registered itself:
 * while it lives it is back within seconds, and when it has died Consul removes it.
 * @throws MeshError `forbidden`, `unknown_instance`, `conflict` when it is not for this API to remove,
 * `consul_unavailable`
 */
export async function deregisterInstance(
  id: string,
  caller: Principal,
  parts: RegisterParts,
): Promise<Receipt> {
  const policy = requireAction(caller, parts.policy(), 'deregister');
  const unknown = new MeshError('unknown_instance', { detail: `there is no instance "${id.slice(0, 192)}"` });
  if (!INSTANCE_ID_PATTERN.test(id)) throw unknown;
  const elsewhere = findInstance(parts.discovery.list(), id);
  const admit = (registered: Registered | undefined) => {
    const found = registered ?? elsewhere;
    if (!found || !isAllowed(caller, policy, found.meta.mcp_server ?? '')) throw unknown;
    if (found.meta.registered_by === undefined)
      throw conflict(`"${id}" registered itself: stop its worker instead`);
    if (!registered) throw conflict(`"${id}" ${atAnotherAgent(elsewhere)}`);
  };
  await ask(parts, () => parts.consul.deregister(id, admit));
  return {
    service_id: id,
    status: 'deregistered',
    message: 'taken out of Consul; gateways send it no more calls once they have heard of it',
  };
}

function requireAction(
  { roles }: Principal,
  policy: AccessPolicy | undefined,
  action: MeshAction,
): AccessPolicy {
  if (policy && mayMesh(policy, roles, action)) return policy;
  throw new MeshError('forbidden', {
    detail: `your roles do not allow to ${action} instances (mesh: [${action}])`,
  });
}

function isAllowed({ roles }: Principal, policy: AccessPolicy, service: string): boolean {
  return permissionsOf(policy, roles, service) !== undefined;
}

/** The service as callers name it; who is not allowed on it, or on one that has its name in Consul, learns nothing. */
function serviceOf(
  { service_name: wanted, metadata }: RegistrationBody,
  services: readonly KnownService[],
  allows: (service: string) => boolean,
): string {
  const owners = services.filter(service => consulNameOf(service) === wanted).map(({ name }) => name);
  const derived = owners.length === 1 ? owners[0] : /^mcp-(.+)$/.exec(wanted)?.[1];
  const name = metadata.mcp_server ?? derived;
  if (name === undefined || !SERVICE_NAME_PATTERN.test(name)) {
    throw invalid(
      'service_name: does not begin with "mcp-"; say in metadata.mcp_server which service it is of',
    );
  }
  if (![name, ...owners].every(allows)) {
    throw new MeshError('forbidden', { detail: `your roles do not allow the service "${wanted}"` });
  }
  const known = services.find(service => service.name === name);
  const right = known ? consulNameOf(known) : consulName(name);
  if (right !== wanted)
    throw invalid(`service_name: the service "${name}" is "${right}" in Consul; write that`);
  if (owners.length > 0 && !known) {
    throw invalid(`service_name: is that of "${owners.join('", "')}"; say so in metadata.mcp_server`);
  }
  return name;
}

interface Facts {
  service: string;
  /** Pinned. */
  address: string;
  definition: KnownService['definition'];
  caller: Principal;
  scheme: string;
  now: number;
}

function toConsul(body: RegistrationBody, facts: Facts): Registration {
  const { service, address, definition, caller, scheme, now } = facts;
  const { health_check: path, weight = WEIGHT } = definition;
  const healthPath = typeof path === 'string' && HEALTH_PATH_PATTERN.test(path) ? path : HEALTH_PATH;
  const passing = typeof weight === 'number' && weight >= 1 && weight <= 65_535 ? Math.floor(weight) : WEIGHT;
  return {
    id: body.service_id,
    name: body.service_name,
    address,
    port: body.port,
    tags: [...new Set([CONSUL_TAG, ...body.tags])],
    meta: {
      ...body.metadata,
      mcp_server: service,
      instance: body.service_id,
      registered_by: cut(caller.principal),
      registered_at: new Date(now).toISOString(),
    },
    weights: { passing, warning: Math.max(1, Math.floor(passing / 10)) },
    deregisterAfterSeconds: DEREGISTER_AFTER_SECONDS,
    health: { url: `${scheme}://${urlHost(address)}:${body.port}${healthPath}`, ...CHECK },
  };
}

/** Consul itself would put the new one in the place of whatever has the id, another service included. */
function refuseTaken(
  { id, name, address, port }: Registration,
  registered: Registered | undefined,
  elsewhere: Instance | undefined,
): void {
  if (!registered) {
    if (elsewhere) throw conflict(`service_id: "${id}" ${atAnotherAgent(elsewhere)}`);
    return;
  }
  if (registered.service !== name) throw conflict(`service_id: "${id}" is an instance of another service`);
  if (registered.meta.registered_by === undefined) {
    throw conflict(`service_id: "${id}" has registered itself, and needs nobody to do it`);
  }
  if (registered.address !== address || registered.port !== port) {
    const place = `${urlHost(registered.address)}:${registered.port}`;
    throw conflict(
      `service_id: "${id}" is registered at ${place}; deregister it first, or choose another id`,
    );
  }
}

function findInstance(services: readonly KnownService[], id: string): Instance | undefined {
  return services.flatMap(({ instances }) => instances).find(instance => instance.id === id);
}

/** Agents keep what was registered with them: taken out of the catalogue by another, it comes back. */
function atAnotherAgent(instance: Instance | undefined): string {
  return `is registered at the Consul agent of "${instance?.node}", which is not this gateway's, or has only just left: ask a gateway there, or try again`;
}

async function ask({ log }: RegisterParts, call: () => Promise<void>): Promise<void> {
  try {
    await call();
  } catch (cause) {
    if (!(cause instanceof ConsulError)) throw cause;
    log(cause.message);
    const detail = 'Consul did not take the change';
    throw new MeshError('consul_unavailable', { detail, retryAfterMs: RETRY_MS, cause });
  }
}

function urlHost(address: string): string {
  return address.includes(':') ? `[${address}]` : address;
}

/** A character cut in two decodes to U+FFFD. */
function cut(text: string): string {
  return Buffer.from(text)
    .subarray(0, META_BYTES)
    .toString()
    .replace(/\uFFFD+$/, '');
}

function conflict(detail: string): MeshError {
  return new MeshError('conflict', { detail });
}

function invalid(detail: string): MeshError {
  return new MeshError('invalid_request', { detail });
}
