import {
  instanceCount,
  parseRegistry,
  type Registry,
  RegistryError,
  readRegistryText,
  type Service,
} from '../../mesh/registry.ts';
import { registryEnvironment } from '../../mesh/settings.ts';
import { parseYaml } from '../../mesh/yaml-faults.ts';
import { checkCommand } from '../doctor/command.ts';
import type { Checked } from './checked.ts';

export interface RegistrySummary {
  path: string;
  services: string[];
  /** To begin with. */
  instances: number;
}

/** Every fault of a registry file, or what is odd in it. */
export function checkRegistry(path: string): Checked<RegistrySummary> {
  try {
    const text = readRegistryText(path);
    const { services } = read(text, path, '');
    const instances = services.reduce((sum, service) => sum + instanceCount(service), 0);
    const summary = { path, services: services.map(({ name }) => name), instances };
    const warnings = [...unsetVariables(text, path), ...oddCommands(text, path, services)];
    return { faults: [], warnings, summary };
  } catch (error) {
    return { faults: linesOf(error), warnings: [], summary: undefined };
  }
}

/** `only`: the service whose variables are filled in; '' for none, undefined for all. */
function read(text: string, path: string, only: string | undefined): Registry {
  return parseRegistry(text, path, { env: registryEnvironment(), ...(only === undefined ? {} : { only }) });
}

/** They need not be set here, but where the workers are started. */
function unsetVariables(text: string, path: string): string[] {
  try {
    read(text, path, undefined);
    return [];
  } catch (error) {
    return linesOf(error);
  }
}

function oddCommands(text: string, path: string, services: readonly Service[]): string[] {
  const { toText } = parseYaml(text, path);
  return services.flatMap(({ name }, index) => {
    const service = filled(text, path, name);
    if (!service) return [];
    const verdict = checkCommand({ service, folder: process.cwd() });
    if (verdict.state !== 'broken') return [];
    const message = `${verdict.text}; ${verdict.cure}`;
    return [toText({ path: ['mcp_services', index, 'command'], message })];
  });
}

/** undefined when a variable of it is not set, which is told already. */
function filled(text: string, path: string, name: string): Service | undefined {
  try {
    return read(text, path, name).services.find(service => service.name === name);
  } catch {
    return undefined;
  }
}

function linesOf(error: unknown): string[] {
  if (!(error instanceof RegistryError)) throw error;
  return error.message.split('\n');
}
