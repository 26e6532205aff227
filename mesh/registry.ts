import { readFileSync } from 'node:fs';
import type { z } from 'zod';
import { isObject, type JsonObject } from './jsonrpc.ts';
import { consulName } from './names.ts';
import { registrySchema, serviceSchema } from './registry-schema.ts';
import { describeFault, type Fault, type Path, parseYaml, suggestion, toFaults } from './yaml-faults.ts';

export type Service = Omit<z.infer<typeof serviceSchema>, 'service_name'> & { service_name: string };

export interface Registry {
  path: string;
  services: Service[];
}

interface LoadOptions {
  /** Where `${VAR}` is read from. */
  env: Readonly<Record<string, string | undefined>>;
  /** Variables are filled in for this service only: a worker has the secrets of its own service and no others. */
  only?: string;
}

const VARIABLE = /\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}/g;

/** The registry file cannot be used; the message has one `file:line: field: what, and the cure` per line. */
export class RegistryError extends Error {
  override name = 'RegistryError';
}

/**
 * Reads and checks the registry file.
 * @throws RegistryError with every fault that was found
 */
export function loadRegistry(path: string, options: LoadOptions): Registry {
  return parseRegistry(readRegistryText(path), path, options);
}

/**
 * Checks the text of a registry file; the path is for messages.
 * @throws RegistryError with every fault that was found
 */
export function parseRegistry(text: string, path: string, options: LoadOptions): Registry {
  const { value, errors, toText } = parseYaml(text, path);
  const fail = (texts: string[]): never => {
    throw new RegistryError(texts.join('\n'));
  };
  if (errors.length > 0) return fail(errors);
  const root = registrySchema.safeParse(value, { reportInput: true });
  if (!root.success) {
    const faults = root.error.issues.flatMap(issue => toFaults(issue, [], registrySchema));
    return fail(faults.map(toText));
  }

  const faults: Fault[] = [];
  const services: Service[] = [];
  const defaults = (value as JsonObject).defaults ?? {};
  root.data.mcp_services.forEach((raw, index) => {
    const merged = isObject(raw) ? mergeDefaults(defaults as JsonObject, raw) : raw;
    const parsed = serviceSchema.safeParse(merged, { reportInput: true });
    if (!parsed.success) {
      faults.push(
        ...parsed.error.issues.flatMap(issue => toFaults(issue, ['mcp_services', index], serviceSchema)),
      );
      return;
    }
    const service = {
      ...parsed.data,
      service_name: parsed.data.service_name ?? consulName(parsed.data.name),
    };
    const fill = options.only === undefined || options.only === service.name;
    services.push(fill ? fillVariables(service, ['mcp_services', index], options.env, faults) : service);
  });
  if (faults.length === 0) faults.push(...crossCheck(services));
  return faults.length > 0 ? fail(faults.map(toText)) : { path, services };
}

/** @throws RegistryError that names the file and the system's reason */
export function readRegistryText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw unreadableRegistry(path, cause);
  }
}

export function unreadableRegistry(path: string, cause: unknown): RegistryError {
  const { code = String(cause) } = cause as NodeJS.ErrnoException;
  const hint = 'MESH_REGISTRY names the registry file';
  return new RegistryError(`${path}: cannot be read (${code}); ${hint}`, { cause });
}

/** The service of that name. @throws RegistryError with the nearest name when there is none */
export function findService(registry: Registry, name: string): Service {
  const found = registry.services.find(service => service.name === name);
  if (found) return found;
  const names = registry.services.map(service => service.name);
  throw new RegistryError(
    `${registry.path}: no service "${name}"${suggestion(name, names)}; there are: ${names.join(', ')}`,
  );
}

/** A service that stands in no file, with every default. @throws RegistryError */
export function adHocService(fields: {
  name: string;
  command: string;
  args: string[];
  isolation?: Service['isolation'];
}): Service {
  const parsed = serviceSchema.safeParse(fields, { reportInput: true });
  if (parsed.success) return { ...parsed.data, service_name: consulName(fields.name) };
  throw new RegistryError(
    parsed.error.issues.flatMap(issue => toFaults(issue, [], serviceSchema).map(describeFault)).join('\n'),
  );
}

