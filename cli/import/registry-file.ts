import { existsSync, readFileSync } from 'node:fs';
import { parseDocument } from 'yaml';
import { isObject, type JsonObject } from '../../mesh/jsonrpc.ts';
import { consulName } from '../../mesh/names.ts';
import { parseRegistry, unreadableRegistry } from '../../mesh/registry.ts';

/** A service as the registry file has it, nothing filled in and no defaults. */
export interface KnownService {
  name: string;
  consul: string;
  fields: JsonObject;
}

export interface RegistryFile {
  path: string;
  /** undefined: there is no such file yet. */
  text: string | undefined;
  services: KnownService[];
}

const VARIABLE = /\$\{([A-Za-z_]\w*)/g;

/** @throws RegistryError with every fault, when the file cannot be used as it is */
export function readRegistryFile(path: string): RegistryFile {
  if (!existsSync(path)) return { path, text: undefined, services: [] };
  try {
    return parseRegistryFile(readFileSync(path, 'utf8'), path);
  } catch (error) {
    if (!('code' in (error as Error))) throw error;
    throw unreadableRegistry(path, error);
  }
}

/** @throws RegistryError with every fault of the text */
export function parseRegistryFile(text: string, path: string): RegistryFile {
  checkRegistry(text, path);
  const list: unknown = parseDocument(text).toJS()?.mcp_services;
  const services = (Array.isArray(list) ? list : []).filter(isObject).map(fields => {
    const name = String(fields.name);
    return { name, consul: String(fields.service_name ?? consulName(name)), fields };
  });
  return { path, text, services };
}

/** Whether `mesh up` would take it, but for variables that are not set here. @throws RegistryError */
export function checkRegistry(text: string, path: string): void {
  // No service has this name: so none has to have its variables set.
  parseRegistry(text, path, { env: {}, only: '' });
}

/** Names of the variables that a service refers to. */
export function variablesOf({ fields }: KnownService): Set<string> {
  return new Set([...JSON.stringify(fields).matchAll(VARIABLE)].map(([, name = '']) => name));
}