/** What gateways may know of a service: how to balance and limit it, not how it is started. */
export function publicDefinition(service: Service): JsonObject {
  const { command: _command, args: _args, env: _env, env_allow: _allow, cwd: _cwd, ...rest } = service;
  return rest;
}

/** How many workers to start for a service. */
export function instanceCount(service: Service): number {
  return typeof service.instances === 'number' ? service.instances : service.instances.min;
}

/** A service's own value wins; in nested settings (limits, retry, …) each key on its own. */
function mergeDefaults(defaults: JsonObject, service: JsonObject): JsonObject {
  const merged: JsonObject = { ...defaults, ...service };
  for (const key of ['circuit_breaker', 'retry', 'limits', 'recycle', 'pool']) {
    const [common, own] = [defaults[key], service[key]];
    if (isObject(common) && isObject(own)) merged[key] = { ...common, ...own };
  }
  return merged;
}

function fillVariables(service: Service, at: Path, env: LoadOptions['env'], faults: Fault[]): Service {
  const fill = (text: string, path: Path) =>
    text.replace(VARIABLE, (_all, name: string, fallback: string | undefined) => {
      const value = env[name] || fallback;
      if (value !== undefined) return value;
      const cure = `set it, or write \${${name}:-default}`;
      faults.push({ path, message: `the variable ${name} is not set; ${cure}` });
      return '';
    });
  return {
    ...service,
    command: fill(service.command, [...at, 'command']),
    args: service.args.map((arg, i) => fill(arg, [...at, 'args', i])),
    env: Object.fromEntries(Object.entries(service.env).map(([k, v]) => [k, fill(v, [...at, 'env', k])])),
    ...(service.cwd === undefined ? {} : { cwd: fill(service.cwd, [...at, 'cwd']) }),
    legacy_url: service.legacy_url && fill(service.legacy_url, [...at, 'legacy_url']),
  };
}

function crossCheck(services: Service[]): Fault[] {
  const faults: Fault[] = [];
  services.forEach((service, index) => {
    const at = ['mcp_services', index];
    for (const field of ['name', 'service_name'] as const) {
      const other = services.findIndex(earlier => earlier[field] === service[field]);
      if (other >= index) continue;
      const shownAt =
        field === 'service_name' && service.service_name === consulName(service.name) ? 'name' : field;
      const message = `"${service[field]}" is already mcp_services[${other}]; choose another`;
      faults.push({ path: [...at, shownAt], message });
      break;
    }
    faults.push(...checkInstances(service, at), ...checkPorts(services, index));
  });
  return faults;
}

function checkInstances(service: Service, at: Path): Fault[] {
  const { instances } = service;
  if (typeof instances === 'number' || instances.min <= instances.max) return [];
  return [
    { path: [...at, 'instances', 'min'], message: `min ${instances.min} is more than max ${instances.max}` },
  ];
}

function checkPorts(services: Service[], index: number): Fault[] {
  const service = services[index];
  if (!service?.port_range) return [];
  const [first, last] = service.port_range;
  const path = ['mcp_services', index, 'port_range'];
  if (first > last) return [{ path, message: `${first} is more than ${last}; write the lower port first` }];
  const { instances } = service;
  const wanted = typeof instances === 'number' ? instances : instances.max;
  const room = last - first + 1;
  if (wanted > room)
    return [{ path, message: `${room} ports do not hold ${wanted} instances; widen the range` }];
  const overlaps = (other: Service) =>
    other.port_range && other.port_range[0] <= last && first <= other.port_range[1];
  const other = services.slice(0, index).findIndex(overlaps);
  return other < 0
    ? []
    : [{ path, message: `overlaps with port_range of "${services[other]?.name}"; keep them apart` }];
}
